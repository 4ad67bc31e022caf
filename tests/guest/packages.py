# SPDX-License-Identifier: MIT
"""Debian packages, unpacked into a cache and never installed.

    cache/
      apt/SUITE/             apt's lists and downloads, with a dpkg status of
                             its own that says: nothing is installed
      roots/NAMES-VERSIONS/  packages unpacked into one tree, read-only by habit
      wanted/SUITE-NAMES     a link to the newest such tree

So apt itself finds what a program needs, whatever the host is and whatever is
installed there, and a tree that a guest is using never changes: newer versions
make a new tree. One lock guards the filling; a tree appears whole, by rename.

What cannot be had (no network, no apt) is Unavailable, with one sentence.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_SECONDS = 24 * 3600 # apt's lists are read again after a day
LIB = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib")

# What `apt-get -s` says: Inst NAME (VERSION ORIGIN [ARCHITECTURE]) ...
INSTALLS = re.compile(r"^Inst (\S+) \((\S+) [^[)]*\[(\w+)\]\)", re.M)

# Lists may be older than their date allows: an archive's snapshot, a cache.
APT_CONF = """
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "{dir}/none";
Dir::Etc::parts "{dir}/none";
Dir::Etc::preferences "{dir}/none/preferences";
Dir::Etc::preferencesparts "{dir}/none";
Dir::State "{dir}";
Dir::State::lists "{dir}/lists";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}";
Dir::Cache::archives "{dir}/archives";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::http::Timeout "20";
Debug::NoLocking "true";
"""


class Unavailable(Exception):
    """What is missing, one sentence."""


def cache_dir():
    base = os.environ.get("STRATA_GUEST_CACHE")
    if not base:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(
            "~/.cache")
        base = os.path.join(home, "strata-guest")
    os.makedirs(base, exist_ok=True)
    return base


@contextlib.contextmanager
def locked():
    """Nobody else fills the cache meanwhile."""
    with open(os.path.join(cache_dir(), "lock"), "w", encoding="ascii") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def run(argv, **more):
    """Run a program; give its output, or raise Unavailable with its last
    words."""
    try:
        p = subprocess.run(argv, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                           text=True, check=False, **more)
    except OSError as e:
        raise Unavailable(f"no {argv[0]} here: {e.strerror}") from e
    if p.returncode != 0:
        words = [x for x in p.stderr.splitlines() if x.startswith("E:")]
        words = words or p.stderr.splitlines() or ["it says not why"]
        raise Unavailable(f"{argv[0]} {argv[1]} failed: {words[-1]}")
    return p.stdout


def mirror():
    """The archive that this system's own packages come from."""
    if os.environ.get("STRATA_MIRROR"):
        return os.environ["STRATA_MIRROR"]
    for uri in run(["apt-get", "indextargets", "--format", "$(REPO_URI)",
                    "Created-By: Packages", "Component: main"]).split():
        if "security" not in uri:
            return uri
    raise Unavailable("apt knows no archive here: set STRATA_MIRROR")


class Suite:
    """One Debian suite, as apt sees it from the cache."""

    def __init__(self, name):
        self.name = name
        self.dir = os.path.join(cache_dir(), "apt", name)
        self.env = dict(os.environ, LC_ALL="C",
                        APT_CONFIG=os.path.join(self.dir, "apt.conf"))

    def apt(self, tool, *args):
        return run([tool, *args], env=self.env, cwd=self.dir)

    def update(self):
        """Read the lists, unless that was done within the day."""
        stamp = os.path.join(self.dir, "updated")
        if os.path.exists(stamp) and \
                time.time() - os.path.getmtime(stamp) < LISTS_SECONDS:
            return
        if not os.path.exists(KEYRING):
            raise Unavailable(f"no {KEYRING}: please install "
                              "debian-archive-keyring")
        for d in ("lists/partial", "archives/partial", "none"):
            os.makedirs(os.path.join(self.dir, d), exist_ok=True)
        files = {"apt.conf": APT_CONF.format(dir=self.dir), "status": "",
                 "sources.list": f"deb [arch=amd64 signed-by={KEYRING}] "
                                 f"{mirror()} {self.name} main\n"}
        for name, text in files.items():
            with open(os.path.join(self.dir, name), "w",
                      encoding="ascii") as f:
                f.write(text)
        # apt-get update warns and succeeds when it could not read a list.
        self.apt("apt-get", "-q", "--error-on=any", "update")
        with open(stamp, "w", encoding="ascii"):
            pass

    def kernel_packages(self, flavour):
        """The packages behind linux-image-FLAVOUR that hold the kernel and its
        modules: one of that name, or (since forky) others that it wants."""
        meta = f"linux-image-{flavour}"
        found = re.findall(r"^Depends: (?:.*, )?(linux-image-[0-9]\S*)",
                           self.apt("apt-cache", "show", meta), re.M)
        if not found:
            raise Unavailable(f"{self.name} has no {meta}")
        image = found[0].rstrip(",")
        return [image] + re.findall(
            r"\blinux-(?:base|binary|modules)-[0-9][^ ,]*",
            self.apt("apt-cache", "show", image))

    def download(self, packages, with_dependencies):
        """Give the paths of the .deb files of PACKAGES."""
        archives = os.path.join(self.dir, "archives")
        if with_dependencies:
            what = self.apt("apt-get", "-qq", "-s", "install", *packages)
            self.apt("apt-get", "-qq", "-y", "-d", "install", *packages)
            return [os.path.join(archives, f"{n}_{v}_{a}.deb"
                                 .replace(":", "%3a"))
                    for n, v, a in INSTALLS.findall(what)]
        found = []
        for package in packages:
            what = self.apt("apt-get", "-qq", "--print-uris", "download",
                            package)
            name = re.search(r"^'[^']*' (\S+\.deb) ", what, re.M).group(1)
            path = os.path.join(archives, name)
            if not os.path.exists(path):
                run(["apt-get", "-qq", "download", package], env=self.env,
                    cwd=archives)
            found.append(path)
        return found


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tree(suite_name, packages, with_dependencies=True, finish=None):
    """Give the path of a tree with PACKAGES of the suite in it. FINISH(tree)
    is called once, before the tree can be seen."""
    packages = sorted(packages)
    wanted = os.path.join(cache_dir(), "wanted",
                          f"{suite_name}-{packages[0]}-" +
                          short(" ".join(packages)))
    if not os.environ.get("STRATA_GUEST_UPDATE") and os.path.isdir(wanted):
        return os.path.realpath(wanted)
    with locked():
        if not os.environ.get("STRATA_GUEST_UPDATE") and os.path.isdir(wanted):
            return os.path.realpath(wanted) # another one was faster
        suite = Suite(suite_name)
        suite.update()
        debs = suite.download(packages, with_dependencies)
        key = short("\n".join(sorted(os.path.basename(d) for d in debs)))
        root = os.path.join(cache_dir(), "roots",
                            f"{suite_name}-{packages[0]}-{key}")
        if not os.path.isdir(root):
            unpack(debs, root, finish)
        os.makedirs(os.path.dirname(wanted), exist_ok=True)
        link = wanted + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(os.path.relpath(root, os.path.dirname(wanted)), link)
        os.replace(link, wanted)
        return root


