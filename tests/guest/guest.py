# SPDX-License-Identifier: MIT
"""Guests, one after the other, each from its initramfs to its verdict.

    the first serial line   the console: a log, and where a kernel complains
    the second one          a Unix socket: lines from and to the script

         guest                    harness
         ok: SENTENCE     ---->   a test has passed
         FAILED: SENTENCE ---->   ... has failed; skip: likewise
             WORDS        ---->   shown
         host: NAME ARGS  ---->   runs a function of the host's part
                          <----   says: WORDS, as often as it likes
                          <----   done: STATUS
         file: NAME       ---->   a file, in base64, ends with a line "."
         kill             ---->   kills the machine, and boots anew at the same
                                  door
         end              ---->   the script has ended
         machine: STATUS  ---->   what it ran on has ended; said by the outer
                                  guest, where there is one, whose line goes on
"""

import base64
import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import doors
import outer
import packages
from initramfs import Initramfs

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ("ext4",) # besides the door's and the script's

# A kernel's line on the console begins with its time.
COMPLAINT = re.compile(
    r"^\[ *\d+\.\d+\].*(BUG:|WARNING:|Oops|INFO: task|general protection|"
    r"Kernel panic|Unable to handle|UBSAN|KASAN|refcount_t)")

# On a machine with much to do an emulated timer can look broken, hence
# no_timer_check.
APPEND = ("console=ttyS0 loglevel=5 panic=-1 oops=panic nosoftlockup "
          "rcupdate.rcu_cpu_stall_suppress=1 random.trust_cpu=1 "
          "no_timer_check nvme_core.multipath=N")


class Counts:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def take(self, line):
        """Count and print one line of the guest."""
        if line.startswith("ok: "):
            self.passed += 1
        elif line.startswith("FAILED: "):
            self.failed += 1
        elif line.startswith("skip: "):
            self.skipped += 1
        print(line, flush=True)


def fetch(options, script):
    """Give the trees with all that the script needs, fetched if need be."""
    trees = {"busybox": packages.tree("bookworm", ["busybox-static"]),
             "dash": packages.tree("bookworm", ["dash"]),
             "kernel": packages.kernel(options.kernel)}
    trees.update(doors.DOORS[options.door].fetch(options))
    if script.words("tools"):
        trees["tools"] = packages.tree("bookworm", script.words("tools"))
    return trees


def build(options, script, door, trees, path):
    """Write the guest's initramfs to PATH."""
    fs = Initramfs()
    fs.file("busybox", packages.executable(trees["busybox"], "busybox"), 0o755)
    fs.package(trees["dash"], "dash")
    fs.link("usr/bin/sh", "dash")
    fs.file("init", os.path.join(HERE, "init"), 0o755)
    for name in ("lib.sh", "session"):
        fs.file("guest/" + name, os.path.join(HERE, name))
    fs.text("guest/script", script.guest)
    names = door.names()
    values = {"disk": names[0] if names else "", "disks": " ".join(names),
              "door": options.door, "rounds": str(options.rounds),
              "cpus": str(options.cpus), "memory": str(options.memory)}
    values.update(x.split("=", 1) for x in options.variable)
    fs.text("guest/env", "".join(f"{k}={shlex.quote(v)}\n"
                                 for k, v in values.items()))
    if options.shell:
        fs.text("guest/shell", "")
    fs.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    fs.text("etc/group", "root:x:0:\n")
    fs.text("etc/mtab", "")
    for name in script.words("tools"):
        fs.package(trees["tools"], name)
    if options.door == "none":
        fs.host_program("strata", options.strata)
    for name in script.words("helpers"):
        fs.host_program(name, os.path.join(options.helpers, name))
    near = os.path.dirname(script.path) if script.path else HERE
    for name in [os.path.join(near, x) for x in script.words("files")] + \
            options.file:
        fs.file("guest/" + os.path.basename(name), name)
    _, root, version = trees["kernel"]
    wanted = {}
    for line in script.lines("module-options"): # NAME OPTION...
        name, _, rest = line.partition(" ")
        wanted[name.replace("-", "_")] = rest
    order = fs.modules(root, version, [*MODULES, *door.modules,
                                      *script.words("modules")])
    fs.text("guest/modules", "".join(
        x + " " + wanted.get(os.path.basename(x).split(".")[0]
                             .replace("-", "_"), "") + "\n" for x in order))
    fs.write(path)


