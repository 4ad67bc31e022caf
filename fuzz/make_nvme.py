#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the seed corpus of fuzz_nvme into fuzz/nvme: one guest a file.

8 bytes say what there is, then come records (see src/device/nvme/fuzz_nvme.c
and fuzz_nvme_records.h). Names say what a file is for; what the fuzzer found
lies beside. Running it again gives the same.
"""
import os
import struct

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nvme")

RAW, DOORBELL, QUEUES, SHADOW, REGISTERS = range(16, 21)
POKE, LIST, MAP, MASTER, RESET, ENABLE, HOST = range(22, 29)
PASS, STEPS = 30, 31
(READ, WRITE, _, _, FLUSH, COMPARE, ZEROES, DSM, VERIFY, COPY, REGISTER, NONE,
 REPORT, ACQUIRE, RELEASE, PAIR) = range(16)
(IDENTIFY, LOG, SET, GET, ABORT, EVENT, FORMAT, _, CREATE_CQ, CREATE_SQ,
 DELETE_CQ, DELETE_SQ, BUFFER) = range(13)
ADD, REMOVE, RESIZE, HANG, FAIL, SAVE, FAULTS, RELEASE_FAULTS = range(8)


def guest(loops=2, intx=0, mapped=0, poll=0, fua=1, later=0, on=1, share=0,
          seed=1, admin=32, pairs=4, sq=32, cq=32, shadow=0):
    return bytes([loops - 1 | intx << 1 | mapped << 2 | poll << 3 | fua << 4 |
                  later << 5 | on << 6 | share << 7,
                  seed, admin - 2, pairs, sq - 2, cq - 2, shadow, 0])


def record(op, a=0, b=0, c=0, d=0, steps=3):
    return struct.pack("<BBBBI", op | steps << 5, a, b, c, d & 0xffffffff)


def io(qid, op, data=0, blocks=1, lba=0, count=1, nsid=1, fuse=0, d=0,
       steps=3):
    return record(0, (qid - 1) | (nsid - 1) << 2 | fuse << 6, op | data << 4,
                  blocks - 1, d | lba << 4 | (count - 1) << 26, steps)


def admin(op, nsid=0, b=0, c=0, d=0, steps=3):
    return record(1, op | nsid << 4, b, c, d, steps)


def abort(qid, n=0, steps=0):
    return admin(ABORT, b=1, c=qid, d=n, steps=steps)


def hang(on, cancellable=1):
    return b"".join(record(HOST, HANG, disk | on << 1 | cancellable << 2)
                    for disk in (0, 1))


def fault(rule):
    return record(HOST, FAULTS, rule)


def ms(n):
    return record(PASS, d=n * 1000000)


def write(offset, value, size=4):
    return record(REGISTERS, {1: 0, 2: 1, 4: 2, 8: 3}[size] | 4,
                  offset >> 8, offset & 255, value)


def read(offset, size=4):
    return record(REGISTERS, {1: 0, 2: 1, 4: 2, 8: 3}[size], offset >> 8,
                  offset & 255)


def sgl(page, at, kind, offset, length):
    """Descriptor AT of list PAGE: 0 data in the data, 2 and 3 a list."""
    piece = 1 if kind > 1 else 2
    return record(LIST, page, 8 | kind << 4, at,
                  piece << 29 | length << 16 | offset)


def all_kinds(**kw):
    return guest(**kw) + b"".join(
        io(1 + i % 4, i % 16, blocks=1 + i % 8, lba=3 * i, count=20)
        for i in range(32)) + ms(5) + b"".join(
            io(1 + i % 4, READ, data=i, blocks=21, count=4) for i in range(16))


CC = 6 << 16 | 4 << 20

FILES = {
    "kinds": all_kinds(),
    "kinds-shadow": all_kinds(shadow=1),
    "kinds-shadow-poll": all_kinds(shadow=1, poll=1),
    "kinds-mapped": all_kinds(mapped=1),
    "kinds-pin": all_kinds(intx=1),
    "kinds-late": all_kinds(later=1),
    "kinds-one-queue": all_kinds(share=1),
    "kinds-no-fua": all_kinds(loops=1, fua=0),
    "kinds-small": all_kinds(sq=4, cq=3, admin=2),
    "admin": guest() + b"".join(
        admin(op, nsid, c=c, d=0x3ff00 if op == LOG else c * 8)
        for op in (IDENTIFY, LOG, SET, GET) for c in range(24)
        for nsid in (0, 1)),
    "log-parts": guest() + io(1, NONE, count=20) + b"".join(
        admin(LOG, b=8, c=c, d=d << 2 | 0xf00) for c in range(6)
        for d in range(8)),
    "events": guest() + admin(EVENT) * 6 + record(HOST, REMOVE, c=2)
              + admin(LOG, c=4, d=0xff00) + record(HOST, ADD, 1, 2)
              + write(0x1000 + 8 * 9, 1) + admin(LOG, c=1, d=0xf00)
              + admin(SET, c=4, d=0) + admin(LOG, c=2, d=0x7f00)
              + admin(ABORT, c=0, d=0) * 2,
    "events-small": guest(admin=2) + admin(EVENT) * 3
                    + record(HOST, RESIZE, d=9) + ms(3)
                    + admin(LOG, c=4, d=0xff00) + admin(EVENT),
    "format": guest() + io(1, WRITE, count=9) + hang(1) + io(2, READ, count=4)
              + admin(FORMAT, 1) + io(1, READ) + admin(FORMAT, 1)
              + admin(FORMAT, 2) + hang(0) + ms(9) + io(1, READ)
              + admin(FORMAT, 1, c=1) + admin(FORMAT, 1, c=4),
    "format-reset": guest() + hang(1, 0) + io(1, WRITE, count=9)
                    + admin(FORMAT, 1) + record(RESET) + ms(2000)
                    + hang(0),
    "abort-hung": guest() + hang(1) + io(1, READ, count=5, steps=7)
                  + abort(1) + abort(1, 3) + abort(1) + ms(10),
    "abort-stubborn": guest() + hang(1, 0) + io(1, READ, count=5, steps=7)
                      + abort(1, steps=7) + abort(1) + abort(1, 1)
                      + abort(1, 2) + abort(1, 3) + ms(600) + abort(2)
                      + admin(ABORT, c=1, d=77) + admin(ABORT, c=7),
    "abort-waiting": guest(cq=3, sq=16) + io(1, READ, count=9, steps=7 & ~1)
                     + abort(1, 5, 6) + abort(1, 7, 6) + ms(1)
                     + record(STEPS, 50, steps=1),
    "abort-pair": guest(cq=4, sq=16) + io(1, READ, count=3, steps=6)
                  + io(1, PAIR, count=2, steps=6) + abort(1, 4, 6)
                  + abort(1, 5, 6) + record(STEPS, 50, steps=1) * 3,
    "abort-first": guest() + io(1, COMPARE, fuse=1) + abort(1)
                   + io(1, COMPARE, fuse=1) + io(1, WRITE)
                   + io(1, COMPARE, fuse=1) + io(1, WRITE, fuse=2),
    "abort-held": guest() + fault(0) + io(1, READ, count=9, steps=7)
                  + abort(1) + abort(1) + abort(1) + record(HOST, 7),
    "abort-event": guest() + admin(EVENT) * 2 + admin(ABORT, c=0, d=0)
                   + admin(ABORT, c=0, d=1),
    "pairs-small": guest(cq=3, sq=8) + io(1, COMPARE, fuse=1) + io(1, READ)
                   + io(2, PAIR, count=6) + ms(1),
    "faults": guest() + b"".join(fault(i) + io(1 + i % 4, WRITE, count=12)
                                 + admin(IDENTIFY, c=1) * 4 + ms(3)
                                 for i in range(12))
              + record(RESET) + record(ENABLE, 30),
    "fault-enable": guest() + fault(8) + record(RESET) + record(ENABLE, 30)
                    + record(HOST, 7) + ms(1) + read(0x1c),
    "shutdown": guest() + io(1, WRITE, count=4) + record(RESET, d=CC | 0x4001)
                + ms(2) + read(0x1c) + record(RESET, d=CC | 1)
                + record(RESET, d=CC | 0x8001) + ms(2),
    "shutdown-hung": guest() + hang(1, 0) + record(RESET, d=CC | 0x4001)
                     + ms(3) + record(RESET, d=CC) + ms(2000) + hang(0),
    "shutdown-fails": guest() + record(HOST, FAIL, 2, 6, 0xffff)
                      + record(RESET, d=CC | 0x4001) + ms(3),
    "shutdown-off": guest(on=0) + record(RESET, d=CC | 0x4000) + ms(1)
                    + record(RESET, d=CC | 0x4081) + ms(1) + record(RESET),
    "wrong-cc": guest(on=0) + b"".join(
        record(RESET, d=d | 1) + ms(1) + read(0x1c) + record(RESET) + ms(1)
        for d in (CC | 0x70, CC | 0x800, CC | 0x80, 7 << 16, 5 << 20, 0)),
    "nowhere": guest(on=0) + write(0x24, 0x001f001f) + write(0x28, 0x40000000)
               + write(0x30, 0x40000000) + record(RESET, d=CC | 1) + ms(200)
               + read(0x1c),
    "registers": guest(intx=1) + b"".join(
        write(at, 0xffffffff, n) + read(at, n) for at in range(0, 0x70, 4)
        for n in (1, 2, 4, 8) if at % n == 0),
    "masks": guest(intx=1) + write(0xc, 1) + io(1, READ, count=4)
             + write(0x10, 0xffffffff) + io(1, READ) + write(8, 0, 8),
    "doorbells": guest() + b"".join(record(DOORBELL, i, d=d)
                                    for i in range(16) for d in (0, 5, 1 << 31))
                 + write(0x1008, 3, 8) + write(0x1ffc, 1) + write(0xfff0, 1),
    "doorbells-mapped": guest(mapped=1) + b"".join(
        record(DOORBELL, i, 1, d=d) + ms(1)
        for i in range(10) for d in (3, 99, 1 << 31)),
    "unmapped-rings": guest() + record(MAP, 0, 1) + io(1, READ, count=4)
                      + ms(20) + record(MAP, 0, 0) + ms(3)
                      + record(MAP, 0, 1) + io(1, READ) + ms(300),
    "unmapped-data": guest(later=1) + io(1, READ, count=20, blocks=8)
                     + record(MAP, 2, 1) + record(MAP, 3, 1)
                     + io(2, WRITE, count=20) + record(MAP, 2, 0) + ms(3),
    "no-master": guest() + io(1, READ, count=4) + record(MASTER, 0)
                 + io(1, READ, count=4) + ms(300) + record(MASTER, 1) + ms(3),
    "queues": guest() + b"".join(
        record(QUEUES, i, i % 2, 20 + i, 40) + io(1 + i % 4, READ, count=3)
        for i in range(24)),
    "queues-deleted": guest() + hang(1, 0) + io(1, READ, count=5, steps=7)
                      + record(QUEUES, 0) + ms(2000) + hang(0)
                      + record(QUEUES, 0, 1, 9, 9),
    "queues-wrong": guest() + b"".join(
        admin(op, c=c, d=d) for op in range(CREATE_CQ, BUFFER + 1)
        for c in (0, 1, 0x19, 0xff) for d in (0, 0x1f, 0x5f, 0xfffff)),
    "prps": guest() + b"".join(
        io(1, op, data=data, blocks=n, d=d << 6)
        for op in (READ, WRITE) for data in (4, 6, 7, 12, 13, 14)
        for n in (16, 128, 254) for d in (0, 1 << 4 | 1, 510 << 4)),
    "sgls": guest() + sgl(0, 0, 0, 0, 512) + sgl(0, 1, 2, 0x1000, 32)
            + sgl(1, 0, 0, 512, 256) + sgl(1, 1, 3, 0x2000, 16)
            + sgl(2, 0, 0, 7, 256) + io(1, READ, data=9, blocks=2, d=2 << 10)
            + io(1, WRITE, data=9, blocks=2, d=1 << 10)
            + io(1, WRITE, data=10, blocks=2, d=2 << 10)
            + sgl(3, 0, 2, 0x3000, 16)
            + io(1, WRITE, data=9, blocks=2, d=3 << 6 | 1 << 10)
            + sgl(4, 0, 1, 0, 512)
            + io(1, WRITE, data=10, blocks=1, d=4 << 6 | 1 << 10)
            + io(1, WRITE, data=8, blocks=1) + io(1, READ, data=11, d=4 << 10)
            + io(1, WRITE, data=10, blocks=254, d=8 << 6 | 255 << 10),
    "namespaces": guest() + b"".join(
        record(HOST, REMOVE, c=1 + i % 5, d=100000)
        + io(1 + i % 4, FLUSH, nsid=1 + i % 4) + record(HOST, ADD, i, i % 6)
        + record(HOST, RESIZE, i, d=i * 7) for i in range(16)),
    "saved": guest() + b"".join(
        io(1 + i % 4, WRITE, count=9, steps=i % 4)
        + record(HOST, SAVE, d=i * 100000, steps=i % 8) for i in range(12))
             + fault(0) + io(1, READ, count=9) + record(HOST, SAVE, d=1000000)
             + ms(5),
    "resets": guest() + b"".join(
        io(1, WRITE, count=9, steps=1) + record(RESET, kind, d=CC, steps=kind)
        + record(ENABLE, 10 + kind) + record(QUEUES, 0, 1, 9, 9)
        for kind in range(4)),
    "coalesced": guest() + admin(SET, c=8, d=0x30500, steps=7)
                 + io(1, READ, count=3) + ms(1) + admin(SET, c=9, d=0x10100) + io(1, READ, count=9),
    "write-through": guest(fua=0) + admin(SET, c=6) + b"".join(
        io(1, op, count=3, d=3 << 20) for op in range(10)),
    "entries": guest() + record(RAW, 1) + bytes(64) + record(RAW, 0)
               + bytes(range(64)) + record(RAW, 2) + b"\xff" * 64,
}


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, data in FILES.items():
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()
