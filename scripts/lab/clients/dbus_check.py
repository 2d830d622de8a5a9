#!/usr/bin/env python3
"""Both ends of calls over a message bus, with bytes and with descriptors, through GLib.

`serve ADDRESS` answers until it is told to quit. `ask ADDRESS ECHO` checks every answer; ECHO is the socket of a server that echoes,
to which a connection is made, used, and then handed to the other program, which goes on with it.
"""
import argparse
import hashlib
import os
import random
import socket
import sys

import gi

gi.require_version("Gio", "2.0")
from gi.repository import Gio, GLib  # noqa: E402

NAME, PATH = "shunt.Check", "/shunt"
INTERFACE = f"""<node><interface name='{NAME}'>
<method name='Echo'><arg type='ay' direction='in'/><arg type='ay' direction='out'/></method>
<method name='Digest'><arg type='h' direction='in'/><arg type='s' direction='out'/></method>
<method name='Make'><arg type='u' direction='in'/><arg type='u' direction='in'/><arg type='h' direction='out'/></method>
<method name='Converse'><arg type='h' direction='in'/><arg type='u' direction='in'/><arg type='u' direction='out'/></method>
<method name='Quit'/></interface></node>"""


def connect(address):
    flags = Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION
    return Gio.DBusConnection.new_for_address_sync(address, flags, None, None)


def packed(data):
    """(ay) without a Python object for each byte."""
    return GLib.Variant.new_tuple(GLib.Variant.new_from_bytes(GLib.VariantType("ay"), GLib.Bytes.new(data), True))


def unpacked(reply):
    return reply.get_child_value(0).get_data_as_bytes().get_data() or b""


def converse(connection, seed):
    """Rounds with an echo server; the sum of their sizes, or an exception."""
    source, total = random.Random(seed), 0
    for _ in range(30):
        message = source.randbytes(source.choice((1, 300, 20_000)))
        connection.sendall(message)
        got = b""
        while len(got) < len(message):
            piece = connection.recv(len(message) - len(got))
            if not piece:
                raise SystemExit("the echo ended early")
            got += piece
        if got != message:
            raise SystemExit("the echo differs")
        total += len(message)
    return total


class Service:
    def __init__(self, bus):
        self.loop = GLib.MainLoop()
        info = Gio.DBusNodeInfo.new_for_xml(INTERFACE).interfaces[0]
        bus.register_object(PATH, info, self._called, None, None)
        bus.call_sync("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName",
                      GLib.Variant("(su)", (NAME, 0)), None, Gio.DBusCallFlags.NONE, -1, None)

    def _called(self, bus, sender, path, interface, method, arguments, call):
        getattr(self, method)(call, arguments)

    def _descriptor(self, call):
        return call.get_message().get_unix_fd_list().get(0)

    def Echo(self, call, arguments):
        call.return_value(packed(unpacked(arguments)))

    def Digest(self, call, _):
        with open(self._descriptor(call), "rb") as file:
            call.return_value(GLib.Variant("(s)", (hashlib.sha256(file.read()).hexdigest(),)))

    def Make(self, call, arguments):
        seed, size = arguments.unpack()
        file = os.memfd_create("made")
        os.write(file, random.Random(seed).randbytes(size))
        os.lseek(file, 0, os.SEEK_SET)
        descriptors = Gio.UnixFDList.new()
        descriptors.append(file)
        os.close(file)
        call.return_value_with_unix_fd_list(GLib.Variant("(h)", (0,)), descriptors)

    def Converse(self, call, arguments):
        with socket.socket(fileno=self._descriptor(call)) as connection:
            call.return_value(GLib.Variant("(u)", (converse(connection, arguments.unpack()[1]),)))

    def Quit(self, call, _):
        call.return_value(None)
        call.get_connection().flush_sync(None)
        self.loop.quit()


class Caller:
    def __init__(self, bus):
        self.bus, self.source = bus, random.Random(5)

    def call(self, method, arguments=None, descriptor=None):
        """(reply, descriptors that came with it)"""
        descriptors = Gio.UnixFDList.new() if descriptor is not None else None
        if descriptors:
            descriptors.append(descriptor)
        return self.bus.call_with_unix_fd_list_sync(NAME, PATH, NAME, method, arguments, None, Gio.DBusCallFlags.NO_AUTO_START,
                                                    30_000, descriptors, None)

    def expect_echoes(self, times):
        for _ in range(times):
            data = self.source.randbytes(self.source.choice((0, 1, 700, 200_000)))
            if unpacked(self.call("Echo", packed(data))[0]) != data:
                raise SystemExit(f"an echo of {len(data)} bytes differs")

    def expect_descriptors(self, seed):
        data = random.Random(seed).randbytes(100_000)
        with open(os.memfd_create("asked"), "w+b") as file:
            file.write(data)
            file.seek(0)
            digest = self.call("Digest", GLib.Variant("(h)", (0,)), file.fileno())[0].unpack()[0]
        if digest != hashlib.sha256(data).hexdigest():
            raise SystemExit("the descriptor led to other bytes")
        reply, descriptors = self.call("Make", GLib.Variant("(uu)", (seed, len(data))))
        with open(descriptors.get(reply.unpack()[0]), "rb") as file:
            if file.read() != data:
                raise SystemExit("the descriptor that came leads to other bytes")

    def expect_connection_handed_on(self, echo):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(echo)
            wanted = converse(connection, 8)
            got = self.call("Converse", GLib.Variant("(hu)", (0, 8)), connection.fileno())[0].unpack()[0]
            if got != wanted:
                raise SystemExit(f"the other program moved {got} bytes, not {wanted}")
            converse(connection, 9)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=["serve", "ask"])
    parser.add_argument("address")
    parser.add_argument("echo", nargs="?")
    options = parser.parse_args()
    bus = connect(options.address)
    bus.set_exit_on_close(False)
    if options.end == "serve":
        service = Service(bus)
        print("ready", flush=True)
        return service.loop.run()
    caller = Caller(bus)
    caller.expect_echoes(40)
    for seed in range(5):
        caller.expect_descriptors(seed)
        caller.expect_echoes(4)
    caller.expect_connection_handed_on(options.echo)
    caller.expect_echoes(10)
    caller.call("Quit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
