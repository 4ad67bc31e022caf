#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Let a browser, which knows TCP only, reach a Unix socket.

usage: tests/page/forward.py SOCKET [FROM TO]

Prints the port of localhost where it listens, and carries each connection to
SOCKET until killed. With FROM and TO it is a server that goes away for a while:
of the requests for /v1/inspect, counted from 0, those from FROM on and below TO
end with their connection.
"""

import socket
import sys
import threading

ASKED = b"GET /v1/inspect"


class Forwarder:
    def __init__(self, path, away):
        self.path, self.away = path, away
        self.asked = 0
        self.lock = threading.Lock()

    def answers(self, data):
        """Whether the requests in DATA get an answer."""
        with self.lock:
            first = self.asked
            self.asked += data.count(ASKED)
            return not any(i in self.away for i in range(first, self.asked))

    def carry(self, source, to, answers):
        try:
            while True:
                data = source.recv(65536)
                if not data or not answers(data):
                    break
                to.sendall(data)
        except OSError:
            pass
        for s in (source, to):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def connect(self, client):
        with client, socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(self.path)
            except OSError:
                return
            there = threading.Thread(target=self.carry,
                                     args=(client, server, self.answers))
            there.start()
            self.carry(server, client, lambda data: True)
            there.join()


def main(path, away):
    forwarder = Forwarder(path, away)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=forwarder.connect, args=(client,),
                             daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    main(sys.argv[1], range(*map(int, sys.argv[2:])) if sys.argv[2:]
         else range(0))
