#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Watch `strata top` in a pseudo terminal.

usage: tests/ctl/terminal.py STRATA SOCKET SCENE [ARGUMENT]...

  quit              q ends it
  signal NAME       SIGNAME ends it
  interrupt         the key for SIGINT ends it
  hangup            the terminal goes away, and so does it
  shows WORD...     each WORD comes to stand on the screen
  sorts             the keys < > and r mark another column, and turn the order
  resize            the table takes the new size
  lost PID WORD     the server PID is killed: it says so and goes on; then
                    WORD is run by the shell to start another one, and it is back

However it ends, the terminal must be as it was before: the modes, and the
screen that was shown. A scene is over after 30 s at the latest.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

PATIENCE_S = 20


class Screen:
    """What a VT52 shows: the terminal with the fewest ways to say things."""

    def __init__(self, rows, columns):
        self.size(rows, columns)
        self.left = b""

    def size(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.line = [[" "] * columns for _ in range(rows)]
        self.y = self.x = 0

    def text(self):
        return "\n".join("".join(x).rstrip() for x in self.line)

    def write(self, data):
        data = self.left + data
        while data:
            m = re.match(rb"\x1bY(.)(.)|\x1b([^Y])|([^\x1b])", data, re.S)
            if not m:
                break # the rest of a sequence is on its way
            data = data[m.end():]
            if m[1]:
                self.y, self.x = m[1][0] - 32, m[2][0] - 32
            elif m[3]:
                self.escape(m[3])
            else:
                self.put(m[4])
        self.left = data

    def escape(self, c):
        if c == b"H":
            self.y = self.x = 0
        elif c in b"JK":
            self.y = min(self.y, self.rows - 1)
            self.clear(self.y)
            for y in range(self.y + 1, self.rows if c == b"J" else 0):
                self.line[y] = [" "] * self.columns
        elif c in b"ABCD":
            self.y += {b"A": -1, b"B": 1}.get(c, 0)
            self.x += {b"C": 1, b"D": -1}.get(c, 0)
        elif c == b"I":
            self.line.insert(0, [" "] * self.columns)
            self.line.pop()

    def clear(self, y):
        self.line[y][self.x:] = [" "] * (self.columns - self.x)

    def put(self, c):
        if c == b"\r":
            self.x = 0
        elif c == b"\b":
            self.x -= 1
        elif c == b"\t":
            self.x = self.x // 8 * 8 + 8
        elif c == b"\n":
            self.y += 1
            if self.y == self.rows:
                self.line = self.line[1:] + [[" "] * self.columns]
                self.y -= 1
        elif c >= b" ":
            # What was written for a larger window may still come.
            self.x = min(self.x, self.columns - 1)
            self.y = min(self.y, self.rows - 1)
            self.line[self.y][self.x] = c.decode("latin-1")
            self.x += 1


class Top:
    """The program in its terminal."""

    def __init__(self, argv, term="vt52", rows=24, columns=100):
        self.seen = b""
        self.screen = Screen(rows, columns)
        self.master, self.slave = pty.openpty()
        self.window(rows, columns)
        self.modes = termios.tcgetattr(self.slave)
        self.pid = os.fork()
        if self.pid == 0:
            self.login()
            os.close(self.master)
            os.execvpe(argv[0], argv, dict(os.environ, TERM=term,
                                           LC_ALL="C.UTF-8"))
        self.status = None

    def login(self):
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(self.slave, fd)

    def window(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.screen.size(rows, columns)
        self.window(rows, columns)
        # The kernel tells the foreground group of it.

    def type(self, keys):
        os.write(self.master, keys)

    def read(self, seconds):
        """True: there was something."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        data = os.read(self.master, 65536)
        self.seen += data
        self.screen.write(data)
        return True

    def await_(self, what, holds):
        """Until HOLDS(text of the screen); WHAT it is, if it never does."""
        end = time.monotonic() + PATIENCE_S
        while not holds(self.screen.text()):
            assert time.monotonic() < end, \
                f"no {what} on the screen:\n{self.screen.text()}"
            assert not self.ended(), f"it ended with {self.status}"
            self.read(0.1)

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def end(self):
        """It ends by itself now, with 0; the terminal is as it was."""
        end = time.monotonic() + PATIENCE_S
        while not self.ended():
            assert time.monotonic() < end, "it goes on"
            self.read(0.05)
        while self.read(0.2):  # its last words are on their way, in pieces
            pass
        assert self.status == 0, f"it ended with {self.status}"
        modes = termios.tcgetattr(self.slave)
        assert modes == self.modes, f"modes {self.modes} are now {modes}"

    def kill(self):
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def there(word):
    return lambda text: word in text


def until_end(top, how):
    """Under a terminal with a second screen: that is left, last of all."""
    end = time.monotonic() + PATIENCE_S
    while b"CLIENTS" not in top.seen:
        assert time.monotonic() < end, f"no table: {top.seen}"
        top.read(0.1)
    assert termios.tcgetattr(top.slave) != top.modes, "the modes never changed"
    how()
    top.end()
    into, out = top.seen.rfind(b"\x1b[?1049h"), top.seen.rfind(b"\x1b[?1049l")
    assert 0 <= into < out, f"the screen was not left: {top.seen[-200:]}"
    shown = top.seen.rfind(b"\x1b[?25h"), top.seen.rfind(b"\x1b[?12l\x1b[?25h")
    assert max(shown) > top.seen.rfind(b"\x1b[?25l"), "no cursor"


def table(text):
    """The whole of it: the last line is drawn last."""
    return "CLIENTS" in text and "q quit" in text


def rows_of(text, head="DISK"):
    """The first words of the lines below HEAD, up to the next head."""
    rows = []
    for line in text.split(f"\n{head} ", 1)[-1].splitlines()[1:]:
        if not line or line.startswith("DOOR "):
            break
        rows.append(line.split()[0])
    return rows


def scene(strata, path, name, *words):
    argv = [strata, "top", "--api", path, "--interval", "200"]
    if name in ("quit", "signal", "interrupt"):
        top = Top(argv, term="xterm")
    else:
        top = Top(argv)
    try:
        if name == "quit":
            until_end(top, lambda: top.type(b"q"))
        elif name == "signal":
            number = getattr(signal, "SIG" + words[0])
            until_end(top, lambda: os.kill(top.pid, number))
        elif name == "interrupt":
            until_end(top, lambda: top.type(b"\x03"))
        elif name == "hangup":
            top.await_("table", table)
            os.close(top.slave)
            os.close(top.master)
            end = time.monotonic() + PATIENCE_S
            while not top.ended():
                assert time.monotonic() < end, "it goes on without a terminal"
                time.sleep(0.05)
        elif name == "shows":
            for word in words:
                top.await_(word, there(word))
            top.type(b"q")
            top.end()
        elif name == "sorts":
            top.await_("table", table)
            first = rows_of(top.screen.text())
            top.type(b"<") # from ops to size ...
            top.type(b"<") # ... to names
            top.await_("rows by name",
                       lambda t: rows_of(t) == sorted(first))
            top.type(b"r")
            top.await_("rows by name, the last first",
                       lambda t: rows_of(t) == sorted(first, reverse=True))
            assert len(first) > 1, f"not enough to sort: {first}"
            top.type(b"q")
            top.end()
        elif name == "resize":
            top.await_("all columns", there("STATE"))
            top.resize(10, 60)
            top.await_("fewer columns", lambda t: "OPS/S" in t and
                       "MEAN" in t and "CLIENTS" not in t)
            top.resize(2, 10)
            top.resize(1, 1)
            top.resize(50, 200)
            top.await_("all columns again", lambda t: "CLIENTS" in t and
                       "STATE" in t and "q quit" in t.splitlines()[-1])
            top.type(b"q")
            top.end()
        elif name == "lost":
            top.await_("table", table)
            os.kill(int(words[0]), signal.SIGKILL)
            top.await_("word that it is gone", there("trying again"))
            rows = rows_of(top.screen.text())
            assert rows, "what was known is not shown any more"
            with subprocess.Popen(["bash", "-c", words[1]]) as p:
                assert p.wait() == 0
            top.await_("word that it is back",
                       lambda t: "trying again" not in t and table(t))
            top.type(b"q")
            top.end()
        else:
            sys.exit(__doc__)
    finally:
        top.kill()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        scene(*sys.argv[1:])
    except AssertionError as e:
        sys.exit(str(e))
