#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Be a server at a control socket that is none of ours.

usage: tests/ctl/liar.py SOCKET LIE

Prints a line when it listens, and answers every connection with LIE, a key of
LIES below, until killed.
"""

import json
import socket
import sys
import time

HEAD = "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"


def http(status, body, kind="application/json", length=None):
    head = HEAD.format(status, kind, len(body) if length is None else length)
    return [head.encode() + body]


def endless():
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"100000\r\n" + b" " * 0x100000 + b"\r\n"


def slow():
    yield from http("200 OK", b"", length=1000)
    while True:
        time.sleep(0.5)
        yield b" "


def silent():
    time.sleep(3600)
    yield b""


ODD = {"disks": {"\x1b[2J\x07evil": {"size": -1, "reads": "many",
                                     "latency": [], "backend": None},
                 "deep": {"a": {"b": {"c": {}}}}, "none": None},
       "doors": {"x": 3}, "version": 5}

# LIE: what is sent.
LIES = {
    "other": lambda: [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "closes": lambda: [],
    "half": lambda: http("200 OK", b'{"a"', length=100),
    "page": lambda: http("200 OK", b"<html>hello</html>", "text/html"),
    "empty": lambda: http("200 OK", b""),
    "bare": lambda: http("500 Internal Server Error", b""),
    "list": lambda: http("404 Not Found", b"[1]"),
    "no": lambda: http("409 Conflict",
                       b'{"error": "not \\u001b[31mnow\\u0007"}'),
    "deep": lambda: http("200 OK", b"[" * 1000000),
    "redirect": lambda: [b"HTTP/1.1 302 Found\r\nLocation: http://strata/\r\n"
                         b"Content-Length: 0\r\n\r\n"],
    "odd": lambda: http("200 OK", json.dumps(ODD).encode()),
    "endless": endless,
    "slow": slow,
    "silent": silent,
}


def main(path, lie):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("listening", flush=True)
        while True:
            client, _ = listener.accept()
            with client:
                try:
                    client.recv(65536)
                    for data in LIES[lie]():
                        client.sendall(data)
                except OSError:
                    pass


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in LIES:
        sys.exit(__doc__)
    main(*sys.argv[1:])
