# SPDX-License-Identifier: MIT
"""An initramfs: files for a guest, written as an uncompressed cpio archive
(newc, the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

Uncompressed boots fastest where the CPU is emulated. The guest's tree has /bin,
/sbin, /lib and /lib64 as links into /usr; what packages put there is put below
/usr. Of a package, documentation is left out, and of what it depends on only
the libraries come that its programs load: asked from its own ld.so.
"""

import glob
import os
import re
import stat

import packages

TOP_LINKS = ("bin", "sbin", "lib", "lib64")
LEFT_OUT = re.compile(
    r"usr/share/(doc|man|locale|lintian|bash-completion|zsh|info|initramfs"
    r"-tools|bug|metainfo)|usr/lib/python|lib/udev|usr/lib/udev|.*systemd/|"
    r".*\.py$")
LIST_LINE = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x", re.M)


class Initramfs:
    def __init__(self):
        self.entries = {} # path without "/" : (mode, bytes or source path)
        for name in TOP_LINKS:
            self.link(name, "usr/" + name)
        for name in ("dev", "proc", "sys", "run", "root", "mnt"):
            self.folder(name)
        self.folder("tmp", 0o1777)

    def folder(self, path, mode=0o755):
        path = self.clean(path)
        if path and path not in self.entries:
            self.parents(path)
            self.entries[path] = (stat.S_IFDIR | mode, b"")

    def parents(self, path):
        parent = os.path.dirname(path)
        if parent:
            self.folder(parent)

    @staticmethod
    def clean(path):
        path = os.path.normpath(path).lstrip("/")
        if path == ".":
            return ""
        top = path.split("/", 1)
        if top[0] in TOP_LINKS and len(top) > 1:
            return "usr/" + path
        return path

    def link(self, path, target):
        path = path if path in TOP_LINKS else self.clean(path)
        self.parents(path)
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def text(self, path, content, mode=0o644):
        path = self.clean(path)
        self.parents(path)
        self.entries[path] = (stat.S_IFREG | mode, content.encode())

    def file(self, path, source, mode=None):
        """Put the file SOURCE of this machine at PATH of the guest."""
        path = self.clean(path)
        self.parents(path)
        if mode is None:
            mode = os.stat(source).st_mode & 0o777
        self.entries[path] = (stat.S_IFREG | mode, source)

    def package(self, root, name):
        """Put what the package NAME of the tree ROOT holds, and the libraries
        that its programs load."""
        with open(os.path.join(root, ".files", name), encoding="utf-8") as f:
            members = [os.path.normpath(x) for x in f.read().splitlines()]
        for member in members:
            source = os.path.join(root, member)
            if LEFT_OUT.match(member) or not os.path.lexists(source):
                continue
            if os.path.islink(source):
                if member not in TOP_LINKS:
                    self.link(member, os.readlink(source))
            elif os.path.isfile(source):
                self.file(member, source)
                if is_elf(source):
                    self.libraries(root, source)

    def libraries(self, root, source):
        argv = packages.loader(root)
        self.file("usr/lib64/ld-linux-x86-64.so.2", argv[0], 0o755)
        try:
            listed = packages.run(argv[:1] + ["--list"] + argv[1:] + [source])
        except packages.Unavailable:
            return # linked statically
        # Loaded by name when a thread is cancelled.
        extra = glob.glob(os.path.join(root, "*", "*", "libgcc_s.so.1")) + \
            glob.glob(os.path.join(root, "*", "*", "*", "libgcc_s.so.1"))
        for name, path in LIST_LINE.findall(listed):
            if path != argv[0]:
                self.file("usr/lib/x86_64-linux-gnu/" +
                          os.path.basename(name or path),
                          os.path.realpath(path))
        for path in extra[:1]:
            self.file("usr/lib/x86_64-linux-gnu/libgcc_s.so.1", path)

    def host_program(self, name, source):
        """Put a program of this machine with its own libraries and ld.so, so
        that it does not matter which system built it."""
        self.program(name, source, packages.run(["ldd", source]))
        for path in glob.glob("/lib/*/libgcc_s.so.1")[:1]:
            self.file(f"strata/{name}/lib/libgcc_s.so.1", path)

    def tree_program(self, name, root):
        """Likewise a program of the tree ROOT, without the rest of its
        package."""
        source = packages.executable(root, name)
        argv = packages.loader(root)
        self.program(name, source, packages.run(
            argv[:1] + ["--list"] + argv[1:] + [source]))

    def program(self, name, source, listed):
        base = f"strata/{name}"
        self.file(f"{base}/{name}", source, 0o755)
        for lib, path in LIST_LINE.findall(listed):
            self.file(f"{base}/lib/{os.path.basename(lib or path)}",
                      os.path.realpath(path), 0o755)
        ld = f"/{base}/lib/ld-linux-x86-64.so.2"
        self.text(f"strata/bin/{name}", "#!/bin/sh\n"
                  f"exec {ld} --library-path /{base}/lib /{base}/{name} "
                  '"$@"\n', 0o755)

    def modules(self, root, version, names):
        """Put kernel modules; give the order in which they are loaded: a list
        of paths, each with its options."""
        order = []
        for name in names:
            listed = packages.run(
                packages.kmod_as("modprobe") +
                ["-d", root, "-S", version, "--show-depends", name])
            for path in re.findall(r"^insmod (\S+)", listed, re.M):
                inside = "/modules/" + os.path.basename(path)
                if inside not in order:
                    self.file(inside, path, 0o644)
                    order.append(inside)
        return order

    def write(self, path):
        with open(path, "wb") as out:
            number = 0
            for name, (mode, data) in self.entries.items():
                if isinstance(data, str):
                    with open(data, "rb") as f:
                        data = f.read()
                number += 1
                member(out, number, mode, name, data)
            member(out, 0, 0, "TRAILER!!!", b"")


def member(out, number, mode, name, data):
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % x for x in fields) + raw
    out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))


def is_elf(path):
    with open(path, "rb") as f:
        return f.read(4) == b"\x7fELF"
