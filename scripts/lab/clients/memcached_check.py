#!/usr/bin/env python3
"""Random memcached commands on several connections; every answer is known beforehand."""
import argparse
import random
import socket
import sys


class Client:
    """Its own keys, so that the other clients change no answer."""

    def __init__(self, path, number):
        self.source, self.number, self.values = random.Random(number), number, {}
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        self.input = self.connection.makefile("rb")

    def expect(self, wanted):
        got = self.input.read(len(wanted))
        if got != wanted:
            raise SystemExit(f"client {self.number}: {got[:80]!r} instead of {wanted[:80]!r}")

    def key(self):
        return b"%d:%d" % (self.number, self.source.randrange(40))

    def step(self):
        commands, answers = [], []
        for _ in range(self.source.choice((1, 1, 1, 10))):  # alone, or in one write
            key, act = self.key(), self.source.randrange(4)
            value = self.values.get(key)
            if act == 0:
                value = self.source.randbytes(self.source.choice((3, 100, 100_000)))
                self.values[key] = value
                commands.append(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
                answers.append(b"STORED\r\n")
            elif act == 1:
                commands.append(b"delete %s\r\n" % key)
                answers.append(b"NOT_FOUND\r\n" if value is None else b"DELETED\r\n")
                self.values.pop(key, None)
            else:
                commands.append(b"get %s\r\n" % key)
                answers.append(b"END\r\n" if value is None else b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value))
        self.connection.sendall(b"".join(commands))
        self.expect(b"".join(answers))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    clients = [Client(options.socket, number) for number in range(options.clients)]
    for _ in range(options.rounds):
        for client in clients:
            client.step()


if __name__ == "__main__":
    sys.exit(main())
