#!/usr/bin/env python3
"""A control connection to tor: asks, prints each answer, and ends tor. Who compares prints of two runs finds no difference."""
import argparse
import socket
import sys

# What every start of one version answers alike.
ASKED = ("version", "info/names", "events/names", "features/names", "signal/names", "config/names", "config/defaults", "net/listeners/control",
         "status/circuit-established", "network-liveness", "dormant")


class Control:
    def __init__(self, path):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(20)
        self.connection.connect(path)
        self.lines = self.connection.makefile("rb")

    def ask(self, command):
        """The lines of the reply, the last with the status."""
        self.connection.sendall(command.encode() + b"\r\n")
        reply = []
        while True:
            line = self.lines.readline()
            if not line.endswith(b"\r\n"):
                raise SystemExit(f"{command}: the end after {reply + [line]}")
            text = line.decode().rstrip("\r\n")
            reply.append(text)
            if text[3:4] == "+":
                self._data(reply)
            elif text[3:4] == " ":
                return reply

    def _data(self, reply):
        while (line := self.lines.readline()) != b".\r\n":
            if not line:
                raise SystemExit("the end inside data")
            reply.append(line.decode().rstrip("\r\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    control, others = Control(options.socket), [Control(options.socket) for _ in range(3)]
    for each in (control, *others):
        print(*each.ask('AUTHENTICATE ""'))
    first = {}
    for number in range(options.rounds):
        for keyword in ASKED:
            reply = "\n".join((control, *others)[number % 4].ask(f"GETINFO {keyword}"))
            if first.setdefault(keyword, reply) != reply:
                raise SystemExit(f"GETINFO {keyword}: another answer in round {number}")
    for keyword, reply in first.items():
        print(reply.replace(options.socket, "SOCKET"))
    print(*others[0].ask("SETCONF MaxCircuitDirtiness=700"), *others[1].ask("GETCONF MaxCircuitDirtiness"), *others[2].ask("GETINFO no/such"))
    print(*control.ask("SIGNAL HALT"))
    for each in (control, *others):
        if rest := each.lines.read():
            raise SystemExit(f"bytes after the end: {rest!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
