# SPDX-License-Identifier: MIT
"""How disks reach a guest: what is started before QEMU, which options QEMU
gets, and what the guest calls its disks.

    none        strata runs inside the guest; no disk comes from outside
    vfio-user   strata serve, and QEMU's vfio-user client: a PCI NVMe controller
    nbd         strata nbd, and QEMU's NBD client behind a virtio-blk of its own
    qemu-nvme   no strata: QEMU's own NVMe controller, on files of the sizes
                that the script's disks have; another judge of the scripts

A new door is one class and one row.
"""

import json
import os
import re
import subprocess
import time

from packages import Unavailable

SECONDS = 60 # a server that is not ready, or has not ended, by then hangs
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_of(spec):
    """The bytes of a disk that says its own size: mem:64M."""
    m = re.search(r"(?:mem:|create=)(\d+)([KMGT]?)", spec)
    if not m:
        raise Unavailable(f"cannot imitate {spec}: it names no size")
    return int(m.group(1)) * UNITS[m.group(2)]


def sector_of(spec):
    m = re.search(r"sector=(\d+)", spec)
    return int(m.group(1)) if m else 512


class Door:
    """None: nothing is outside. Also the base of the others."""
    name = "none"
    modules = () # the drivers of its disks

    def __init__(self, options, disks, folder, sockets):
        self.options = options
        self.disks = disks     # SPECs
        self.folder = folder   # logs and images
        self.sockets = sockets # a short path, for Unix sockets
        self.server = None
        self.api = os.path.join(sockets, "api")
        self.log = os.path.join(folder, "strata.log")

    def open(self):
        """Start what is outside."""

    def qemu(self):
        """Give QEMU's options."""
        return []

    def names(self):
        """Give what the guest calls the disks."""
        return []

    def serve(self, argv, ready):
        """Start strata, and wait until READY is a file, or it has ended."""
        with open(self.log, "wb") as log:
            # pylint: disable=consider-using-with
            self.server = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.folder)
        end = time.monotonic() + SECONDS
        while not os.path.exists(ready):
            if self.server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("strata does not serve: " + self.said())
            time.sleep(0.02)

    def said(self):
        """The last words of strata."""
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return "; ".join(f.read().splitlines()[-5:])
        except OSError:
            return ""

    def close(self):
        """End strata. Gives what is wrong with how it ended, or None."""
        if not self.server:
            return None
        early = self.server.poll()
        if early is not None:
            return f"strata ended by itself with status {early}"
        self.server.terminate()
        try:
            status = self.server.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
            return f"strata does not end within {SECONDS} s of SIGTERM"
        return f"strata ended with status {status}" if status else None

    def kill(self):
        if self.server and self.server.poll() is None:
            self.server.kill()
            self.server.wait()


class VfioUser(Door):
    name = "vfio-user"
    modules = ("nvme",)

    def open(self):
        socket = os.path.join(self.sockets, "nvme0")
        if subprocess.run([self.options.strata, "serve", "--help"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            raise Unavailable("this strata cannot serve")
        words = ",".join(["id=nvme0", f"vfio-user={socket}",
                          *self.options.controller])
        argv = [self.options.strata, "serve", "--nvme-pci", words]
        for spec in self.disks:
            argv += ["--disk", f"{spec},on=nvme0"]
        self.serve(argv + ["--api", self.api], socket)

    def qemu(self):
        return ["-device", json.dumps({
            "driver": "vfio-user-pci", "id": "nvme0",
            **json.loads(self.options.device),
            "socket": {"type": "unix",
                       "path": os.path.join(self.sockets, "nvme0")}})]

    def names(self):
        return [f"/dev/nvme0n{i + 1}" for i in range(len(self.disks))]


class Nbd(Door):
    name = "nbd"
    modules = ("virtio_pci", "virtio_blk")

    def open(self):
        socket = os.path.join(self.sockets, "nbd")
        argv = [self.options.strata, "nbd", "--unix", socket,
                "--api", self.api]
        for i, spec in enumerate(self.disks):
            argv += ["--export", f"disk{i}={spec}"]
        self.serve(argv, socket)

    def qemu(self):
        argv = []
        for i in range(len(self.disks)):
            argv += ["-blockdev", json.dumps({
                "driver": "nbd", "node-name": f"disk{i}",
                "export": f"disk{i}", "discard": "unmap",
                "server": {"type": "unix",
                           "path": os.path.join(self.sockets, "nbd")}}),
                     "-device", f"virtio-blk-pci,drive=disk{i},"
                                f"serial=disk{i}"]
        return argv

    def names(self):
        return [f"/dev/vd{chr(ord('a') + i)}" for i in range(len(self.disks))]


class QemuNvme(VfioUser):
    name = "qemu-nvme"

    def image(self, i):
        return os.path.join(self.folder, f"disk{i}.img")

    def open(self):
        for i, spec in enumerate(self.disks):
            with open(self.image(i), "wb") as f:
                f.truncate(size_of(spec))

    def qemu(self):
        argv = ["-device", "nvme,id=nvme0,serial=reference"]
        for i, spec in enumerate(self.disks):
            argv += ["-blockdev", json.dumps({
                "driver": "raw", "node-name": f"disk{i}", "discard": "unmap",
                "file": {"driver": "file", "filename": self.image(i),
                         "discard": "unmap"}}),
                     "-device", f"nvme-ns,drive=disk{i},nsid={i + 1},"
                                f"logical_block_size={sector_of(spec)},"
                                f"physical_block_size={sector_of(spec)}"]
        return argv


DOORS = {d.name: d for d in (Door, VfioUser, Nbd, QemuNvme)}