def qemu_argv(options, script, door, trees, initrd, line):
    argv = packages.qemu(trees["qemu"])
    argv += ["-M", "q35,memory-backend=mem0,usb=off",
             "-m", str(options.memory), "-smp", str(options.cpus),
             "-object", f"memory-backend-memfd,id=mem0,"
                        f"size={options.memory}M,share=on",
             "-kernel", trees["kernel"][0], "-initrd", initrd]
    argv += ["-accel", "kvm", "-cpu", "host"] \
        if outer.has_kvm(options.strata) else \
        ["-accel", "tcg", "-cpu", "max,la57=off"]
    if script.lines("reboots"):
        argv += ["-action", "reboot=reset"]
    if options.shell:
        argv += ["-serial", "mon:stdio", "-serial", "null"]
    else:
        console = os.path.join(door.folder, "console.log")
        argv += ["-chardev", f"file,id=console,path={console},append=on",
                 "-serial", "chardev:console",
                 "-chardev", f"socket,id=line,path={line},server=off",
                 "-serial", "chardev:line",
                 "-qmp", f"unix:{os.path.join(door.sockets, 'qmp')},server,"
                         "nowait"]
    return argv + ["-append", f"{APPEND} {options.append}", *door.qemu()]


def start(options, script, door, trees, initrd, line, env):
    """Start what the guest runs on. Gives the process."""
    if door.boots:
        return door.boot(trees, initrd, f"{APPEND} {options.append}", line,
                         script.host, env)
    argv = qemu_argv(options, script, door, trees, initrd, line)
    if options.shell:
        return subprocess.Popen(argv)
    with open(os.path.join(door.folder, "qemu.log"), "ab") as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=out)


class Conversation(threading.Thread):
    """Reads the guest's lines until the line ends, and answers them."""

    def __init__(self, listener, counts, door, host_part, env):
        super().__init__(daemon=True)
        self.listener, self.counts, self.door = listener, counts, door
        self.host_part, self.env = host_part, env
        self.machine = None # what "kill" ends
        self.ended = self.killed = False

    def run(self):
        status = None
        with self.door.line(self.listener) as line:
            while status is None and (raw := line.readline()):
                text = raw.decode("utf-8", "replace").rstrip("\r\n")
                if text == "end":
                    self.ended = True
                elif text.startswith("machine: "):
                    status = int(text[9:])
                elif text == "kill":
                    self.killed = self.door.kill_machine(self.machine)
                elif text.startswith("host: "):
                    self.answer(line, text[6:])
                elif text.startswith("file: "):
                    self.receive(line, text[6:])
                elif text:
                    self.counts.take(text)
        self.door.has_ended(status)

    def answer(self, line, command):
        """Run a function of the host's part."""
        status, said = self.door.host(self.host_part, command, self.env)
        for text in said.decode("utf-8", "replace").splitlines():
            line.write(b"says: " + text.encode() + b"\n")
        line.write(b"done: %d\n" % status)
        line.flush()

    def receive(self, line, name):
        data = b""
        while (raw := line.readline()) and raw.strip() != b".":
            data += raw.strip()
        path = os.path.join(self.door.folder, os.path.basename(name))
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))


def tail(folder, name, lines, start=0):
    """The last lines of a file, of what is behind START."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8",
                  errors="replace") as f:
            f.seek(start)
            return f.read().splitlines()[-lines:]
    except OSError:
        return []


def disks_of(options, script):
    return options.disk or script.lines("disk")


def lengths(door):
    """How much its consoles have said so far: of other guests."""
    return {name: os.path.getsize(os.path.join(door.folder, name))
            if os.path.exists(os.path.join(door.folder, name)) else 0
            for name in door.consoles}


def complaints(door, before, allowed):
    """The kernels' lines that nobody wants to see, each once."""
    return list(dict.fromkeys(
        x for name in door.consoles
        for x in tail(door.folder, name, 100000, before[name])
        if COMPLAINT.match(x) and not any(re.search(a, x) for a in allowed)))


