#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run a command as a service manager would: with sockets from descriptor 3 on.

usage: tests/systemd/activate.py SOCKET,... [NAME=VALUE]... COMMAND...

A SOCKET is one of: unix=PATH, tcp, datagram=PATH, connected (a pair), bound=PATH
(that does not listen), file=PATH, closed. LISTEN_PID and LISTEN_FDS are set;
NAME=VALUE sets or replaces variables; `NAME=` takes one away.
"""

import os
import re
import socket
import sys

FIRST = 3


def make(text):
    """Give a descriptor (the object that keeps it open goes to KEPT)."""
    kind, _, path = text.partition("=")
    if kind == "file":
        return os.open(path, os.O_RDWR | os.O_CREAT)
    if kind == "connected":
        made, other = socket.socketpair()
        KEPT.append(other)
        os.set_inheritable(other.fileno(), True) # lives on in the command
    elif kind == "tcp":
        made = socket.create_server(("127.0.0.1", 0))
    else:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM
                             if kind == "datagram" else socket.SOCK_STREAM)
        made.bind(path)
        if kind == "unix":
            made.listen()
    KEPT.append(made)
    return made.fileno()


KEPT = []


def main(sockets, *words):
    words = list(words)
    # High numbers first: making one must not close another.
    made = [os.dup(os.open("/dev/null", os.O_RDONLY)) if s == "closed"
            else make(s) for s in sockets.split(",")]
    high = [os.dup2(fd, 100 + i) for i, fd in enumerate(made)]
    for i, fd in enumerate(high):
        os.dup2(fd, FIRST + i, inheritable=True)
        os.set_inheritable(fd, False)
        if sockets.split(",")[i] == "closed":
            os.close(FIRST + i)
    env = dict(os.environ, LISTEN_PID=str(os.getpid()),
               LISTEN_FDS=str(len(made)))
    while words and re.match(r"^[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        env[name] = value
        if not value:
            del env[name]
    os.execvpe(words[0], words, env)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
