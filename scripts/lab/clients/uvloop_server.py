#!/usr/bin/env python3
"""Sends back what it receives on the unix socket argv[1], until SIGTERM; in uvloop, by streams or, with `protocol`, without."""
import asyncio
import signal
import sys

import uvloop


async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def serve(path, by_protocol):
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    server = await (loop.create_unix_server(Protocol, path) if by_protocol else asyncio.start_unix_server(echo, path))
    await over.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2:] == ["protocol"]))