def unpack(debs, root, finish):
    os.makedirs(os.path.dirname(root), exist_ok=True)
    new = tempfile.mkdtemp(dir=os.path.dirname(root), prefix="new-")
    try:
        os.chmod(new, 0o755)
        for deb in debs:
            run(["dpkg-deb", "-x", deb, new])
            name = os.path.basename(deb).split("_")[0]
            lists = os.path.join(new, ".files")
            os.makedirs(lists, exist_ok=True)
            with open(os.path.join(lists, name), "w", encoding="utf-8") as f:
                f.write(run(["sh", "-c",
                             'dpkg-deb --fsys-tarfile "$0" | tar -t', deb]))
        if finish:
            finish(new)
        os.rename(new, root)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def loader(root):
    """The argv before a program of the tree: its own ld.so and libraries."""
    for name in ("usr/lib64", "lib64"):
        path = os.path.join(root, name, "ld-linux-x86-64.so.2")
        if os.path.exists(path):
            libs = [os.path.join(root, d) for d in LIB]
            libs += glob.glob(os.path.join(root, LIB[0], "*/"))
            # A link to an absolute path leads out of the tree.
            if os.path.islink(path) and os.path.isabs(os.readlink(path)):
                path = os.path.join(root, os.readlink(path).lstrip("/"))
            return [path, "--library-path", ":".join(libs)]
    raise Unavailable(f"{root} has no ld.so")


def executable(root, name):
    """The path of the tree's program NAME."""
    for d in ("usr/bin", "bin", "usr/sbin", "sbin"):
        path = os.path.join(root, d, name)
        if os.path.exists(path):
            return path
    raise Unavailable(f"{root} has no {name}")


def program(root, name):
    """The argv that runs it here, whatever libraries are here."""
    return loader(root) + [executable(root, name)]


def qemu(root):
    """The argv that runs QEMU of the tree without anything it was not told."""
    share = os.path.join(root, "usr", "share")
    return program(root, "qemu-system-x86_64") + [
        "-L", os.path.join(share, "seabios"), "-L", os.path.join(share, "qemu"),
        *PLAIN]


def kernel(which):
    """Give (vmlinuz, tree, version) of the kernel called WHICH."""
    suite_name, flavour = KERNELS[which]
    wanted = os.path.join(cache_dir(), "wanted", f"kernel-{which}")
    if os.path.isdir(wanted) and not os.environ.get("STRATA_GUEST_UPDATE"):
        root = os.path.realpath(wanted)
    else:
        with locked():
            suite = Suite(suite_name)
            suite.update()
            names = suite.kernel_packages(flavour)

        def finish(new):
            version = os.listdir(modules_dir(new))[0]
            if not os.path.exists(os.path.join(new, "lib")):
                os.symlink("usr/lib", os.path.join(new, "lib"))
            run(kmod_as("depmod") + ["-b", new, version])

        kmod_as("depmod") # before the lock is taken for the kernel
        root = tree(suite_name, sorted(set(names)), False, finish)
        link = f"{wanted}.{os.getpid()}"
        os.symlink(os.path.relpath(root, os.path.dirname(wanted)), link)
        os.replace(link, wanted)
    version = os.listdir(modules_dir(root))[0]
    for image in (os.path.join(root, "boot", f"vmlinuz-{version}"),
                  os.path.join(modules_dir(root), version, "vmlinuz")):
        if os.path.exists(image):
            return image, root, version
    raise Unavailable(f"{root} has no kernel")


def modules_dir(root):
    for d in ("usr/lib/modules", "lib/modules"):
        path = os.path.join(root, d)
        if os.path.isdir(path):
            return path
    raise Unavailable(f"{root} has no kernel modules")


def kmod_as(applet):
    """The argv of kmod under one of its names: modprobe, depmod."""
    argv = program(tree("bookworm", ["kmod"]), "kmod")
    return [argv[0], "--argv0", applet, *argv[1:]]


PLAIN = ("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot")
KERNELS = {
    "cloud": ("bookworm", "cloud-amd64"),
    "full": ("bookworm", "amd64"),
    "newer": ("forky", "cloud-amd64"),
}
NEWER = "forky" # the suite of QEMU >= 10.1 and of a libnbd that extends headers
