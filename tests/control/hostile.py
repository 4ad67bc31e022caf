#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients that mean harm.

usage: tests/control/hostile.py SOCKET WAY

WAY is one of the functions below. Each ends when it has done its worst, with 1
if the server did what it must not: answer 2xx to it, or never let go.
"""

import os
import random
import socket
import sys
import time

POST = b"POST /v1/resize HTTP/1.1\r\nHost: a\r\n"


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    while True:
        try:
            s.connect(path)
            return s
        except BlockingIOError: # a full backlog
            time.sleep(0.01)


def send(s, data):
    """False: it was cut off."""
    try:
        s.sendall(data)
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False


def read(s):
    """All that comes until the end of the connection."""
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                return data
            data += piece
    except (ConnectionResetError, BrokenPipeError):
        return data


def no_success(data):
    assert b"HTTP/1.1 2" not in data, data[:200]


def glance(path, data):
    """Send DATA and look at what comes at once; a server that waits for more
    is left alone."""
    s = connect(path)
    s.settimeout(0.05)
    send(s, data)
    try:
        no_success(s.recv(65536))
    except (TimeoutError, ConnectionResetError):
        pass
    s.close()


def endless_header(path):
    s = connect(path)
    send(s, b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    while send(s, b"x" * 4096):
        pass
    no_success(read(s))


def many_headers(path):
    s = connect(path)
    send(s, b"GET / HTTP/1.1\r\nHost: a\r\n")
    while send(s, b"X-A: b\r\n" * 512):
        pass
    no_success(read(s))


def endless_url(path):
    s = connect(path)
    send(s, b"GET /v1/inspect/")
    while send(s, b"a/" * 2048):
        pass
    no_success(read(s))


def endless_body(path):
    s = connect(path)
    send(s, POST + b"Transfer-Encoding: chunked\r\n\r\n")
    while send(s, b"1000\r\n" + b" " * 4096 + b"\r\n"):
        pass
    no_success(read(s))


def huge_length(path):
    s = connect(path)
    send(s, POST + b"Content-Length: 99999999999999\r\n\r\n{}")
    data = read(s)
    assert data.startswith(b"HTTP/1.1 413"), data[:100]


def two_lengths(path):
    s = connect(path)
    send(s, POST + b"Content-Length: 35\r\nTransfer-Encoding: chunked\r\n\r\n"
         b'{"disk": "a", "size": "16M"}       ')
    no_success(read(s))


def slow(path):
    """A byte now and then: never silent for long, never a whole request."""
    s = connect(path)
    start = time.monotonic()
    s.setblocking(False)
    for c in b"GET /v1/inspect HTTP/1.1\r\nHost: a\r\nX-Very-Slow: " * 9:
        try:
            s.send(bytes([c]))
            if not s.recv(1):
                return
        except BlockingIOError:
            pass
        except OSError:
            return
        assert time.monotonic() - start < 60, "never cut off"
        time.sleep(0.2)
    raise AssertionError("never cut off")


def reads_nothing(path):
    """Asks a lot and takes no answer."""
    s = connect(path)
    s.settimeout(60)
    try:
        while True:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    except (BrokenPipeError, ConnectionResetError):
        pass


def pipelined(path):
    """Many requests at once are all answered, in order."""
    s = connect(path)
    n = 200
    send(s, b"".join(
        b"GET /v1/inspect/disks/a/%s HTTP/1.1\r\nHost: a\r\n%s\r\n" %
        (b"policy" if i % 2 else b"none%d" % i,
         b"Connection: close\r\n" if i == n - 1 else b"") for i in range(n)))
    data = read(s)
    got = [x.split(b" ", 1)[0] for x in data.split(b"HTTP/1.1 ")[1:]]
    assert got == [b"404", b"200"] * (n // 2), got
    at = [data.index(b"'none%d'" % i) for i in range(0, n, 2)]
    assert at == sorted(at)


def thousand(path):
    """A thousand connections at once, which do nothing; then one that asks."""
    all_of_them = []
    for _ in range(1000):
        all_of_them.append(connect(path))
    s = connect(path)
    send(s, b"GET /v1/verbs HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    data = read(s)
    assert data == b"" or data.startswith(b"HTTP/1.1 503"), data[:100]
    for other in all_of_them:
        other.close()


def garbage(path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(300):
        glance(path, dice.randbytes(dice.randrange(1, 3000)))


def mutated(path):
    """Requests with a few bytes changed: never a crash, never another disk."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    whole = (POST + b"Content-Type: application/json\r\nContent-Length: 31\r\n"
             b'\r\n{"disk": "none", "size": "16M"}')
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data))
            if dice.random() < 0.5:
                data[at] = dice.randrange(256)
            else:
                del data[at:at + dice.randrange(4)]
        glance(path, bytes(data))


def leavers(path):
    """They ask for edits and leave at once."""
    for i in range(300):
        s = connect(path)
        body = b'{"disk": "b", "policy": "%s"}' % (
            b"retry" if i % 2 else b"report")
        send(s, b"POST /v1/policy HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
             b"\r\n%s" % (len(body), body))
        if i % 3 == 0:
            time.sleep(0.001)
        s.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in globals():
        sys.exit(__doc__)
    os.umask(0o077)
    globals()[sys.argv[2]](sys.argv[1])
