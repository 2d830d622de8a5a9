#!/usr/bin/env python3
"""Control connections to tor: ask all at once, print each answer, and end tor. Who compares prints of two runs finds no difference."""
import argparse
import random
import socket
import sys
import threading
import time

# What every start of one version answers alike.
ASKED = ("version", "info/names", "events/names", "features/names", "signal/names", "config/names", "config/defaults", "net/listeners/control",
         "status/circuit-established", "network-liveness", "dormant")
PAUSES_S = (0, 0, 0, 0.00003, 0.0001, 0.0003, 0.001, 0.005)


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


def converse(control, seed, rounds, answers, problems):
    """What is asked again is answered alike, on this connection and on others."""
    pauses = random.Random(seed)
    try:
        for _ in range(rounds):
            for keyword in ASKED:
                time.sleep(pauses.choice(PAUSES_S))  # tor has to wait, with a timeout, at all moments
                answers.setdefault(keyword, set()).add("\n".join(control.ask(f"GETINFO {keyword}")))
    except (SystemExit, OSError) as problem:  # told by the main thread
        problems.append(f"connection {seed}: {problem}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    controls = [Control(options.socket) for _ in range(4)]
    for each in controls:
        print(*each.ask('AUTHENTICATE ""'))
    answers, problems = {}, []
    threads = [threading.Thread(target=converse, args=(control, seed, options.rounds, answers, problems)) for seed, control in enumerate(controls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        return "\n".join(problems)
    for keyword in ASKED:
        print(*sorted(answers[keyword]), sep="\n")
    first, second, third, last = controls
    print(*first.ask("SETCONF MaxCircuitDirtiness=700"), *second.ask("GETCONF MaxCircuitDirtiness"), *third.ask("GETINFO no/such"))
    print(*last.ask("SIGNAL HALT"))
    for each in controls:
        if rest := each.lines.read():
            return f"bytes after the end: {rest!r}"
    return 0


if __name__ == "__main__":
    sys.exit(main())
