#!/usr/bin/env python3
"""Clients of an echo server that keep it waiting, and others that it has to serve meanwhile; at last the first ones get all that is theirs.

One says nothing from the start, one after many messages, one sends far more than it reads and leaves the server's answers where they are.
"""
import argparse
import random
import socket
import sys
import threading

MESSAGES = 300
UNREAD = 6 << 20


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(path)
    return connection


def receive(connection, size):
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(65536, size - len(data)))
        if not piece:
            raise SystemExit(f"the end after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def talk(connection, who, messages, largest=2000):
    source = random.Random(who)
    for number in range(messages):
        message = source.randbytes(source.randint(1, largest))
        connection.sendall(message)
        if receive(connection, len(message)) != message:
            raise SystemExit(f"{who}: answer {number} differs")


def end(connection, who):
    connection.shutdown(socket.SHUT_WR)
    if connection.recv(1):
        raise SystemExit(f"{who}: bytes after the end")
    connection.close()


class Greedy(threading.Thread):
    """Sends without reading, until told: server and both directions are full by then."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.connection, self.data, self.problem = connect(path), random.Random("greedy").randbytes(UNREAD), None
        self.connection.settimeout(60)
        talk(self.connection, "greedy", MESSAGES)
        self.start()

    def run(self):
        try:
            self.connection.sendall(self.data)
        except OSError as problem:
            self.problem = problem

    def check(self):
        if receive(self.connection, UNREAD) != self.data:
            raise SystemExit("greedy: what came back late differs")
        self.join()
        if self.problem:
            raise SystemExit(f"greedy: {self.problem}")
        end(self.connection, "greedy")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    options = parser.parse_args()
    silent = connect(options.socket)
    paused = connect(options.socket)
    talk(paused, "paused", MESSAGES)
    greedy = Greedy(options.socket)
    for number in range(3):
        served = connect(options.socket)
        talk(served, f"served {number}", MESSAGES, 20_000)
        end(served, f"served {number}")
    talk(paused, "paused, later", MESSAGES)
    greedy.check()
    for name, connection in (("silent", silent), ("paused", paused)):
        talk(connection, name, 30)
        end(connection, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
