#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One round of the case `machine`: each virtual machine lives twice, in the
order A B C C B A, and what its lives cost is printed as table.py reads it.

usage: bench/machine.py ROUND STRATA READS RIVAL...

Where KVM has no hardware behind it, the lives are in outer guests. One boots
all rivals on a CPU that counts its instructions for a clock (-icount), so that
seconds repeat. There the emulated SVM hangs in one life of some twenty, and
more often the more interrupts a guest has, whoever the monitor is: such a life
is told and repeated in a new outer guest, and reads are in one whose time is
real.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests", "guest"))
# pylint: disable=wrong-import-position
import outer
import packages
from initramfs import Initramfs

MEMORY = 256 # MiB of the guest
DISK = 16    # MiB
FEW = 100    # reads
SECONDS = 240 # a life that takes longer hangs
HANGS = 5 # that are borne with
COUNTERS = ("exits", "io_exits", "interrupts")
APPEND = "console=ttyS0 quiet panic=-1 " + outer.QUIET
INIT = """#!/busybox sh
/busybox mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
/busybox stty raw -echo
echo "user space"
while read -r verb depth count; do
    case $verb in
    read)
        until [ -b /dev/nvme0n1 ]; do /busybox usleep 10000; done
        /strata/bin/reads /dev/nvme0n1 4096 "$depth" "$count"
        ;;
    off) /busybox poweroff -f ;;
    esac
done
"""


def inner(trees, reads, path):
    """Make the initrd of all rivals' guests."""
    fs = Initramfs()
    fs.file("busybox",
            packages.executable(trees["outer-busybox"], "busybox"), 0o755)
    fs.link("usr/bin/sh", "/busybox")
    fs.text("init", INIT, 0o755)
    fs.host_program("reads", reads)
    fs.write(path)


def machines(strata, qemu, kernel, initrd, nested):
    """Give {rival: {purpose: its argv}}, for where KERNEL and INITRD are. A
    microvm is itself without PCI, but then has no NVMe controller."""
    boot = ["-kernel", kernel, "-initrd", initrd, "-append", APPEND]
    ours = [strata, "run", "--kernel", kernel, "--initrd", initrd,
            "--cmdline", APPEND, "--memory", f"{MEMORY}M", "--no-reboot",
            "--nvme-pci", "id=nvme0", "--disk", "file:disk,on=nvme0"]
    ours += ["--cpu", "noxsave"] if nested else []
    theirs = [*qemu, "-accel", "kvm", "-cpu", outer.CPU if nested else "host",
              "-m", str(MEMORY), "-object",
              f"memory-backend-memfd,id=ram,size={MEMORY}M,share=on",
              *boot, "-serial", "stdio",
              "-drive", "file=disk,format=raw,if=none,id=disk,aio=io_uring"]
    microvm, q35 = (["-M", f"{x},memory-backend=ram"] for x in
                    ("microvm", "q35,usb=off"))
    nvme = ["-device", "nvme,drive=disk,serial=disk"]
    return {"strata": {"boots": ours, "reads": ours},
            "microvm": {"boots": [*theirs, *microvm, "-device",
                                  "virtio-blk-device,drive=disk"],
                        "reads": [*theirs, microvm[0],
                                  microvm[1] + ",pcie=on", *nvme]},
            "q35": {"boots": [*theirs, *q35, *nvme],
                    "reads": [*theirs, *q35, *nvme]}}


def functions(rivals, work, count):
    """What bash is to know: machine.sh, and how each rival is started."""
    with open(os.path.join(HERE, "machine.sh"), encoding="utf-8") as f:
        text = f.read()
    text += f"work={shlex.quote(work)}\nmemory={MEMORY}\n" \
            f"few={FEW}\ncount={count}\ndisk() {{\n" \
            f"    dd if=/dev/zero of=disk bs=1M count={DISK} 2>/dev/null\n}}\n"
    for rival, purposes in rivals.items():
        for purpose, argv in purposes.items():
            text += f"{rival}_{purpose}() {{ exec {shlex.join(argv)}; }}\n"
    return text


class Here:
    """KVM is here, and the CPU is real: its speed is worth telling."""
    count, real = 200000, True # reads

    def __init__(self, trees, strata, initrd, folder):
        rivals = machines(strata, packages.qemu(trees["outer-qemu"]),
                          trees["outer-kernel"][0], initrd, False)
        self.folder = folder
        self.text = functions(rivals, folder, self.count)

    def run(self, command):
        p = subprocess.run(["bash", "-uc", self.text + command],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, cwd=self.folder,
                           check=False)
        return p.returncode, p.stdout

    def close(self):
        pass


