#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write a disk whose boot sector says what is in the sector behind it.

usage: sector.py [--twice] FILE TEXT

The boot sector reads the next one by INT 13h (extended read), writes it to the
first serial port and switches the machine off. With --twice it first resets the
machine, once: a byte of CMOS says that it has.
"""
import sys

SERIAL, POWER_OFF, RESET = 0x3f8, 0x604, 0xcf9
AT = 0x7c00     # where the BIOS puts it
NEXT = 0x7e00   # where it puts the next one
MARK = 0x7e     # in CMOS


def word(n):
    return n.to_bytes(2, "little")


ONCE = b"".join((
    b"\xb0", bytes([MARK]), b"\xe6\x70",    # mov al, MARK; out 0x70, al
    b"\xe4\x71\x84\xc0\x75\x0d",            # in al, 0x71; test al, al; jnz on
    b"\xb0\x01\xe6\x71",                    # mov al, 1; out 0x71, al
    b"\xba", word(RESET), b"\xb0\x06\xee",  # mov dx, RESET; mov al, 6; out
    b"\xf4\xeb\xfd",                        # hlt; jmp hlt
))                                          # on:


def boot_sector(twice):
    start = b"\x31\xc0\x8e\xd8\xfc"         # xor ax, ax; mov ds, ax; cld
    if twice:
        start += ONCE
    rest = b"".join((
        b"\xb4\x42\xcd\x13",                # mov ah, 0x42; int 0x13
        b"\xbe", word(NEXT),                # mov si, NEXT
        b"\xac\x84\xc0\x74\x06",            # next: lodsb; test al, al; jz off
        b"\xba", word(SERIAL), b"\xee",     # mov dx, SERIAL; out dx, al
        b"\xeb\xf5",                        # jmp next
        b"\xba", word(POWER_OFF),           # off: mov dx, POWER_OFF
        b"\xb8\x00\x34\xef",                # mov ax, S5; out dx, ax
        b"\xf4\xeb\xfd",                    # hlt; jmp hlt
    ))
    packet = b"\x10\0\x01\0" + word(NEXT) + bytes(2) + b"\x01" + bytes(7)
    at = AT + len(start) + 3 + len(rest)
    code = start + b"\xbe" + word(at) + rest + packet  # mov si, packet
    return code.ljust(510, b"\0") + b"\x55\xaa"


def main():
    twice = sys.argv[1] == "--twice"
    path, text = sys.argv[1 + twice:]
    with open(path, "wb") as f:
        f.write(boot_sector(twice))
        f.write(("\r\n" + text + "\r\n").encode("ascii").ljust(512, b"\0"))
        f.truncate(1 << 20)


if __name__ == "__main__":
    main()
