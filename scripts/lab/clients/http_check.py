#!/usr/bin/env python3
"""Keep-alive HTTP over a unix socket in several threads: the body sent is the body that comes back, or a file's."""
import argparse
import http.client
import random
import socket
import sys
import threading


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("shunt", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def converse(options, seed, problems):
    source, connection = random.Random(seed), Connection(options.socket)
    file = open(options.file, "rb").read() if options.file else None
    try:
        for number in range(options.requests):
            body = source.randbytes(source.choice((1, 500, 500, 200_000)))
            if file is None:
                connection.request("POST", options.target, body, {"Content-Type": "application/octet-stream"})
            else:
                connection.request("GET", options.target)
            answer = connection.getresponse()
            got = answer.read()
            if answer.status != 200 or got != (body if file is None else file):
                raise AssertionError(f"status {answer.status}, {len(got)} bytes: {got[:200]!r}")
    except Exception as problem:  # told by the main thread
        problems.append(f"thread {seed}, request {number}: {type(problem).__name__}: {problem}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("target", help="path of the URL")
    parser.add_argument("--file", help="what a GET must answer; without it POST, and the answer is what was sent")
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--requests", type=int, default=40)
    options = parser.parse_args()
    problems = []
    threads = [threading.Thread(target=converse, args=(options, seed, problems)) for seed in range(options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "\n".join(problems) or 0


if __name__ == "__main__":
    sys.exit(main())