class Nested:
    """KVM is in an outer guest, of one CPU that counts, or of two."""
    count, real = 2000, False

    def __init__(self, trees, strata, initrd, counts):
        self.trees, self.strata, self.initrd = trees, strata, initrd
        self.counts, self.hangs = counts, 0
        self.outer = self.folder = None

    def open(self):
        self.folder = tempfile.mkdtemp(prefix="st-")
        self.outer = o = outer.Outer(self.folder, self.folder)
        o.fs.file("inner/kernel", self.trees["outer-kernel"][0])
        o.fs.file("inner/initrd", self.initrd)
        o.fs.host_program("strata", self.strata)
        outer.put_qemu(o.fs, self.trees["outer-qemu"])
        o.fill(self.trees, functions(
            machines("/strata/bin/strata", outer.QEMU, "/inner/kernel",
                     "/inner/initrd", True), outer.WORK, self.count))
        o.start(self.trees, 2048, 1 if self.counts else 2, more=[
            "-icount", "shift=0,sleep=off"] if self.counts else ())
        o.run(":") # it is up

    def run(self, command):
        while True:
            if not self.outer:
                self.open()
            status, said = self.outer.run(command, SECONDS)
            if status != 124 or not self.counts or self.hangs == HANGS:
                return status, said
            print(f"bench/machine.py: again, as it hangs: {command}",
                  file=sys.stderr)
            self.hangs += 1
            self.close()

    def close(self):
        if self.outer:
            self.outer.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        self.outer = None


def values(text):
    """Give the numbers of one point."""
    return {k: float(v) for k, v in (x.split("=") for x in text.split())}


def rows(said, place):
    """Give what a life cost, as it SAID at PLACE: [(row, {name: value})]."""
    points = {}
    for line in said.splitlines():
        name, _, rest = line.partition(" ")
        points[name] = values(rest)

    def less(later, earlier, names=COUNTERS):
        # A machine that is not there yet has no counters; nor has one where
        # nobody may read them.
        return {k: points[later][k] - points[earlier].get(k, 0)
                for k in names if k in points[later]}

    if "many-1" not in points:
        return [("boot", less("user-space", "exec", ("seconds", *COUNTERS))),
                ("memory", points["held"])]
    found = []
    for depth in ("1", "32"):
        few = less(f"few-{depth}", f"begin-{depth}")
        many = less(f"many-{depth}", f"few-{depth}")
        # These are so many reads more; what a process costs is in both.
        costs = {k: (many[k] - few[k]) / place.count for k in many}
        if place.real:
            costs["iops"] = points[f"many-{depth}"]["iops"]
        found.append((f"read-4k-d{depth}", costs))
    return found


def race(place, rivals, purposes):
    """Give {rival: [(row, {name: value})]} of what they cost at PLACE."""
    cost = {}
    try:
        for rival in [*rivals, *reversed(rivals)]:
            for purpose in purposes:
                status, said = place.run(f"disk; measure {rival} {purpose}")
                said = said.decode("utf-8", "replace")
                if status:
                    raise RuntimeError(f"{rival} {purpose}: {said.strip()}")
                cost.setdefault(rival, []).extend(rows(said, place))
    finally:
        place.close()
    return cost


def main(number, strata, reads, *rivals):
    trees = outer.fetch()
    strata = os.path.abspath(strata)
    with tempfile.TemporaryDirectory(prefix="st-") as folder:
        initrd = os.path.join(folder, "inner.cpio")
        inner(trees, reads, initrd)
        if outer.has_kvm(strata):
            races = [(Here(trees, strata, initrd, folder),
                      ("boots", "reads"))]
        else:
            races = [(Nested(trees, strata, initrd, True), ("boots",)),
                     (Nested(trees, strata, initrd, False), ("reads",))]
        for place, purposes in races:
            cost = race(place, rivals, purposes)
            for rival in rivals:
                for row, costs in cost[rival]:
                    print(number, row, rival, " ".join(
                        f"{k}={v:.4f}" for k, v in costs.items()), sep="\t")


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    for word in (signal.SIGTERM, signal.SIGHUP): # end what was started
        signal.signal(word, lambda n, _: sys.exit(128 + n))
    try:
        main(*sys.argv[1:])
    except RuntimeError as e:
        sys.exit(f"bench/machine.py: {e}")
    except packages.Unavailable as e:
        print(f"skip: {e}", file=sys.stderr)
        sys.exit(77)
