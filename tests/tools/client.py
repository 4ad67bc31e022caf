# SPDX-License-Identifier: MIT
"""NBD clients that no library offers: they die half-way, lie, or do nothing.

usage: client.py SOCKET dying COUNT | idle | reading | lies

  dying COUNT    COUNT processes, a few at a time, connect, send requests, the
                 last of them in part, and kill themselves with SIGKILL
  idle           connect, print "connected", and wait for end of file
  reading        the same, with a read under way
  lies           one client after the other says what no client may say; exit 0
                 when the server left each of them; prints how many
"""

import os
import random
import signal
import socket
import struct
import sys

TIMEOUT = 20  # seconds; only so that a hung server fails the test
OPTION = b"IHAVEOPT"
REQUEST = 0x25609513


def receive(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(TIMEOUT)
    s.connect(path)
    return s


def greet(path):
    """Connect and exchange flags: fixed newstyle, no zeroes."""
    s = connect(path)
    magic, option, _ = struct.unpack(">8s8sH", receive(s, 18))
    assert (magic, option) == (b"NBDMAGIC", OPTION)
    s.sendall(struct.pack(">I", 3))
    return s


def option(number, data=b""):
    return OPTION + struct.pack(">II", number, len(data)) + data


def serve(path):
    """Connect and go to transmission on the default export."""
    s = greet(path)
    s.sendall(option(7, struct.pack(">IH", 0, 0)))
    while True:
        _, _, kind, length = struct.unpack(">QIII", receive(s, 20))
        receive(s, length)
        if kind == 1:
            return s


def request(kind, offset, length, data=b"", magic=REQUEST, flags=0):
    return struct.pack(">IHHQQI", magic, flags, kind, 7, offset, length) + data


def die(path, seed):
    """Be a client that dies: in the handshake, or with requests under way."""
    rand = random.Random(seed)
    if rand.random() < 0.2:
        s = greet(path)
        s.sendall(option(7, struct.pack(">IH", 0, 0))[:rand.randrange(22)])
    else:
        s = serve(path)
        for _ in range(rand.randrange(1, 9)):
            s.sendall(request(0, rand.randrange(16) * 65536, 65536))
            s.sendall(request(1, rand.randrange(16) * 65536, 65536,
                              bytes(65536)))
        s.sendall(request(1, 0, 65536, bytes(65536))[:rand.randrange(60000)])
    os.kill(os.getpid(), signal.SIGKILL)


def dying(path, count):
    """Let COUNT clients die, 16 at a time; all must have got that far."""
    running = done = 0
    for i in range(count):
        if running == 16:
            done += os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
            running -= 1
        if os.fork() == 0:
            try:
                die(path, i)
            finally:
                os._exit(1)
        running += 1
    while running:
        done += os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL
        running -= 1
    print(f"{done} clients died")
    return 0 if done == count else 1


# What is said, and where: after connecting, the greeting, or in transmission.
LIES = {
    "flags": (connect, struct.pack(">I", 0xffffffff)),
    "http": (greet, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "option-magic": (greet, b"IHAVENOT" + bytes(8)),
    "option-huge": (greet, OPTION + struct.pack(">II", 7, 0xffffffff)
                    + bytes(100000)),
    "option-name-huge": (greet, option(1, b"x" * 5000)),
    "export-name-unknown": (greet, option(1, b"no such export")),
    "request-magic": (serve, request(0, 0, 512, magic=0x12345678)),
    "request-noise": (serve, bytes(range(256)) * 16),
    "write-huge": (serve, request(1, 0, 0xffffffff)),
}


def lie(path, name):
    """Say it, and expect to be left by the server."""
    start, words = LIES[name]
    s = start(path)
    try:
        s.sendall(words)
        while s.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    except socket.timeout:
        print(f"{name}: the server neither closed nor answered")
        return 1
    return 0


def wait(path, words):
    s = serve(path)
    s.sendall(words)
    print("connected", flush=True)
    s.settimeout(None)
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return 0


def main():
    path, what = sys.argv[1:3]
    if what == "dying":
        return dying(path, int(sys.argv[3]))
    if what == "idle":
        return wait(path, b"")
    if what == "reading":
        return wait(path, request(0, 0, 4096))
    print(len(LIES))
    return sum(lie(path, name) for name in LIES)


if __name__ == "__main__":
    sys.exit(main())
