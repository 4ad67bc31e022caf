#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the seed corpora of fuzz_fw_cfg, fuzz_machine_io and
fuzz_machine_saved: what drivers and firmware do, and files of saved machines. The forms are described in those files, in src/host/machine. Names
say what a file is for. Running it again gives the same."""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
LOG2 = {1: 0, 2: 1, 4: 2, 8: 3}
FORM = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


# ---- fw_cfg ----

def put(port, length, value):
    return bytes([0, port, LOG2[length]]) + struct.pack(FORM[length], value)


def get(port, length=1):
    return bytes([1, port, LOG2[length]])


def dma(control, length, address, page=0x10):
    return bytes([2, page]) + struct.pack(">IIQ", control, length, address)


def file(name):
    return bytes([3, len(name)]) + name


FW_CFG = {
    "signature": put(0, 2, 0) + get(1) * 5 + get(4, 4) + get(8, 4),
    "items": b"".join(put(0, 2, key) + get(1, 2)
                      for key in (1, 5, 15, 0x19, 0x1f, 0x20, 0x30, 0xffff)),
    "directory": put(0, 2, 0x19) + get(1, 8) * 20,
    "dma-read": dma(0x19 << 16 | 10, 4, 0x2000) + dma(2, 640, 0x3000),
    "dma-skip": dma(0x21 << 16 | 12, 100, 0) + dma(2, 65536, 0x3000),
    "dma-write": dma(16, 4, 0x2000),
    "dma-select": dma(0x22 << 16 | 8, 0, 0) + get(1),
    "dma-nowhere": dma(2, 4, 0x9fffe) + dma(2, 0xffffffff, 0) +
                   dma(2, 4, 0xffffffffffffffff) + dma(2, 0x2000000, 0),
    "dma-high": dma(0x20 << 16 | 10, 36, 1 << 32),
    "dma-itself": dma(0x20 << 16 | 10, 64, 0x1000),
    "address-nowhere": put(4, 4, 1) + put(8, 4, 0) + put(8, 4, 0xfcff0900),
    "address-long": put(4, 8, 0x0010000000000000),
    "odd": put(0, 1, 1) + put(0, 4, 1) + put(1, 2, 1) + put(11, 1, 0) +
           get(0, 8) + get(3, 8) + get(11, 1) + b"\xff" + get(1),
    "files": file(b"etc/x") + file(b"etc/x") + file(b"") + file(b"a" * 60) +
             put(0, 2, 0x25) + get(1) * 8,
    "many-files": b"".join(file(b"f%d" % i) for i in range(40)),
}


# ---- machine_io ----

def port(place, offset, length=1, value=None, memory=False):
    what = LOG2[length] | (0x80 if memory else 0)
    if value is None:
        return struct.pack("<BBH", what, place, offset)
    return struct.pack("<BBH", what | 0x40, place, offset) + \
        struct.pack(FORM[length], value)


def turn(what):
    return struct.pack("<BBH", 0, 0xff, what)


def serial(reg, value=None):
    return port(0, reg, 1, value)


def cmos(index, value=None):
    return port(1, 0, 1, index) + port(1, 1, 1, value)


def config(slot, reg, length=4, value=None):
    return port(3, 0, 4, 0x80000000 | slot << 11 | reg & 0xfc) + \
        port(4, reg & 3, length, value)


TYPE, ROOM, RAISE, LATER, RESET, SAVE, LINE = range(7)
LOOP = serial(2, 1) + serial(4, 0x1f) + \
    b"".join(serial(0, i) for i in range(20))

MACHINE_IO = {
    "serial-probe": serial(1, 15) + serial(1) + serial(4, 0x1a) + serial(6) +
                    serial(4, 0) + serial(2, 1) + serial(2) + serial(7, 3) +
                    serial(3, 0x83) + serial(0, 1) + serial(1, 0) + serial(0) +
                    serial(1) + serial(3, 3) + serial(3) + serial(7),
    "serial-send": serial(1, 2) + serial(2) + serial(0, 65) + serial(5) +
                   serial(2, 0xc1) + serial(0, 66) + serial(2),
    "serial-full": turn(ROOM) + b"".join(serial(0, i) for i in range(3)) +
                   serial(2, 1) + b"".join(serial(0, i) for i in range(20)) +
                   serial(5) + serial(2, 5) + serial(0, 1) + turn(ROOM),
    "serial-receive": serial(1, 1) + turn(TYPE) * 20 + serial(2) + serial(0) +
                      serial(2, 0x81) + serial(2) + serial(0) * 20 + serial(5),
    "serial-loop": LOOP + serial(1, 15) + serial(2) + serial(5) + serial(2) +
                   serial(0) * 17 + serial(2) + serial(6) + serial(2),
    "serial-queue": turn(TYPE) * 1100 + serial(0) * 600,
    "cmos-time": cmos(0) + cmos(4) + cmos(10) + cmos(12) + cmos(13) +
                 cmos(0x32) + cmos(12, 1),
    "cmos-set": cmos(11, 0x82) + cmos(0, 0x59) + cmos(9, 0x99) + cmos(10, 0xff)
                + cmos(11, 0) + cmos(4) + cmos(4, 0x92) + cmos(11, 4) + cmos(4),
    "cmos-memory": cmos(0x15) + cmos(0x7f, 1) + cmos(0x7f) + port(1, 0),
    "pm": port(2, 0, 4) + port(2, 2, 2, 0x721) + port(2, 4, 2, 0x3400) +
          port(2, 8, 4) + turn(LATER) * 3 + port(2, 0, 2) + port(2, 0, 2, 1) +
          port(2, 6, 2) + port(2, 4, 2),
    "reset": port(3, 1, 1, 2) + port(3, 1, 1) + port(3, 1, 1, 6) +
             port(6, 4, 1, 0xfe) + port(7, 0, 1, 1) + turn(RESET),
    "ports": port(6, 1) + port(6, 1, 1, 3) + port(7, 0) + port(0x80, 0x80, 1, 1)
             + port(0x80, 0x80) + port(0x80, 0x402, 1, 65) + port(0x80, 0x402) +
             port(0x80, 0x402, 8) + port(6, 0) + port(0x80, 0x2f8),
    "pvpanic": port(0x80, 0x505) + port(0x80, 0x505, 1, 1) +
               port(0x80, 0x505, 1, 2) + port(0x80, 0x505, 2, 0xff) +
               port(0x80, 0x504, 2, 0x100) + port(0x80, 0x505, 1, 0xfc),
    "config": config(0, 0) + config(3, 0) + config(3, 0x0e, 1) + config(4, 0) +
              config(3, 4, 2, 6) + config(3, 0x0d, 2) + port(3, 0, 4) +
              port(3, 0, 2) + port(3, 3, 1, 1) + port(3, 2, 8) +
              port(3, 0, 4, 0) + port(4, 0, 4) + port(4, 2, 4, 1),
    "bars": config(3, 0x10, 4, 0xffffffff) + config(3, 0x10) +
            config(3, 4, 2, 2) + config(3, 0x10, 4, 0xe0000000) +
            config(3, 0x10, 4, 0xf0001000) + config(3, 0x14, 4, 1) +
            config(3, 0x18, 4, 0xf0000000) + port(2, 0, 4, None, True) +
            config(3, 4, 2, 0) + port(2, 0, 8, None, True),
    "msix": config(3, 4, 2, 6) + port(2, 8192, 4, 0xfee00000, True) +
            port(2, 8204, 4, 0, True) + config(3, 0x7e, 2, 0x8000) +
            turn(RAISE) + turn(RAISE | 9 << 3) + port(2, 12288, 8, None, True),
    "line": turn(LINE | 8) + turn(LINE) + config(3, 4, 2, 0x400) +
            turn(LINE | 8) + turn(RESET) + config(3, 6, 2),
    "flr": config(3, 4, 2, 6) + config(3, 0x48, 2, 0x8000) + config(3, 4, 2),
    "ecam": port(0, 0, 4, None, True) + port(0, 4, 2, 6, True) +
            port(0, 2, 4, None, True) + port(0, 0, 8, None, True) +
            port(1, 0, 4, None, True) + port(1, 0x9000, 4, None, True) +
            port(0, 2, 4, 1, True) + port(1, 14, 2, None, True),
    "saved": turn(TYPE) * 20 + serial(0, 65) + turn(SAVE) + serial(0) * 20 +
             turn(ROOM) + serial(0, 66) * 3 + turn(SAVE) + serial(5) + cmos(9) +
             port(2, 8, 4) + port(3, 0, 4, 0x80000004) + turn(SAVE) +
             port(3, 0, 4),
    "fw_cfg": port(5, 0, 2, 0x19) + port(5, 1) * 8 + port(5, 8, 4, 0),
}


# ---- Saved machines: what src/host/machine's walk functions list ----

def section(name, body, version=1):
    return struct.pack("<32sIIQ", name.encode(), version, 0, len(body)) + \
        body + bytes(-len(body) % 8)


def saved(*sections, odd=0):
    body = b"".join(sections)
    head = struct.pack("<8sIIQQQIIII", b"StrataVM", 1, len(sections), len(body),
                       16 << 20, 65536, 0, 0, 0, 0)
    return bytes([odd]) + head + body


def queue(text, size):
    return text + bytes(size - len(text)) + struct.pack("<II", 0, len(text))


def serial_state(rx=b"", tx=b"", waits=b"", ier=3):
    return bytes([ier, 0xc1, 3, 8, 0xb0, 0x5a, 12, 0, 0, 1]) + queue(rx, 16) + \
        queue(tx, 16) + queue(waits, 1024) + b"\0"


def shape(cpus=1, functions=(), firmware=1):
    return struct.pack("<QIBBI", 16 << 20, cpus, 0, firmware, 2000000) + \
        struct.pack("<I", len(functions)) + \
        b"".join(struct.pack("<I128s32s", *f) for f in functions) + \
        struct.pack("<II", 1, 3) + struct.pack("<I", 1) + bytes(40)


def vcpu(xsave=4096, msrs=2):
    return bytes(144 + 312) + struct.pack("<I", xsave) + bytes(xsave) + \
        bytes(392 + 128 + 1024 + 64 + 4 + 16) + struct.pack("<I", msrs) + \
        bytes(12 * msrs)


PM = struct.pack("<HHHBIQ", 1, 1, 1, 2, 0x80000000, 5 * 10**9)
PCI = struct.pack("<I", 0x80000004) + bytes(256)
CMOS = struct.pack("<I128sqq", 5, b"\x12" * 128, 1000, 7)
BOARD = (section("serial 0", serial_state(b"ab", b"cd", b"efg")),
         section("pm", PM), section("pci", PCI), section("cmos", CMOS),
         section("misc", b"\1\2\3"),
         section("fw_cfg", struct.pack("<HQI", 0x19, 4, 0)))
CHIPS = section("chips", bytes(3 * 520 + 112))

MACHINE_SAVED = {
    "board": saved(*BOARD),
    "kvm": saved(section("machine", shape()), section("vcpu 0", vcpu()), CHIPS),
    "functions": saved(section("machine", shape(
        2, ((3, b"nvme0", b"nvme"), (4, b"nvme1", b"nvme")), 0))),
    "serial-full": saved(section("serial 0", serial_state(
        b"0123456789abcdef", b"fedcba9876543210", b"x" * 1024))),
    "serial-odd": saved(section("serial 0", serial_state(
        ier=0xff)[:-1] + b"\2")),
    "short": saved(section("pm", PM[:-1]), section("cmos", CMOS + b"\0")),
    "long-ago": saved(section("cmos", struct.pack(
        "<I128sqq", 200, b"", -2**63, 2**63 - 1))),
    "newer": saved(section("pm", PM, 2), section("cmos", CMOS, 0)),
    "vcpu-huge": saved(section("vcpu 0", vcpu()[:456] + b"\xff" * 8)),
    "vcpu-msrs": saved(section("vcpu 0", vcpu(msrs=0)[:-4] + b"\xff" * 4)),
    "no-names": saved(section("", b""), section("x" * 32, b"y")),
    "cut": saved(*BOARD)[:-8],
    "as-it-is": saved(*BOARD, odd=1),
    "nothing": saved(),
    "other-name": saved(section("machine", shape(
        1, ((3, b"nvme1", b"nvme"), (5, b"x", b"fake"))))),
    "many": saved(*(section("x%d" % i, b"") for i in range(257))),
    "huge": saved(section("x", b""))[:57] + struct.pack(
        "<32sIIQ", b"x", 1, 0, 2**60),
    "other-sizes": bytes([1]) + saved(section("pm", PM))[1:25] + bytes(32),
}


def main():
    for folder, seeds in (("fw_cfg", FW_CFG), ("machine_io", MACHINE_IO),
                          ("machine_saved", MACHINE_SAVED)):
        out = os.path.join(HERE, folder)
        os.makedirs(out, exist_ok=True)
        for name, data in seeds.items():
            with open(os.path.join(out, name), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
