#!/usr/bin/env python3
"""Sends back what it receives on a unix socket, with one of Python's event loops, until SIGTERM.
A connection's end is answered by its end, after all of its bytes."""
import argparse
import asyncio
import selectors
import signal
import socket
import sys

PIECE = 65536
MOST_UNSENT = 4 * PIECE  # of a connection; then its bytes wait where they are
SELECTORS = {"select": selectors.SelectSelector, "poll": selectors.PollSelector, "epoll": selectors.EpollSelector,
             "default": selectors.DefaultSelector}


async def serve_asyncio(path):
    async def echo(reader, writer):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(echo, path)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


class Echo:
    """One connection without blocking: what it wants to be told of follows from what it still has to send."""

    def __init__(self, connection):
        self.connection, self.unsent, self.ended = connection, bytearray(), False
        connection.setblocking(False)

    @property
    def wants(self):
        """(to read, to write); neither: it is over."""
        return not self.ended and len(self.unsent) < MOST_UNSENT, bool(self.unsent)

    def move(self, readable, writable):
        if readable and self.wants[0]:
            data = self.connection.recv(PIECE)
            self.unsent += data
            self.ended = not data
        if writable and self.unsent:
            del self.unsent[:self.connection.send(self.unsent)]


def serve_selector(listener, selector):
    stop, stopper = socket.socketpair()
    stopper.setblocking(False)
    signal.set_wakeup_fd(stopper.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    selector.register(stop, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, events in selector.select():
            if key.fileobj is stop:
                return
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ, Echo(connection))
                continue
            echo = key.data
            echo.move(events & selectors.EVENT_READ, events & selectors.EVENT_WRITE)
            read, write = echo.wants
            if read or write:
                selector.modify(key.fileobj, selectors.EVENT_READ * read | selectors.EVENT_WRITE * write, echo)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def serve_glib(listener):
    from gi.repository import GLib
    loop = GLib.MainLoop()
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGTERM, loop.quit)

    def watch(echo):
        read, write = echo.wants
        if read or write:
            nothing = GLib.IOCondition(0)
            condition = GLib.IO_HUP | (GLib.IO_IN if read else nothing) | (GLib.IO_OUT if write else nothing)
            GLib.io_add_watch(echo.connection.fileno(), GLib.PRIORITY_DEFAULT, condition, move, echo)
        else:
            echo.connection.close()

    def move(_, condition, echo):
        echo.move(condition & (GLib.IO_IN | GLib.IO_HUP), condition & GLib.IO_OUT)
        watch(echo)
        return False

    def accept(*_):
        watch(Echo(listener.accept()[0]))
        return True

    GLib.io_add_watch(listener.fileno(), GLib.PRIORITY_DEFAULT, GLib.IO_IN, accept)
    loop.run()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=["asyncio", "glib", *SELECTORS])
    parser.add_argument("socket")
    options = parser.parse_args()
    if options.loop == "asyncio":
        return asyncio.run(serve_asyncio(options.socket))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(options.socket)
        listener.listen(128)
        if options.loop == "glib":
            return serve_glib(listener)
        with SELECTORS[options.loop]() as selector:
            return serve_selector(listener, selector)


if __name__ == "__main__":
    sys.exit(main())
