#!/usr/bin/env python3
"""A Redis client that knows every answer: random commands against a model of the data, every reply compared.

Prints `N answers right` (status 0); a wrong answer and where (status 1); or, when the connection ends early,
`ended: EOF|ECONNRESET|EPIPE after N answers` (status 3).
"""
import argparse
import errno
import os
import random
import signal
import sys
import time

from resp import Ended, Wire, Wrong, encode


class Model:
    """What Redis must answer. Keys carry a prefix of our own, so that several clients can work at once."""

    def __init__(self, rng, prefix, largest):
        self.rng, self.prefix, self.largest = rng, prefix, largest
        self.strings, self.lists, self.hashes = {}, {}, {}
        self.noise = rng.randbytes(1 << 20)

    def value(self):
        shape = self.rng.random()
        limit = 64 if shape < 0.6 else 4096 if shape < 0.9 else 65536 if shape < 0.997 else self.largest
        size = self.rng.randint(0, min(limit, self.largest))
        start = self.rng.randrange(len(self.noise))
        data = self.noise[start:start + size]
        return data + self.noise * ((size - len(data)) // len(self.noise)) + self.noise[:(size - len(data)) % len(self.noise)]

    def next(self):
        """(words of a command, expected reply)"""
        number = self.rng.randrange(60)
        return self.rng.choice((self._set, self._get, self._get, self._append, self._range, self._count, self._delete, self._push,
                                self._pop, self._list, self._hash, self._mget, self._echo, self._error))(number)

    def _key(self, kind, number):
        return f"{self.prefix}:{kind}:{number}".encode()

    def _set(self, n):
        self.strings[n] = self.value()
        return ("SET", self._key("s", n), self.strings[n]), b"OK"

    def _get(self, n):
        return ("GET", self._key("s", n)), self.strings.get(n)

    def _append(self, n):
        more = self.value()[:1000]
        if len(self.strings.get(n, b"")) > self.largest:
            return self._get(n)
        self.strings[n] = self.strings.get(n, b"") + more
        return ("APPEND", self._key("s", n), more), len(self.strings[n])

    def _range(self, n):
        a, b = sorted((self.rng.randint(0, 70000), self.rng.randint(0, 70000)))
        return ("GETRANGE", self._key("s", n), a, b), self.strings.get(n, b"")[a:b + 1]

    def _count(self, n):
        key = ("n", n)
        step = self.rng.randint(-1000, 1000)
        self.strings[key] = self.strings.get(key, 0) + step
        return ("INCRBY", self._key("n", n), step), self.strings[key]

    def _delete(self, n):
        return ("DEL", self._key("s", n)), int(self.strings.pop(n, None) is not None)

    def _push(self, n):
        items = [self.value()[:2000] for _ in range(self.rng.randint(1, 5))]
        queue = self.lists.setdefault(n, [])
        queue += items
        return ("RPUSH", self._key("l", n), *items), len(queue)

    def _pop(self, n):
        queue = self.lists.get(n, [])
        item = queue.pop(0) if queue else None
        if not queue:
            self.lists.pop(n, None)
        return ("LPOP", self._key("l", n)), item

    def _list(self, n):
        return ("LRANGE", self._key("l", n), 0, -1), list(self.lists.get(n, []))

    def _hash(self, n):
        field, value = f"f{self.rng.randrange(20)}".encode(), self.value()[:500]
        fields = self.hashes.setdefault(n, {})
        if field in fields and self.rng.random() < 0.5:
            return ("HGET", self._key("h", n), field), fields[field]
        new = int(field not in fields)
        fields[field] = value
        return ("HSET", self._key("h", n), field, value), new

    def _mget(self, n):
        numbers = [self.rng.randrange(60) for _ in range(self.rng.randint(1, 10))]
        return ("MGET", *(self._key("s", each) for each in numbers)), [self.strings.get(each) for each in numbers]

    def _echo(self, n):
        data = self.value()
        return ("ECHO", data), data

    def _error(self, n):
        self.lists.setdefault(n, []).append(b"x")
        script = "redis.call('rpush', KEYS[1], 'x') return redis.call('incr', KEYS[1])"
        return ("EVAL", script, 1, self._key("l", n)), ("error", b"WRONGTYPE")


def short(value):
    text = repr(value)
    return text if len(text) < 160 else f"{text[:120]}... ({len(value)} long)"


def check(wire, command, expected):
    got = wire.reply()
    if got != expected:
        raise Wrong(f"{short(command[0])} {short(command[1])}: expected {short(expected)}, got {short(got)}")


def sleeper_round(wire, sleeper, prefix, rng):
    """A second connection waits in the server (BLPOP) for what the first one pushes."""
    queue, item = f"{prefix}:wait".encode(), rng.randbytes(rng.randint(1, 5000))
    sleeper.send(encode(("BLPOP", queue, 20)))
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 0.01))
    wire.send(encode(("RPUSH", queue, item)))
    check(wire, ("RPUSH", queue), 1)
    check(sleeper, ("BLPOP", queue), [queue, item])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--commands", type=int, default=5000, help="how many, if --seconds is not given")
    parser.add_argument("--seconds", type=float, help="go on for so long")
    parser.add_argument("--until-sigterm", action="store_true", help="go on until then")
    parser.add_argument("--largest", type=int, default=4 << 20, help="bytes of the largest value")
    parser.add_argument("--manner", choices=("blocking", "timeout", "epoll"), default="blocking")
    parser.add_argument("--no-saves", action="store_true", help="do not let the server fork (BGSAVE) meanwhile")
    options = parser.parse_args()

    rng = random.Random(options.seed)
    prefix = f"c{options.seed}.{os.getpid()}"
    stopped = []
    if options.until_sigterm:
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    done, deadline = 0, options.seconds and time.monotonic() + options.seconds
    try:
        wire = Wire(options.socket, options.manner, rng)
        sleeper = Wire(options.socket, options.manner, rng)
        model = Model(rng, prefix, options.largest)
        if options.largest >= 4 << 20:  # the largest value itself, both ways
            data = (model.noise * 4)[:4 << 20]
            wire.send(encode(("ECHO", data)))
            check(wire, ("ECHO", data), data)
        while not stopped and (time.monotonic() < deadline if deadline else options.until_sigterm or done < options.commands):
            depth = 1 if rng.random() < 0.8 else rng.randint(2, 100)
            batch = [model.next() for _ in range(depth)]
            wire.send(b"".join(encode(command) for command, _ in batch))
            for command, expected in batch:
                check(wire, command, expected)
                done += 1
            if rng.random() < 0.02:
                sleeper_round(wire, sleeper, prefix, rng)
                done += 2
            if not options.no_saves and rng.random() < 0.001:
                wire.send(encode(("BGSAVE",)))
                wire.reply()  # started, or an error because one is under way
    except Ended as end:
        print(f"ended: {end} after {done} answers")
        return 3
    except OSError as problem:
        print(f"ended: {errno.errorcode.get(problem.errno, problem)} at connect")
        return 3
    except Wrong as wrong:
        print(f"after {done} right answers, seed {options.seed}: {wrong}")
        return 1
    print(f"{done} answers right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
