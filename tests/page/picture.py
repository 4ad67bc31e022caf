#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Say in one line what is in a PNG.

usage: tests/page/picture.py FILE

Prints "WIDTH HEIGHT COLOURS LIGHT": how many different colours it has, and how
light they are on average, of 255. What is no PNG of 8 bits a colour ends with
one sentence.
"""

import struct
import sys
import zlib


def chunks(data):
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        sys.exit("not a PNG")
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        crc, = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(kind + body) != crc:
            sys.exit(f"chunk {kind} is damaged")
        yield kind, body
        at += 12 + length
    if kind != b"IEND":
        sys.exit("it has no end")


def nearest(a, b, c):
    p = a + b - c
    d = abs(p - a), abs(p - b), abs(p - c)
    return a if d[0] <= d[1] and d[0] <= d[2] else b if d[1] <= d[2] else c


def rows(raw, width, step):
    """Undo the filters (PNG 9.2)."""
    length = width * step
    above = bytearray(length)
    for at in range(0, len(raw), length + 1):
        how, line = raw[at], bytearray(raw[at + 1:at + 1 + length])
        if how == 1:
            for i in range(step, length):
                line[i] = line[i] + line[i - step] & 255
        elif how == 2:
            for i in range(length):
                line[i] = line[i] + above[i] & 255
        elif how == 3:
            for i in range(length):
                left = line[i - step] if i >= step else 0
                line[i] = line[i] + (left + above[i]) // 2 & 255
        elif how == 4:
            for i in range(length):
                left, corner = (line[i - step], above[i - step]) \
                    if i >= step else (0, 0)
                line[i] = line[i] + nearest(left, above[i], corner) & 255
        above = line
        yield line


def main(path):
    with open(path, "rb") as f:
        found = list(chunks(f.read()))
    width, height, depth, kind = struct.unpack(">IIBB", found[0][1][:10])
    if depth != 8 or kind not in (2, 6):
        sys.exit(f"depth {depth} and kind {kind} are not known here")
    step = 3 if kind == 2 else 4
    raw = zlib.decompress(b"".join(b for k, b in found if k == b"IDAT"))
    colours, light = set(), 0
    for line in rows(raw, width, step):
        pixels = [bytes(line[i:i + 3]) for i in range(0, len(line), step)]
        colours.update(pixels)
        light += sum(p[1] for p in pixels)
    print(width, height, len(colours), light // (width * height))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
