# SPDX-License-Identifier: MIT
"""How disks reach a guest: what is started before QEMU, which options QEMU
gets, and what the guest calls its disks.

    none        strata runs inside the guest; no disk comes from outside
    vfio-user   strata serve, and QEMU's vfio-user client: a PCI NVMe controller
    nbd         strata nbd, and QEMU's NBD client behind a virtio-blk of its own
    qemu-nvme   no strata: QEMU's own NVMe controller, on files of the sizes
                that the script's disks have; another judge of the scripts
    machine     strata run: the machine is ours, too
    qemu-kvm    as qemu-nvme, but QEMU is where `machine` has strata run

The last two need KVM: on a machine without it they run in an outer guest that
has it (outer.py). A new door is one class and one row.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import time

import outer
import packages
from packages import Unavailable

SECONDS = 60 # a server that is not ready, or has not ended, by then hangs
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_of(spec):
    """The bytes of a disk that says its own size, as mem:64M, or of 64M."""
    m = re.search(r"(?:mem:|create=|^)(\d+)([KMGT]?)", spec)
    if not m:
        raise Unavailable(f"cannot imitate {spec}: it names no size")
    return int(m.group(1)) * UNITS[m.group(2)]


def sector_of(spec):
    m = re.search(r"sector=(\d+)", spec)
    return int(m.group(1)) if m else 512


class Door:
    """None: nothing is outside. Also the base of the others."""
    name = "none"
    modules = ()      # the drivers of its disks
    boots = False     # it has boot(), and QEMU is not wanted
    consoles = ("console.log",)
    ending = ""       # what close() judges

    def __init__(self, options, disks, folder, sockets):
        self.options = options
        self.disks = disks     # SPECs
        self.more = []         # words more for strata
        self.controllers = 1   # nvme0, nvme1, ...
        self.faults = ""       # rules from the start, for controllers
        self.images = []       # (name, size) of files that are there before
        self.reboots = False   # the guest may
        self.folder = folder   # logs and images
        self.sockets = sockets # a short path, for Unix sockets
        self.server = None
        self.api = os.path.join(sockets, "api")
        self.log = os.path.join(folder, "strata.log")

    def open(self):
        """Start what is outside."""

    def make_images(self):
        """Make the files that are there before, where strata runs."""
        for name, size in self.images:
            with open(os.path.join(self.folder, name), "wb") as f:
                f.truncate(size)

    def kill_machine(self, machine):
        """Kill what the guest runs on. True: it has to be started again."""
        machine.kill()
        return True

    @classmethod
    def fetch(cls, options):
        """Give the trees that it needs, fetched if need be."""
        # pylint: disable=unused-argument
        return {"qemu": packages.tree(packages.NEWER, ["qemu-system-x86"])}

    def must_know(self, verb):
        if subprocess.run([self.options.strata, verb, "--help"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode != 0:
            raise Unavailable(f"this strata does not know {verb}")

    def qemu(self):
        """Give QEMU's options."""
        return []

    def host(self, functions, command, env):
        """Run COMMAND, which may call FUNCTIONS, where strata runs, in a bash
        of its own. Gives its status and what it said."""
        try:
            p = subprocess.run(
                ["bash", "-uc", functions + "\n" + command],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env=dict(os.environ, **env),
                cwd=self.folder, timeout=SECONDS, check=False)
            return p.returncode % 256, p.stdout
        except subprocess.TimeoutExpired as e:
            return 124, (e.stdout or b"") + b"\ntimed out"

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
    ending = "SIGTERM ends strata with 0"

    def names_of_controllers(self):
        return [f"nvme{i}" for i in range(self.controllers)]

    def socket(self, controller):
        return os.path.join(self.sockets, controller)

    def open(self):
        self.must_know("serve")
        argv = [self.options.strata, "serve"]
        for name in self.names_of_controllers():
            argv += ["--nvme-pci", ",".join(
                [f"id={name}", f"vfio-user={self.socket(name)}",
                 *self.options.controller])]
        for spec in self.disks:
            argv += ["--disk", spec if ",on=" in spec else f"{spec},on=nvme0"]
        if self.faults:
            argv += ["--faults", write_rules(self.folder, self.faults)]
        self.serve(argv + ["--api", self.api, *self.more],
                   self.socket(self.names_of_controllers()[-1]))

    def qemu(self):
        argv = []
        for name in self.names_of_controllers():
            argv += ["-device", json.dumps({
                "driver": "vfio-user-pci", "id": name,
                **json.loads(self.options.device),
                "socket": {"type": "unix", "path": self.socket(name)}})]
        return argv

    def names(self):
        return [f"/dev/nvme0n{i + 1}" for i in range(len(self.disks))]


