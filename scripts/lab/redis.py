"""Redis on a unix socket: no TCP, nothing on disk."""
import os
import shutil
import socket
import sys

from . import paths
from .server import Server


class Redis(Server):
    name = "redis"
    needs = ("redis",)

    def command(self):
        return [self._program(), "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "777", "--save", "",
                "--appendonly", "no", "--dir", self.dir, "--daemonize", "no", "--proto-max-bulk-len", "64mb"]

    def _program(self):
        """redis-tools has the server under its second name: it looks at the one it was called by."""
        found = shutil.which("redis-server")
        if found:
            return found
        link = self.session.dir / "redis-server"
        if not link.is_symlink():
            link.symlink_to(shutil.which("redis-check-rdb"))
        return link

    def answers(self):
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def ask(self, line):
        """One inline command over a kernel socket, answered in one piece."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(os.fspath(self.socket))
            connection.sendall(line.encode() + b"\r\n")
            return connection.recv(65536)

    def other_clients(self):
        """Clients connected besides the one that asks."""
        reply = self.ask("CLIENT LIST")
        return sum(b"addr=" in line for line in reply.splitlines()) - 1

    def title(self):
        return f"Redis {self.session.run(['redis-cli', '--version']).text.split()[1]}"

    def check_arguments(self, seed, commands, *more):
        """The client that knows every answer; see its own --help."""
        return [sys.executable, paths.CLIENTS / "redis_check.py", "--socket", self.socket, "--seed", str(seed),
                "--commands", str(commands), *more]

    def steady_load(self, seed, manner):
        """The same client, which goes on until SIGTERM."""
        return self.check_arguments(seed, 0, "--until-sigterm", "--no-saves", "--largest", "300000", "--manner", manner)
