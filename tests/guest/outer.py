# SPDX-License-Identifier: MIT
"""A machine with KVM, on one that has none: QEMU emulates an AMD CPU with SVM,
a stock kernel with kvm-amd runs on it, and its init does what it is told.

    this machine                     the outer guest
      QEMU, -cpu EPYC,+svm,+npt        /init, the agent
        port "agent"   RUN       ---->   runs it with bash
                       says: ... <----
                       done: STATUS <--
        port NAME      ...       <--->   /dev/NAME, for what commands start
        a disk         a file    ---->   /dev/vda, from which put() copies it
        serial                   <----   the console: a log

A command is one line of bash; the functions it may use are in /outer/functions.
Virtio ports carry a block an exit, where a UART would carry a byte.
"""

import contextlib
import functools
import os
import socket
import subprocess

import packages
from initramfs import Initramfs

HERE = os.path.dirname(os.path.abspath(__file__))
FIRMWARE = {"seabios": ("bios-256k.bin", "bios-microvm.bin"),
            "qemu": ("qboot.rom", "linuxboot_dma.bin", "pvh.bin",
                     "kvmvapic.bin")}
MODULES = ("kvm-amd", "virtio_pci", "virtio_console", "virtio_blk")
# The kernel takes the emulated CPU for a real one of bad habits.
QUIET = "mitigations=off"
APPEND = "console=ttyS0 loglevel=5 panic=-1 oops=panic nosoftlockup " \
         f"rcupdate.rcu_cpu_stall_suppress=1 random.trust_cpu=1 {QUIET}"
CPU = "host,-xsave,-avx,-fma,-f16c,-avx2" # what an emulated SVM cannot nest
WORK = "/tmp/work" # where commands run
LOG = WORK + "/strata.log"
QEMU = ["/strata/bin/qemu-system-x86_64", "-L", "/firmware", *packages.PLAIN]
DISK = 4 << 30 # bytes; a file that is put there is no larger
SECONDS = 300 # an outer guest that has not answered by then hangs


@functools.lru_cache
def has_kvm(strata):
    """Can /dev/kvm run a stock kernel? STRATA, a program, tries it: a software
    KVM, on some machines, runs parts of one only."""
    try:
        return subprocess.run([strata, "run", "--check-kvm"],
                              stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL,
                              check=False).returncode == 0
    except OSError:
        return False


def fetch():
    """Give the trees an outer guest is made of."""
    return {"outer-busybox": packages.tree("bookworm", ["busybox-static"]),
            "outer-shell": packages.tree("bookworm", ["bash", "jq"]),
            "outer-kernel": packages.kernel("cloud"),
            "outer-qemu": packages.tree(packages.NEWER, ["qemu-system-x86"])}


def put_qemu(fs, tree):
    """Put a QEMU into an outer guest, and the firmware of its machines."""
    fs.tree_program("qemu-system-x86_64", tree)
    for folder, names in FIRMWARE.items():
        for name in names:
            fs.file("firmware/" + name,
                    os.path.join(tree, "usr", "share", folder, name))


class Outer:
    """An outer guest: fill FS, then start it, then tell it what to do."""

    def __init__(self, folder, sockets):
        self.folder = folder   # for its console and its initramfs
        self.sockets = sockets # a short path, for Unix sockets
        self.fs = Initramfs()
        self.disk = os.path.join(folder, "outer.img")
        self.process = self.agent = None
        self.listener = socket.socket(socket.AF_UNIX)

    def fill(self, trees, functions=""):
        """Put what every outer guest has, and what its commands may call."""
        fs = self.fs
        fs.file("busybox",
                packages.executable(trees["outer-busybox"], "busybox"), 0o755)
        fs.link("usr/bin/sh", "/busybox")
        for name in ("bash", "jq"):
            fs.package(trees["outer-shell"], name)
        fs.file("init", os.path.join(HERE, "outer-init"), 0o755)
        fs.text("outer/functions", functions)
        fs.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        _, root, version = trees["outer-kernel"]
        fs.text("outer/modules", "".join(
            x + "\n" for x in fs.modules(root, version, MODULES)))

    def start(self, trees, memory, cpus, ports=None, more=()):
        """Boot it, with MEMORY in MiB. PORTS: what each leads to, a chardev of
        QEMU. Gives the process of QEMU."""
        initrd = os.path.join(self.folder, "outer.cpio")
        self.fs.write(initrd)
        with open(self.disk, "wb") as f:
            f.truncate(DISK)
        agent = os.path.join(self.sockets, "agent")
        self.listener.bind(agent)
        self.listener.listen(1)
        self.listener.settimeout(SECONDS)
        argv = packages.qemu(trees["outer-qemu"])
        argv += ["-M", "q35,usb=off", "-accel", "tcg",
                 "-cpu", "EPYC,+svm,+npt", "-m", str(memory),
                 "-smp", str(cpus), "-kernel", trees["outer-kernel"][0],
                 "-initrd", initrd, "-append", APPEND,
                 "-serial", "file:" + os.path.join(self.folder, "outer.log"),
                 "-drive", f"file={self.disk},format=raw,if=none,id=disk,"
                           "readonly=on,file.locking=off",
                 "-device", "virtio-blk-pci,drive=disk",
                 "-device", "virtio-serial-pci", *more]
        # The agent's is the last one that appears.
        ports = {**(ports or {}), "agent": f"socket,path={agent},server=off"}
        for name, chardev in ports.items():
            argv += ["-chardev", f"{chardev},id={name}", "-device",
                     f"virtserialport,chardev={name},name={name}"]
        interactive = any(x.startswith("stdio") for x in ports.values())
        with open(os.path.join(self.folder, "qemu.log"), "wb") as log:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                argv, stdin=None if interactive else subprocess.DEVNULL,
                stdout=None if interactive else log, stderr=log)
        return self.process

    def run(self, command, seconds=SECONDS):
        """Run one line of bash there. Gives its status and what it said, as
        bytes; the status is 124 if there was no answer in time, and that was
        the last command."""
        said = b""
        try:
            if not self.agent:
                connection, _ = self.listener.accept()
                self.agent = connection, connection.makefile("rwb")
            connection, stream = self.agent
            connection.settimeout(seconds)
            stream.write(command.replace("\n", " ").encode() + b"\n")
            stream.flush()
            while raw := stream.readline():
                word, _, rest = raw.partition(b" ")
                if word == b"says:":
                    said += rest
                elif word == b"done:":
                    return int(rest), said
        except OSError as e: # a timeout is one, too
            said += f"{e}\n".encode()
        return 124, said + b"no answer from the outer guest"

    def put(self, path, data):
        """Put DATA, bytes or the name of a file, to PATH there, while it
        runs."""
        if isinstance(data, str):
            with open(data, "rb") as f:
                data = f.read()
        with open(self.disk, "r+b") as f:
            f.write(data)
        status, said = self.run(
            f"mkdir -p {os.path.dirname(path)}; "
            "blockdev --flushbufs /dev/vda; "
            f"head -c {len(data)} /dev/vda >{path}")
        if status:
            raise RuntimeError(f"no {path} in the outer guest: " +
                               said.decode("utf-8", "replace"))

    def word(self, before):
        """What its console said last after the words BEFORE, or None."""
        with open(os.path.join(self.folder, "outer.log"), encoding="utf-8",
                  errors="replace") as f:
            found = [x.partition(before)[2] for x in f.read().splitlines()
                     if x.startswith(before)]
        return found[-1] if found else None

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.agent:
            with contextlib.suppress(OSError): # closing writes what is left
                self.agent[1].close()
            self.agent[0].close()
        self.listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.disk)
