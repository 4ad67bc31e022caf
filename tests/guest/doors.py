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
has it (outer.py), one guest after the other. A new door is one class and one
row.
"""

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import threading
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
        self.place = None      # a Place, of all guests
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

    def line(self, listener):
        """What the guest's second serial line is connected to, to be closed:
        a stream."""
        connection, _ = listener.accept()
        with connection:
            return connection.makefile("rwb")

    def has_ended(self, status):
        """The line has said that what the guest runs on ended with STATUS;
        None: the line has ended."""

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

    def names_of_controllers(self):
        return [f"nvme{i}" for i in range(self.controllers)]

    def words_of_disks(self):
        """Give the disks of NVMe controllers, as strata wants them."""
        return [x for disk in self.disks for x in ("--disk", self.spec(disk))]

    def spec(self, disk):
        return disk if ",on=" in disk else f"{disk},on=nvme0"

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

    def socket(self, controller):
        return os.path.join(self.sockets, controller)

    def open(self):
        self.must_know("serve")
        argv = [self.options.strata, "serve"]
        for name in self.names_of_controllers():
            argv += ["--nvme-pci", ",".join(
                [f"id={name}", f"vfio-user={self.socket(name)}",
                 *self.options.controller])]
        argv += self.words_of_disks()
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


# In an outer guest: start the machine, note its id; when it ends, tell how, to
# the console and on the line, unless it has been killed to be started again.
MACHINE = """
if [ -e /inner/machine ]; then . /inner/machine; fi
start_machine() {
    rm -f /run/pid /run/saved
    {
        touch /run/again
        while [ -e /run/again ]; do
            rm /run/again
            if [ -e /run/saved ]; then
                restored <>/dev/line >&0 2>"$log" &
            else
                machine <>/dev/line >&0 2>"$log" &
            fi
            echo $! >/run/pid
            wait $!
            status=$?
        done
        tail -n 20 "$log" | sed 's/^/machine said /'
        if [ -n "$last" ]; then
            poweroff -f
        fi
        printf '\\nmachine: %s\\n' "$status" >/dev/line
    } </dev/null >/dev/console 2>&1 &
    while [ ! -s /run/pid ]; do sleep 0.05; done
}
"""


class Place:
    """Where machines run one after the other: an outer guest, made when the
    first one wants it, and anew after one that hung."""

    def __init__(self, folder, sockets, memory, disks):
        self.folder = folder
        self.sockets = sockets # a short path, for Unix sockets
        self.memory = memory   # MiB, of the largest machine
        # Images of this machine that DISKS are above: block devices there,
        # behind the one that put() has.
        found = re.findall(r"\bfile:(/[^,;]+)", " ".join(disks))
        self.files = dict(zip(found, (f"/dev/vd{x}" for x in "bcdefgh")))
        self.outer = self.stream = None
        self.made = 0

    def open(self, trees, put_programs, terminal):
        """Start the outer guest, if there is none. TERMINAL: the line is the
        one that we have here. Gives it."""
        if self.outer:
            return self.outer
        self.made += 1
        sockets = os.path.join(self.sockets, str(self.made))
        os.mkdir(sockets)
        self.outer = outer.Outer(self.folder, sockets)
        put_programs(self.outer.fs, trees)
        self.outer.fill(trees, MACHINE)
        if terminal:
            self.start(trees, "stdio,signal=off")
            return self.outer
        path = os.path.join(sockets, "line")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(outer.SECONDS)
            self.start(trees, f"socket,path={path},server=off")
            connection, _ = listener.accept()
        with connection:
            connection.settimeout(None)
            self.stream = connection.makefile("rwb")
        return self.outer

    def start(self, trees, line):
        console = os.path.join(self.folder, "console.log")
        drives = [word for path in self.files for word in
                  ("-drive", f"file={path},format=raw,if=virtio")]
        self.outer.start(trees, self.memory + 3072, 2, {
            "line": line, "console-log": f"file,path={console}"}, drives)

    def close(self):
        if self.outer:
            self.outer.close()
        self.outer = None


class Inner:
    """A machine in an outer guest; as a subprocess.Popen."""

    def __init__(self, place):
        self.place = place
        self.ended = threading.Event()
        self.returncode = None

    def end(self, status):
        if self.returncode is None:
            self.returncode = status
        self.ended.set()

    def poll(self):
        return self.returncode

    def wait(self, seconds=None):
        if not self.ended.wait(seconds):
            raise subprocess.TimeoutExpired("the machine", seconds)
        return self.returncode

    def kill(self):
        """With all that is around it."""
        self.place.close()
        self.end(-9)


class Machine(Door):
    """The machine is strata run, here or in an outer guest. Its first serial
    line is a file, the second one its standard input and output."""
    name = "machine"
    modules = ("nvme",)
    boots = True
    ending = "the machine ends with 0"

    def __init__(self, *args):
        super().__init__(*args)
        self.nested = not outer.has_kvm(self.options.strata)
        self.outer = None
        self.inner = None
        self.rules = None # the path of a file of rules
        if self.nested:
            self.api = "/run/api"
            self.consoles += ("outer.log",)

    @classmethod
    def fetch(cls, options):
        return {} if outer.has_kvm(options.strata) else outer.fetch()

    def open(self):
        self.must_know("run")

    def make_images(self):
        if not self.nested: # else they are made there
            super().make_images()

    def kill_machine(self, machine):
        if not self.nested:
            return super().kill_machine(machine)
        self.outer.run("touch /run/again; kill -KILL $(cat /run/pid)")
        return False

    def line(self, listener):
        if not self.nested:
            return super().line(listener)
        return contextlib.nullcontext(self.place.stream)

    def has_ended(self, status):
        if self.inner:
            self.inner.end(-1 if status is None else status)

    def names(self):
        return [f"/dev/nvme0n{i + 1}" for i in range(len(self.disks))]

    def spec(self, disk):
        if self.nested:
            for path, device in self.place.files.items():
                disk = disk.replace(path, device)
        return super().spec(disk)

    def argv(self, trees, kernel, initrd, append):
        argv = [self.strata(), "run", "--kernel", kernel, "--initrd", initrd,
                "--cmdline", append, "--memory", f"{self.options.memory}M",
                "--cpus", str(self.options.cpus), "--api", self.api]
        for name in self.names_of_controllers():
            argv += ["--nvme-pci", ",".join([f"id={name}",
                                             *self.options.controller])]
        if not self.options.shell: # else the first one is the terminal
            argv += ["--serial", "file=" + self.console(),
                     "--serial", "stdio"]
        if self.nested: # its emulated SVM lets a guest see too much
            argv += ["--cpu", "noxsave"]
        if not self.reboots:
            argv += ["--no-reboot"]
        if self.rules:
            argv += ["--faults", self.rules]
        return argv + self.words_of_disks() + self.more

    @staticmethod
    def restored(argv):
        """The words for a machine that was saved as /run/saved."""
        words, its = iter(argv), []
        for word in words:
            if word in ("--memory", "--cpus", "--cpu"):
                next(words)
            else:
                its.append(word)
        return its + ["--restore", "/run/saved"]

    def console(self):
        return "/dev/console-log" if self.nested else \
            os.path.join(self.folder, "console.log")

    def strata(self):
        return "/strata/bin/strata" if self.nested else self.options.strata

    def boot(self, trees, initrd, append, line, functions, env):
        """Start the machine. Gives the process that ends with it."""
        if self.nested:
            return self.boot_nested(trees, initrd, f"{append} {outer.QUIET}",
                                    functions, env)
        if self.faults:
            self.rules = write_rules(self.folder, self.faults)
        argv = self.argv(trees, trees["kernel"][0], initrd, append)
        if self.options.shell:
            self.server = subprocess.Popen(argv)
            return self.server
        with socket.socket(socket.AF_UNIX) as s, open(self.log, "wb") as log:
            s.connect(line)
            self.server = subprocess.Popen(argv, stdin=s, stdout=s, stderr=log,
                                           cwd=self.folder)
        return self.server

    def boot_nested(self, trees, initrd, append, functions, env):
        self.outer = self.place.open(trees, self.programs, self.options.shell)
        self.outer.put("/inner/kernel", trees["kernel"][0])
        self.outer.put("/inner/initrd", initrd)
        if self.faults:
            self.rules = "/inner/faults.json"
            self.outer.put(self.rules, self.faults.encode())
        # The functions are a file of their own, for they may not be right.
        self.outer.put("/inner/functions", functions.encode())
        known = {**env, "strata": self.strata(), "api": self.api,
                 "work": outer.WORK, "log": outer.LOG,
                 "last": "yes" if self.options.shell else ""}
        argv = self.argv(trees, "/inner/kernel", "/inner/initrd", append)
        self.outer.put("/inner/machine", (
            "".join(f"{k}={shlex.quote(v)}\n" for k, v in known.items()) +
            "machine() { exec " + shlex.join(argv) + "; }\n"
            "restored() { exec " + shlex.join(self.restored(argv)) +
            "; }\n").encode())
        self.inner = Inner(self.place)
        status, said = self.outer.run(
            f"rm -rf {outer.WORK}/*; " + "".join(
                f"truncate -s {size} {name}; " for name, size in self.images) +
            "start_machine")
        if status:
            raise RuntimeError("no machine in the outer guest: " +
                               said.decode("utf-8", "replace"))
        return self.outer.process if self.options.shell else self.inner

    def programs(self, fs, trees):
        """Put what argv() needs into the outer guest."""
        fs.host_program("strata", self.options.strata)

    def host(self, functions, command, env):
        if not self.nested:
            return super().host(functions, command, env)
        return self.outer.run(f"pid=$(cat /run/pid); . /inner/functions; "
                              f"{command}", SECONDS)

    def close(self):
        """Gives what is wrong with how it ended, or None."""
        status = (self.inner or self.server).poll()
        return f"it ended with status {status}" if status else None

    def said(self):
        if not self.nested:
            return super().said()
        return self.place.outer and self.outer.word("machine said ") or ""

    def kill(self):
        super().kill()
        if self.inner and self.inner.poll() is None:
            self.inner.kill()


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
        argv = outer.QEMU if self.nested else packages.qemu(trees["qemu"])
        argv = argv + ["-M", "q35,usb=off", "-accel", "kvm",
                       "-cpu", outer.CPU if self.nested else "host",
                       "-m", str(self.options.memory),
                       "-smp", str(self.options.cpus), "-kernel", kernel,
                       "-initrd", initrd, "-append", append]
        argv += ["-serial", "mon:stdio"] if self.options.shell else \
            ["-serial", "file:" + self.console(), "-serial", "stdio"]
        return argv + qemu_disks(self.disks, "")

    def programs(self, fs, trees):
        outer.put_qemu(fs, trees["qemu"])


DOORS = {d.name: d for d in (Door, VfioUser, Nbd, QemuNvme, Machine, QemuKvm)}
