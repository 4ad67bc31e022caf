#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the seed corpus of fuzz_boot_linux into fuzz/boot_linux: two numbers
(see src/host/machine/fuzz_boot_linux.c) and a kernel a file. Names say what a
file is for. Running it again gives the same."""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot_linux")


def kernel(setup=1, payload=1024, **fields):
    """A bzImage, as small as one can be."""
    image = bytearray((setup + 1) * 512 + payload)
    known = {"sects": (0x1f1, "B", setup), "size": (0x1f4, "I", payload // 16),
             "jump": (0x200, "H", 0x6aeb), "magic": (0x202, "4s", b"HdrS"),
             "version": (0x206, "H", 0x20f), "loadflags": (0x211, "B", 1),
             "initrd_max": (0x22c, "I", 0x7fffffff),
             "align": (0x230, "I", 0x1000), "movable": (0x234, "B", 1),
             "xload": (0x236, "H", 0x7f), "cmdline": (0x238, "I", 2047),
             "wants": (0x258, "Q", 0x200000), "init": (0x260, "I", 0x100000)}
    for name, (at, form, value) in known.items():
        struct.pack_into("<" + form, image, at, fields.get(name, value))
    return bytes(image)


SEEDS = {
    "good": (16, 20, kernel()),
    "no-initrd": (0, 0, kernel()),
    "initrd-below": (0x8000, 5, kernel(wants=0x600000, init=0x1fff00)),
    "initrd-low-limit": (64, 5, kernel(initrd_max=0x3fffff)),
    "initrd-too-long": (0xffff, 5, kernel(init=0x600000)),
    "four-sectors": (16, 20, kernel(setup=4, sects=0)),
    "moves": (16, 20, kernel(wants=0x1000000)),
    "cannot-move": (16, 20, kernel(wants=0x1000000, movable=0)),
    "badly-aligned": (16, 20, kernel(wants=0x1000000, align=3)),
    "too-long": (16, 20, kernel(init=0xffffffff)),
    "wants-the-end": (16, 20, kernel(wants=0xffffffffffffffff)),
    "elf": (16, 20, b"\x7fELF" + bytes(1000)),
    "no-magic": (16, 20, kernel(magic=b"hdrs")),
    "old": (16, 20, kernel(version=0x20b)),
    "32-bit": (16, 20, kernel(xload=0)),
    "empty": (16, 20, kernel(size=0)),
    "cut": (16, 20, kernel(size=0xffff)),
    "long-command-line": (16, 2048, kernel()),
    "short": (16, 20, kernel()[:600]),
    "no-header": (16, 20, kernel()[:100]),
}


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, (initrd, cmdline, image) in SEEDS.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(struct.pack("<HH", initrd, cmdline) + image)


if __name__ == "__main__":
    main()