def write_rules(folder, rules):
    path = os.path.join(folder, "faults.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(rules)
    return path


class Nbd(Door):
    name = "nbd"
    modules = ("virtio_pci", "virtio_blk")
    ending = "SIGTERM ends strata with 0"

    def open(self):
        socket = os.path.join(self.sockets, "nbd")
        argv = [self.options.strata, "nbd", "--unix", socket,
                "--api", self.api, *self.more]
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


def image(i):
    return f"disk{i}.img"


def of_disks(disks):
    return [(image(i), size_of(spec)) for i, spec in enumerate(disks)]


def qemu_disks(disks, folder):
    """QEMU's own controller, with the images of FOLDER."""
    argv = ["-device", "nvme,id=nvme0,serial=reference"]
    for i, spec in enumerate(disks):
        argv += ["-blockdev", json.dumps({
            "driver": "raw", "node-name": f"disk{i}", "discard": "unmap",
            "file": {"driver": "file", "discard": "unmap",
                     "filename": os.path.join(folder, image(i))}}),
                 "-device", f"nvme-ns,drive=disk{i},nsid={i + 1},"
                            f"logical_block_size={sector_of(spec)},"
                            f"physical_block_size={sector_of(spec)}"]
    return argv


class QemuNvme(VfioUser):
    name = "qemu-nvme"
    ending = ""

    def open(self):
        pass

    def make_images(self):
        self.images += of_disks(self.disks)
        super().make_images()

    def qemu(self):
        return qemu_disks(self.disks, self.folder)


# In an outer guest: start the machine, note its id; when it ends, tell how, and
# switch off, unless it has been killed to be started again.
MACHINE = """
start_machine() {
    {
        touch /run/again
        while [ -e /run/again ]; do
            rm /run/again
            machine <>/dev/line >&0 2>"$log" &
            echo $! >/run/pid
            wait $!
            status=$?
        done
        tail -n 20 "$log" | sed 's/^/machine said /'
        echo "machine ended with status $status"
        poweroff -f
    } </dev/null >/dev/console 2>&1 &
    while [ ! -s /run/pid ]; do sleep 0.05; done
}
"""


class Machine(Door):
    """The machine is strata run, here or in an outer guest. Its first serial
    line is a file, the second one its standard input and output."""
    name = "machine"
    modules = ("nvme",)
    boots = True
    ending = "the machine ends with 0"

    def __init__(self, *args):
        super().__init__(*args)
        self.outer = None
        if not outer.has_kvm():
            self.outer = outer.Outer(self.folder, self.sockets)
            self.api = "/run/api"
            self.consoles += ("outer.log",)

    @classmethod
    def fetch(cls, options):
        return {} if outer.has_kvm() else outer.fetch()

    def open(self):
        self.must_know("run")

    def make_images(self):
        if not self.outer: # else they are made there
            super().make_images()

    def kill_machine(self, machine):
        if not self.outer:
            return super().kill_machine(machine)
        self.outer.run("touch /run/again; kill -KILL $(cat /run/pid)")
        return False

    def names(self):
        return [f"/dev/nvme0n{i + 1}" for i in range(len(self.disks))]

    def files(self):
        """Give the images of this machine that disks are above. In an outer
        guest each is a block device."""
        found = re.findall(r"\bfile:(/[^,;]+)", " ".join(self.disks))
        return dict(zip(found, (f"/dev/vd{x}" for x in "abcdefgh")))

    def spec(self, disk):
        if self.outer:
            for path, device in self.files().items():
                disk = disk.replace(path, device)
        return disk

    def argv(self, trees, kernel, initrd, append):
        words = ",".join(["id=nvme0", *self.options.controller])
        argv = [self.strata(), "run", "--kernel", kernel, "--initrd", initrd,
                "--cmdline", append, "--memory", f"{self.options.memory}M",
                "--cpus", str(self.options.cpus), "--nvme-pci", words,
                "--api", self.api]
        if not self.options.shell: # else the first one is the terminal
            argv += ["--serial", "file=" + self.console(),
                     "--serial", "stdio"]
        if self.outer: # its emulated SVM lets a guest see too much
            argv += ["--cpu", "noxsave"]
        if not self.reboots:
            argv += ["--no-reboot"]
        if self.faults:
            argv += ["--faults", self.rules()]
        for spec in map(self.spec, self.disks):
            argv += ["--disk", spec if ",on=" in spec else f"{spec},on=nvme0"]
        return argv + self.more

    def rules(self):
        """The file of rules, for where strata runs."""
        if self.outer:
            self.outer.fs.text("inner/faults.json", self.faults)
            return "/inner/faults.json"
        return write_rules(self.folder, self.faults)

    def console(self):
        return "/dev/console-log" if self.outer else \
            os.path.join(self.folder, "console.log")

    def strata(self):
        return "/strata/bin/strata" if self.outer else self.options.strata

    def boot(self, trees, initrd, append, line, functions, env):
        """Start the machine. Gives the process that ends with it."""
        if self.outer:
            return self.nested(trees, initrd, f"{append} {outer.QUIET}", line,
                               functions, env)
        argv = self.argv(trees, trees["kernel"][0], initrd, append)
        if self.options.shell:
            self.server = subprocess.Popen(argv)
            return self.server
        with socket.socket(socket.AF_UNIX) as s, open(self.log, "wb") as log:
            s.connect(line)
            self.server = subprocess.Popen(argv, stdin=s, stdout=s, stderr=log,
                                           cwd=self.folder)
        return self.server

    def nested(self, trees, initrd, append, line, functions, env):
        fs = self.outer.fs
        fs.file("inner/kernel", trees["kernel"][0])
        fs.file("inner/initrd", initrd)
        self.programs(fs, trees)
        # The functions are a file of their own, for they may not be right.
        known = {**env, "strata": self.strata(), "api": self.api,
                 "work": outer.WORK, "log": outer.LOG}
        fs.text("inner/functions", functions)
        argv = self.argv(trees, "/inner/kernel", "/inner/initrd", append)
        self.outer.fill(trees, "".join(
            f"{k}={shlex.quote(v)}\n" for k, v in known.items()) +
            "machine() { exec " + shlex.join(argv) + "; }\n" + MACHINE)
        ports = {"line": "stdio,signal=off"} if self.options.shell else {
            "line": f"socket,path={line},server=off",
            "console-log": "file,path=" +
                           os.path.join(self.folder, "console.log")}
        drives = [word for path in self.files() for word in
                  ("-drive", f"file={path},format=raw,if=virtio")]
        process = self.outer.start(trees, self.options.memory + 3072, 2, ports,
                                   drives)
        status, said = self.outer.run("".join(
            f"truncate -s {size} {name}; " for name, size in self.images) +
            "start_machine")
        if status:
            raise RuntimeError("no machine in the outer guest: " +
                               said.decode("utf-8", "replace"))
        return process

    def programs(self, fs, trees):
        """Put what argv() needs into the outer guest."""
        fs.host_program("strata", self.options.strata)

    def host(self, functions, command, env):
        if not self.outer:
            return super().host(functions, command, env)
        return self.outer.run(f"pid=$(cat /run/pid); . /inner/functions; "
                              f"{command}", SECONDS)

    def close(self):
        """Gives what is wrong with how it ended, or None."""
        if not self.outer:
            status = self.server.poll()
            return f"it ended with status {status}" if status else None
        status = self.outer.word("machine ended with status ")
        return None if status == "0" else f"it ended with status {status}"

    def said(self):
        if not self.outer:
            return super().said()
        return self.outer.word("machine said ") or ""

    def kill(self):
        super().kill()
        if self.outer:
            self.outer.close()


class QemuKvm(Machine):
    name = "qemu-kvm"

    def open(self):
        pass

    def make_images(self):
        self.images += of_disks(self.disks)
        super().make_images()

    @classmethod
    def fetch(cls, options):
        return {**super().fetch(options), **Door.fetch(options)}

    def argv(self, trees, kernel, initrd, append):
        """Files of the disks' sizes are where it is started."""
        argv = outer.QEMU if self.outer else packages.qemu(trees["qemu"])
        argv = argv + ["-M", "q35,usb=off", "-accel", "kvm",
                       "-cpu", outer.CPU if self.outer else "host",
                       "-m", str(self.options.memory),
                       "-smp", str(self.options.cpus), "-kernel", kernel,
                       "-initrd", initrd, "-append", append]
        argv += ["-serial", "mon:stdio"] if self.options.shell else \
            ["-serial", "file:" + self.console(), "-serial", "stdio"]
        return argv + qemu_disks(self.disks, "")

    def programs(self, fs, trees):
        outer.put_qemu(fs, trees["qemu"])


DOORS = {d.name: d for d in (Door, VfioUser, Nbd, QemuNvme, Machine, QemuKvm)}
