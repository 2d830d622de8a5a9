#!/usr/bin/env python3
"""HTTP over a unix socket in several threads until SIGTERM: each answer must be right while the servers behind the socket come and go.

A kept connection may end before the answer to its next request begins, and only there: the request is asked again on a new connection,
and must then be answered. Prints `N answers, M connections, K asked again`.
"""
import argparse
import random
import signal
import socket
import sys
import threading

from http_check import Connection

ENDED = (BrokenPipeError, ConnectionResetError)  # http.client's own error for an end without an answer is one of them


class Stop:
    """Python runs handlers in its first thread, and a signal that another thread takes wakes that one from no lock: so it waits for a byte."""

    def __init__(self):
        self.waits, self.wakes = socket.socketpair()
        self.wakes.setblocking(False)
        self.asked = False
        signal.set_wakeup_fd(self.wakes.fileno())
        signal.signal(signal.SIGTERM, lambda *_: None)

    def ask(self):
        self.wakes.send(b".")

    def wait(self):
        self.waits.recv(1)
        self.asked = True


class Asking:
    """One thread: its own connection and its own requests."""

    def __init__(self, options, seed):
        self.options, self.seed, self.source = options, seed, random.Random(seed)
        self.file = open(options.file, "rb").read() if options.file else None
        self.connection = Connection(options.socket)
        self.answers = self.connections = self.again = 0
        self.problem = ""

    def run(self, stop):
        try:
            while not stop.asked:
                self._ask(self.source.randbytes(self.source.choice((1, 500, 500, self.options.largest))))
        except Exception as problem:  # told by the main thread
            self.problem = f"thread {self.seed}, after {self.answers} answers: {type(problem).__name__}: {problem}"
            stop.ask()

    def _ask(self, body):
        kept = self.connection.sock is not None
        try:
            status, got = self._answer(body)
        except ENDED:
            if not kept:
                raise
            self.again += 1
            self.connection.close()
            status, got = self._answer(body)
        if status != 200 or got != (body if self.file is None else self.file):
            raise AssertionError(f"status {status}, {len(got)} bytes: {got[:200]!r}")
        self.answers += 1
        if self.options.tally:
            with open(self.options.tally, "ab") as tally:
                tally.write(b".")

    def _answer(self, body):
        self.connections += self.connection.sock is None
        if self.file is None:
            self.connection.request("POST", self.options.target, body, {"Content-Type": "application/octet-stream"})
        else:
            self.connection.request("GET", self.options.target)
        answer = self.connection.getresponse()
        try:
            return answer.status, answer.read()
        except ENDED as problem:
            raise AssertionError(f"an answer ended early: {problem}") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("target", help="path of the URL")
    parser.add_argument("--file", help="what a GET must answer; without it POST, and the answer is what was sent")
    parser.add_argument("--tally", help="a file that grows by a byte with each answer")
    parser.add_argument("--largest", type=int, default=400_000, help="bytes of the largest body")
    parser.add_argument("--threads", type=int, default=6)
    options = parser.parse_args()
    stop = Stop()
    all_asking = [Asking(options, seed) for seed in range(options.threads)]
    threads = [threading.Thread(target=asking.run, args=(stop,)) for asking in all_asking]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    print(f"{sum(each.answers for each in all_asking)} answers, {sum(each.connections for each in all_asking)} connections, "
          f"{sum(each.again for each in all_asking)} asked again")
    return "\n".join(each.problem for each in all_asking if each.problem) or 0


if __name__ == "__main__":
    sys.exit(main())
