#!/usr/bin/env python3
"""Sends back what it receives on multiprocessing connections over a unix socket. A client says where its connection has to go first: stay here, to a new
process, through a pipe to one that runs (SCM_RIGHTS), to another program, or stay while others are started; or that the server has to end.
Beside it a manager with a dictionary and a list."""
import argparse
import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Listener
from multiprocessing.managers import SyncManager

import processes


class Manager(SyncManager):
    """One dictionary and one list, the same for all clients."""


TABLE, ENTRIES = {}, []


def table():
    return TABLE


def entries():
    return ENTRIES


Manager.register("table", table, exposed=("get", "__setitem__", "__len__"))
Manager.register("entries", entries, exposed=("append", "__len__", "__getitem__"))


def work(pipe):
    """Serves the one connection that arrives through a pipe."""
    with pipe.recv() as connection:
        processes.echo(connection)


class Server:
    def __init__(self, context):
        self.context = context
        self.children, self.pipes = [], []

    def stay(self, connection):
        processes.echo(connection)

    def stay_beside_programs(self, connection):
        """subprocess closes every descriptor in its (vfork) child."""
        for _ in range(20):
            processes.echo(connection, 3)
            assert subprocess.run(["echo", "beside"], capture_output=True, check=True).stdout == b"beside\n"
        processes.echo(connection)

    def new_process(self, connection):
        child = self.context.Process(target=processes.echo, args=(connection,))
        child.start()
        self.children.append(child)

    def running_process(self, connection):
        ours, theirs = self.context.Pipe()
        self.pipes.append(ours)  # until the end: the worker takes the connection from us when it likes
        worker = self.context.Process(target=work, args=(theirs,))
        worker.start()
        ours.send(connection)
        self.children.append(worker)

    def program(self, connection, words):
        self.children.append(subprocess.Popen(words, stdin=connection.fileno(), stdout=connection.fileno()))

    def cat(self, connection):
        self.program(connection, ["cat"])

    def socat(self, connection):
        self.program(connection, ["socat", "-t10", "STDIO", "EXEC:cat"])

    def inherited_number(self, connection):
        number = connection.fileno()
        self.children.append(subprocess.Popen([sys.executable, __file__, "--adopt", str(number)], pass_fds=[number]))

    def serve(self, path):
        with Listener(path, "AF_UNIX", backlog=64, authkey=processes.KEY) as listener:
            while True:
                try:
                    connection = listener.accept()
                except (EOFError, OSError):  # somebody who wanted to know whether we listen
                    continue
                with connection:
                    where = connection.recv()
                    if where == processes.END:
                        return
                    processes.echo(connection, processes.BEFORE)
                    getattr(self, where)(connection)

    def stop(self):
        for child in self.children:
            (child.wait if isinstance(child, subprocess.Popen) else child.join)()
            status = child.returncode if isinstance(child, subprocess.Popen) else child.exitcode
            if status != 0:
                raise SystemExit(f"{child} ended with status {status}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adopt", type=int, metavar="DESCRIPTOR", help="serve this connection only")
    parser.add_argument("method", nargs="?", choices=processes.METHODS)
    parser.add_argument("socket", nargs="?")
    options = parser.parse_args()
    if options.adopt is not None:
        return processes.echo(multiprocessing.connection.Connection(options.adopt))
    processes.use_key()
    context = multiprocessing.get_context(options.method)
    server = Server(context)
    with Manager(options.socket + ".manager", processes.KEY, ctx=context):
        try:
            server.serve(options.socket)
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