def judge(runs, folder):
    """Boot, listen, judge: RUNS are scripts, each with its options. Gives the
    exit status."""
    counts = Counts()
    sockets = tempfile.mkdtemp(prefix="st-")
    place = doors.Place(folder, sockets, max(o.memory for o, _ in runs),
                        [x for o, s in runs for x in disks_of(o, s)])
    try:
        for options, script in runs:
            if len(runs) > 1:
                print(f"--- {script.name}", flush=True)
            try:
                judge_one(options, script, place, counts)
                if options.shell:
                    return 0
            except packages.Unavailable as e:
                if len(runs) == 1:
                    print(f"skip: {e}")
                    return 77
                counts.take(f"skip: {e}")
    finally:
        place.close()
        shutil.rmtree(sockets, ignore_errors=True)
    print(f"counts: {counts.passed} passed, {counts.failed} failed, "
          f"{counts.skipped} skipped")
    return 1 if counts.failed else 0


def judge_one(options, script, place, counts):
    """Boot, listen, judge one script."""
    allowed = script.words("doors") or ["none"]
    if options.door not in allowed and not options.shell:
        raise packages.Unavailable(
            f"{script.name} is not for the door {options.door}, but for "
            f"{', '.join(allowed)}")
    folder = place.folder
    disks = disks_of(options, script)
    sockets = tempfile.mkdtemp(dir=place.sockets)
    door = doors.DOORS[options.door](options, disks, folder, sockets)
    door.place = place
    door.more = script.words("serve") + options.serve.split()
    door.controllers = int(script.one("controllers", "1"))
    door.faults = "".join(script.lines("faults"))
    door.images = [(name, doors.size_of(size)) for name, size in
                   (x.split() for x in script.lines("image"))]
    door.reboots = bool(script.lines("reboots"))
    machine = None
    try:
        trees = fetch(options, script)
        initrd = os.path.join(folder, "initrd.cpio")
        build(options, script, door, trees, initrd)
        door.make_images()
        door.open()
        if not place.outer: # nobody writes to these, which are of others
            for name in ("console.log", "outer.log", "qemu.log"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))
        before = lengths(door)
        line = os.path.join(sockets, "line")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(line)
            listener.listen(1)
            env = dict(strata=options.strata, api=door.api, work=folder,
                       qmp=os.path.join(sockets, "qmp"), log=door.log,
                       here=HERE, helpers=options.helpers)
            again = True
            while again:
                machine = start(options, script, door, trees, initrd, line,
                                env)
                if options.shell:
                    machine.wait()
                    return
                talk = Conversation(listener, counts, door, script.host, env)
                talk.machine = machine
                env["pid"] = str(door.server.pid if door.server else "")
                talk.start()
                again = wait(options, counts, machine, talk, door)
            complain(counts, door, before, script.lines("allow"))
        wrong = door.close()
        if door.ending:
            counts.take(f"FAILED: {wrong}: {door.said()}" if wrong else
                        f"ok: {door.ending}")
    except RuntimeError as e:
        counts.take(f"FAILED: {e}")
        place.close() # what was around it may be to blame
    finally:
        if machine and machine.poll() is None:
            machine.kill()
            machine.wait()
        door.kill()


def wait(options, counts, machine, talk, door):
    """Until the guest has switched itself off, or the deadline. True if its
    script wants another one."""
    started = time.monotonic()
    hung = False
    try:
        machine.wait(options.deadline)
    except subprocess.TimeoutExpired:
        hung = True
        machine.kill()
        machine.wait()
    talk.join(10)
    took = time.monotonic() - started
    if talk.killed and not hung:
        return True
    if talk.ended and not hung and machine.returncode == 0:
        counts.take(f"ok: the guest ends ({took:.0f} s)")
    else:
        why = f"has not ended after {options.deadline} s" if hung else \
            f"has gone, with status {machine.returncode}"
        counts.take(f"FAILED: the guest {why}; the end of its console:")
        for name, lines in (("console.log", 25), ("outer.log", 15),
                            ("qemu.log", 5)):
            for text in tail(door.folder, name, lines):
                print("    " + text)
    return False


def complain(counts, door, before, allowed):
    bad = complaints(door, before, allowed)
    counts.take("FAILED: the kernel complains" if bad else
                "ok: the kernel does not complain")
    for text in bad[:10]:
        print("    " + text)
