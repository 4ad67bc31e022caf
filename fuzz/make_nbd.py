#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the seed corpus of fuzz_nbd into fuzz/nbd: one session a file.

Byte 0 says how the target plays it (see src/host/nbd/fuzz_nbd.c); then come the
client's bytes. Names say what a file is for. Running it again gives the same.
"""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nbd")
HELLO = struct.pack(">I", 3)
ALLOC = b"base:allocation"


def opt(n, data=b"", length=None):
    size = len(data) if length is None else length
    return b"IHAVEOPT" + struct.pack(">II", n, size) + data


def text(s):
    return struct.pack(">I", len(s)) + s


def info(name=b"", wants=(0, 1, 2, 3)):
    return text(name) + struct.pack(">H", len(wants)) + b"".join(
        struct.pack(">H", w) for w in wants)


def meta(name=b"", queries=(ALLOC,)):
    return text(name) + struct.pack(">I", len(queries)) + b"".join(
        map(text, queries))


def req(typ, flags=0, off=0, length=0, data=b"", ext=False, cookie=1):
    magic = 0x21E41C71 if ext else 0x25609513
    form = ">IHHQQQ" if ext else ">IHHQQI"
    return struct.pack(form, magic, flags, typ, cookie, off, length) + data


def write(n, off=0, flags=0, ext=False):
    return req(1, flags | (32 if ext else 0), off, n, b"w" * n, ext)


def commands(ext, sizes=(0, 1, 512, 4096)):
    f = []
    for n in sizes:
        f += [write(n, 100, n & 1, ext), req(0, 0, 50, n, ext=ext),
              req(0, 4, 50, n, ext=ext)]
    f += [req(0, 0, 0, 1 << 20, ext=ext), req(3, ext=ext),
          req(3, 1, ext=ext), req(3, 0, 1, 1, ext=ext),
          req(4, 1, 0, 4096, ext=ext), req(5, 0, 0, 1 << 20, ext=ext),
          req(6, 2, 0, 8192, ext=ext), req(6, 16, 0, 8192, ext=ext),
          req(7, 0, 0, 1 << 20, ext=ext), req(7, 8, 5, 70000, ext=ext),
          req(7, 0, 0, 0, ext=ext), req(8, ext=ext), req(9, 255 & ~32, ext=ext),
          req(0, 64, ext=ext), req(0, 0, 1 << 20, 1, ext=ext),
          req(0, 0, 2**64 - 1, 512, ext=ext), write(600, 1 << 20, ext=ext),
          req(0, 0, 0, 1 << 26, ext=ext), write(600, 0, 4, ext=ext)]
    if ext:
        f += [req(1, 0, 0, 512, ext=True),
              req(7, 32, 0, 16, b"p" * 16, ext=True),
              req(6, 0, 0, 2**63, ext=True)]
    return b"".join(f)


def session(form, name=b"", go=True):
    s = HELLO
    if form:
        s += opt(8) if form == 1 else opt(11)
        s += opt(10, meta(name))
    return s + (opt(7, info(name)) if go else opt(1, name))


FILES = {}


def add(name, how, data):
    FILES[name] = bytes([how]) + data


add("empty", 0, b"")
add("hello-bad-flags", 0, struct.pack(">I", 7))
add("hello-short", 0, b"\0\0")
add("option-bad-magic", 0, HELLO + b"IHAVENOT" + bytes(8))
add("option-abort", 0, HELLO + opt(2, b"x"))
add("option-list", 1, HELLO + opt(3) + opt(3, b"x") + opt(5) + opt(4))
add("option-huge", 0, HELLO + opt(3, b"", 1 << 30))
add("option-skip", 0, HELLO + opt(6, b"x" * 65537) + opt(3))
add("option-unknown-many", 0, HELLO + opt(77) * 40)
add("option-info", 0, HELLO + opt(6, info()) + opt(6, info(b"no")) +
    opt(6, b"x") + opt(6, info(b"n" * 5000)) + opt(7, info(b"no")) +
    opt(6, info(b"ro", (2, 2, 99)) + b"z"))
add("option-info-slow", 1, HELLO + opt(6, info()) + opt(7, info(b"ro")))
for how in (0, 1):
    add("option-meta-%d" % how, how, HELLO + opt(9, meta()) + opt(8) +
        opt(8, b"x") + opt(9, meta(b"", ())) + opt(9, meta(b"", (b"base:",))) +
        opt(10, meta(b"", (b"x:y", ALLOC, ALLOC))) + opt(10, meta(b"no")) +
        opt(10, meta(b"", (b"q" * 5000,))) + opt(10, meta()[:-1]) +
        opt(10, meta() + b"z") + opt(11) + opt(11, b"x") + opt(8) +
        opt(7, info()))
add("export-name", 0, session(0, b"", False) + commands(False))
add("export-name-zeroes", 0, struct.pack(">I", 1) + opt(1, b"ro") +
    write(512) + req(0, 0, 0, 512) + req(4, 0, 0, 512) + req(2))
add("export-name-unknown", 0, HELLO + opt(1, b"no"))
add("export-name-long", 0, HELLO + opt(1, b"n" * 4097))
add("export-name-extended", 0, HELLO + opt(11) + opt(1))
for form in range(3):
    ext = form == 2
    body = session(form) + commands(ext)
    add("commands-%d" % form, 0, body + req(2, ext=ext))
    add("commands-slow-%d" % form, 1, session(form) + req(0, 0, 0, 5, ext=ext) +
        write(900, 3, 1, ext) + req(7, 0, 0, 9999, ext=ext))
    add("large-%d" % form, 0, session(form) + commands(ext, (70000,)))
    add("commands-small-cap-%d" % form, 2, body)
    add("commands-aligned-%d" % form, 16 + 32, body)
    add("commands-unread-%d" % form, 64 + 4, session(form) + req(
        0, 0, 0, 1 << 20, ext=ext) * 300)
    add("commands-ro-%d" % form, 128, session(form, b"ro") + commands(ext))
    add("half-closed-%d" % form, 128, body)
    add("many-%d" % form, 0, session(form) + req(0, 0, 0, 64, ext=ext) * 600)
    add("payload-half-%d" % form, 0, session(form) + req(
        1, 32 if ext else 0, 0, 5000, b"w" * 3000, ext))
    add("payload-huge-%d" % form, 0, session(form) + req(
        1, 32 if ext else 0, 0, 1 << 27, b"w", ext))
    add("request-bad-magic-%d" % form, 0, session(form) + b"x" * 64)

# More than one block: pieces, a small cap, a disk that fails, a client that dies.
add("large-pieces", 0, session(1) + write(263000, 0, 1) + req(
    0, 0, 0, 270000) + req(0, 4, 0, 1 << 20) + req(0, 0, 0, 1 << 20))
add("large-tiny-cap", 4, session(2) + write(263000, 0, 1, True) + req(
    0, 0, 0, 270000, ext=True) + req(0, 4, 0, 1 << 20, ext=True))
add("large-fail", 8, session(0) + write(263000) + req(0, 0, 0, 270000))
add("large-missing", 0, session(1) + req(1, 0, 0, 300000, b"w" * 263000))

os.makedirs(OUT, exist_ok=True)
for old in os.listdir(OUT):
    os.unlink(os.path.join(OUT, old))
for name, data in FILES.items():
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
print(len(FILES), "files", sum(map(len, FILES.values())), "bytes")
