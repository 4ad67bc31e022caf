#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the seed corpus of fuzz_vfio_user into fuzz/vfio_user: one client a
file.

Byte 0 says how the target plays it (see src/host/vfio_user/fuzz_vfio_user.c);
then come records of descriptors and bytes. Names say what a file is for.
Running it again gives the same.
"""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vfio_user")

VERSION, MAP, UNMAP, INFO, REGION, IO_FDS, IRQ_INFO, SET_IRQS = range(1, 9)
READ, WRITE, RESET, MULTI = 9, 10, 13, 15
ON = 3          # VERSION and power come from the target
POSTED = 16
MEMORY, SHORT, EVENT, EVENT_NONBLOCK, PIPE = range(5)


def record(data, nfds=0, kind=0):
    return bytes([nfds | kind << 3]) + struct.pack("<H", len(data)) + data


def msg(command, payload=b"", flags=0, size=None, nfds=0, kind=0):
    size = 16 + len(payload) if size is None else size
    head = struct.pack("<HHIII", 1, command, size, flags, 0)
    return record(head + payload, nfds, kind)


def version(text, major=0, minor=1):
    return msg(VERSION, struct.pack("<HH", major, minor) + text)


def dma(address, size, offset=0, flags=3, nfds=1, kind=MEMORY, argsz=32):
    return msg(MAP, struct.pack("<IIQQQ", argsz, flags, offset, address, size),
               nfds=nfds, kind=kind)


def undma(address, size, flags=0, argsz=24):
    return msg(UNMAP, struct.pack("<IIQQ", argsz, flags, address, size))


def region_info(index, argsz=32):
    return msg(REGION, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))


def irq_info(index, argsz=16):
    return msg(IRQ_INFO, struct.pack("<IIII", argsz, 0, index, 0))


def irqs(flags, index, start, count, data=b"", nfds=0, kind=EVENT):
    return msg(SET_IRQS, struct.pack("<IIIII", 20 + len(data), flags, index,
                                     start, count) + data,
               nfds=nfds, kind=kind)


def read(region, offset, count):
    return msg(READ, struct.pack("<QII", offset, region, count))


def write(region, offset, data, flags=0):
    return msg(WRITE, struct.pack("<QII", offset, region, len(data)) + data,
               flags)


def reg(offset, value, flags=0):
    return write(0, offset, struct.pack("<Q", value), flags)


def multi(entries, flags=POSTED, n=None):
    body = b"".join(struct.pack("<QII8s", o, r, len(d), d)
                    for r, o, d in entries)
    return msg(MULTI, struct.pack("<Q", len(entries) if n is None else n)
               + body, flags)


QEMU = (b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, '
        b'"max_dma_maps": 65535, "max_data_xfer_size": 1048576, '
        b'"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, '
        b'"write_multiple": true}}\0')


def boot():
    f = [version(QEMU, 0, 0), dma(0, 0x10000), dma(0xfffc0000, 0x40000, 0, 1,
                                                  0),
         msg(INFO, struct.pack("<IIII", 16, 0, 0, 0))]
    f += [region_info(i) for i in (0, 1, 2, 3, 4, 5, 7)]
    f += [irq_info(3), read(7, 0, 4096), irq_info(2),
          irqs(4 | 32, 0, 0, 1, nfds=1), irqs(1 | 32, 0, 0, 0), msg(RESET)]
    f += [write(7, 0x10 + 4 * i, b"\0\0\0\0") for i in range(6)]
    f += [undma(0, 0x10000), dma(0, 0x8000), dma(0x8000, 0x8000, 0x8000)]
    f += [write(7, 4, b"\6\0"), write(7, 0x10, b"\xff" * 4), read(7, 0x10, 4)]
    return b"".join(f)


def interrupts():
    return b"".join([
        irqs(4 | 32, 2, 0, 7, nfds=7), irqs(4 | 32, 2, 7, 2, nfds=2),
        reg(8, 3), reg(8, 12), reg(8, 77), irqs(4 | 32, 2, 12, 1, nfds=1),
        irqs(4 | 32, 2, 0, 1), irqs(1 | 32, 2, 0, 3),
        irqs(2 | 32, 2, 0, 3, b"\1\0\1"), read(4, 0x800, 8),
        irqs(1 | 32, 2, 0, 0), write(7, 0x7e, b"\0\0"),
        irqs(4 | 32, 0, 0, 1, nfds=1), irqs(4 | 16, 0, 0, 1, nfds=1),
        reg(16, 1), irqs(1 | 16, 0, 0, 1), irqs(1 | 8, 0, 0, 1),
        irqs(2 | 16, 0, 0, 1, b"\1"), irqs(2 | 8, 0, 0, 1, b"\0"), reg(16, 0),
        irqs(4 | 16, 0, 0, 1)])


def bad_irqs():
    return b"".join([
        irqs(0, 2, 0, 1), irqs(3 | 32, 2, 0, 1), irqs(4 | 48, 2, 0, 1),
        irqs(4 | 32, 9, 0, 1), irqs(4 | 32, 2, 20, 1, nfds=1),
        irqs(4 | 32, 2, 0xffffffff, 2), irqs(4 | 32, 2, 0, 0xffffffff),
        irqs(4 | 32, 2, 0, 3, nfds=2), irqs(4 | 32, 2, 0, 1, nfds=1,
                                            kind=PIPE),
        irqs(1 | 32, 2, 0, 1, nfds=1), irqs(2 | 32, 2, 0, 3, b"\1"),
        irqs(1 | 8, 2, 0, 1), irqs(4 | 8, 0, 0, 1, nfds=1),
        irqs(1 | 32, 2, 1, 0), msg(SET_IRQS, b"\0" * 19),
        irq_info(5), irq_info(0, 8), msg(IRQ_INFO, b"")])


def bad_memory():
    return b"".join([
        dma(1, 4096), dma(0, 0), dma(0, 4095), dma(0, 4096, 1),
        dma(0xfffffffffffff000, 0x2000), dma(0, 1 << 40), dma(0, 4096, 1 << 40),
        dma(0, 4096, flags=0), dma(0, 4096, flags=8), dma(0, 4096, argsz=8),
        dma(0, 4096, nfds=2), dma(0, 4096, kind=SHORT), dma(0, 4096, kind=PIPE),
        dma(0, 4096, kind=EVENT), dma(0, 4096), dma(0, 4096), dma(0, 8192),
        dma(1 << 30, 4096, nfds=0), dma(1 << 30, 4096, nfds=0),
        undma(0, 8192), undma(1, 4096), undma(0, 0), undma(0, 4096, 1),
        undma(0, 4096, 2), undma(0, 4096, 4), undma(0, 4096, argsz=3),
        msg(UNMAP, b"x"), msg(MAP, b"x"), undma(0, 0, 2), undma(0, 0, 2),
        msg(UNMAP, struct.pack("<IIQQ", 24, 0, 0, 4096), nfds=1)])


def accesses():
    f = [read(0, o, n) for o, n in ((0x30, 8), (0x31, 7), (0x28, 64),
                                    (4090, 20), (1 << 63, 4), (0, 0),
                                    (0, 1 << 21))]
    f += [read(r, 0, 4) for r in range(1, 10)]
    f += [read(0, 0, 4), read(7, 4094, 8), write(0, 1, b"123"),
          write(7, 0x3c, b"\1\2\3"), write(8, 0, b"1"), write(9, 0, b"1"),
          write(7, 0x40 + 9, b"\x80"), reg(0, 1), reg(40, 1),
          msg(WRITE, struct.pack("<QII", 0, 0, 5) + b"1234"),
          msg(READ, b"x"), msg(WRITE, b"x")]
    return b"".join(f)


FILES = {
    "qemu": (0, boot()),
    "qemu-sparse": (64, boot() + region_info(0, 64) + region_info(0, 32)),
    "version-none": (0, version(b"") + msg(RESET)),
    "version-empty": (0, version(b"\0")),
    "version-object": (0, version(b"{}\0")),
    "version-small": (0, version(b'{"capabilities":{"max_msg_fds":1}}\0')),
    "version-array": (0, version(b"[]\0")),
    "version-deep": (0, version(b"[" * 3000 + b"\0")),
    "version-numbers": (0, version(
        b'{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":1e99}}\0')),
    "version-types": (0, version(
        b'{"capabilities":{"migration":3,"twin_socket":[]}}\0')),
    "version-pages": (0, version(b'{"capabilities":{"pgsizes":6144}}\0')),
    "version-no-nul": (0, version(b"{}")),
    "version-long": (0, version(b" " * 20000 + b"\0")),
    "version-major": (0, version(QEMU, 1)),
    "version-short": (0, msg(VERSION, b"\0")),
    "version-fds": (0, msg(VERSION, b"\0\0\0\0", nfds=3)),
    "version-twice": (1, version(QEMU)),
    "version-missing": (0, msg(RESET)),
    "frame-short": (1, msg(RESET, size=15)),
    "frame-huge": (1, msg(RESET, size=0x7fffffff)),
    "frame-reply": (1, msg(11, flags=1)),
    "frame-type": (1, msg(RESET, flags=9)),
    "frame-cut": (1, record(b"\1\0\2\0\x30\0\0\0\0")),
    "frame-cut-fds": (1, msg(MAP, b"", size=48, nfds=7)),
    "frame-pieces": (1, b"".join(record(bytes([b])) for b in
                                 read(7, 0, 4)[3:])),
    "frame-many": (1, record(read(7, 0, 64)[3:] * 200)),
    "fds-unexpected": (1, msg(RESET, nfds=5) + msg(99, nfds=1)),
    "fds-two-records": (1, dma(0, 4096)[:3 + 20].replace(b"\x30\0", b"\x14\0",
                                                         1)
                        + record(b"\0" * 28, 1)),
    "unknown": (1, b"".join(msg(c, b"12345678") for c in
                            (0, IO_FDS, 11, 12, 14, 16, 17, 18, 19, 65535))),
    "memory": (ON, dma(0, 0x10000) + reg(24, 0x100) + reg(32, 0x200)
               + undma(0, 0x10000) + dma(0, 0x4000) + dma(0x4000, 0x4000)
               + reg(24, 0x3f80) + undma(0, 0, 2)),
    "memory-bad": (ON, bad_memory()),
    "memory-late": (ON, dma(0, 0x10000) + undma(0, 0x10000) * 3
                    + dma(0, 4096, nfds=0) + dma(0, 4096) + reg(24, 0)),
    "memory-truncated": (ON | 32, dma(0, 0x10000) + reg(24, 0x100)
                         + reg(24, 0x8000)),
    "irqs": (ON, interrupts()),
    "irqs-bad": (ON, bad_irqs()),
    "accesses": (ON, accesses()),
    "accesses-off": (1, accesses()),
    "posted": (ON, record(reg(8, 1, POSTED)[3:] * 500)),
    "posted-bad": (ON, write(77, 0, b"1", POSTED) + msg(99, flags=POSTED)),
    "deferred-left": (ON | 8, reg(0, 1) + reg(32, 0)),
    "multi": (ON, multi([(0, 8 * i, b"12345678") for i in range(8)])
              + multi([(7, 4, b"\6\0")], 0) + multi([], 0)),
    "multi-bad": (ON, multi([(0, 0, b"")]) + multi([(9, 0, b"1")], 0)
                  + multi([(0, 0, b"1")], 0, 2) + multi([], 0, 1 << 60)
                  + msg(MULTI, b"123")),
    "resets": (ON, msg(RESET) * 3 + write(7, 0x48, b"\0\x80")),
    "late": (ON | 128, dma(0, 0x10000) + read(0, 0, 24) + reg(0, 1)
             + read(0, 0, 8) * 3 + read(7, 0, 4) * 20
             + multi([(0, 0, b"12345678")] * 3) + read(7, 0, 4) * 20),
    "late-resets": (ON | 128, (msg(RESET) + read(7, 0, 4) * 9) * 3),
    "late-unmap": (ON | 128, dma(0, 0x10000) + write(0, 32, b"\0" * 8)
                   + undma(0, 0x10000) + read(7, 0, 4) * 20),
    "accesses-sparse": (ON | 64, accesses() + region_info(0, 64)
                        + region_info(0, 96) + region_info(0, 8)
                        + region_info(9) + msg(REGION, b"x")
                        + msg(INFO, b"x") + msg(INFO, b"\0" * 16)),
    "never-reads": (ON | 4, read(7, 0, 1 << 20) * 8),
    "half-closed": (ON | 16, read(7, 0, 4096)),
}


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, (how, data) in FILES.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(bytes([how]) + data)


if __name__ == "__main__":
    main()
