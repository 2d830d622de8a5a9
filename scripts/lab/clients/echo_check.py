#!/usr/bin/env python3
"""Many connections to an echo server at once; each expects exactly its own bytes back, and then the end."""
import argparse
import asyncio
import random
import selectors
import socket
import sys

SELECTORS = {"select": selectors.SelectSelector, "poll": selectors.PollSelector, "epoll": selectors.EpollSelector,
             "default": selectors.DefaultSelector}
PIECE = 65536


def messages(seed, rounds, largest):
    source = random.Random(seed)
    for _ in range(rounds):
        size = source.randint(1, 300) if source.random() < 0.8 else source.randint(1, largest)
        yield source.randbytes(size)


async def _echoed(path, seed, rounds, largest):
    reader, writer = await asyncio.open_unix_connection(path)

    async def receive(size):
        return await reader.readexactly(size)

    for number, message in enumerate(messages(seed, rounds, largest)):
        answer = asyncio.create_task(receive(len(message)))
        writer.write(message)
        await writer.drain()
        if await answer != message:
            raise SystemExit(f"connection {seed}: answer {number} of {len(message)} bytes differs")
    writer.write_eof()
    if await reader.read(1):
        raise SystemExit(f"connection {seed}: bytes after the end")
    writer.close()


async def _asyncio(path, options):
    await asyncio.gather(*(_echoed(path, seed, options.rounds, options.largest) for seed in range(options.connections)))


class Conversation:
    def __init__(self, path, seed, options):
        self.seed, self.messages = seed, messages(seed, options.rounds, options.largest)
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(path)
        self.connection.setblocking(False)
        self.over = False
        self._next()

    def _next(self):
        self.message, self.sent, self.received = next(self.messages, b""), 0, 0
        if not self.message:
            self.connection.shutdown(socket.SHUT_WR)

    @property
    def wants_write(self):
        return self.sent < len(self.message)

    def move(self, readable, writable):
        if writable and self.wants_write:
            self.sent += self.connection.send(self.message[self.sent:])
        if not readable:
            return
        data = self.connection.recv(PIECE)
        if data != self.message[self.received:self.received + len(data)] or bool(data) != bool(self.message):
            raise SystemExit(f"connection {self.seed}: {len(data)} bytes differ at {self.received} of {len(self.message)}")
        self.received += len(data)
        self.over = not data
        if data and self.received == len(self.message):
            self._next()


def _selected(path, options, selector):
    living = 0
    for seed in range(options.connections):
        conversation = Conversation(path, seed, options)
        selector.register(conversation.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, conversation)
        living += 1
    while living:
        for key, events in selector.select():
            key.data.move(events & selectors.EVENT_READ, events & selectors.EVENT_WRITE)
            if key.data.over:
                selector.unregister(key.fileobj)
                key.fileobj.close()
                living -= 1
            else:
                selector.modify(key.fileobj, selectors.EVENT_READ | selectors.EVENT_WRITE * key.data.wants_write, key.data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=["asyncio", *SELECTORS])
    parser.add_argument("socket")
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--largest", type=int, default=300_000, help="bytes of a message")
    options = parser.parse_args()
    if options.loop == "asyncio":
        return asyncio.run(_asyncio(options.socket, options))
    with SELECTORS[options.loop]() as selector:
        return _selected(options.socket, options, selector)


if __name__ == "__main__":
    sys.exit(main())
