"""Servers on runtimes that make system calls past libc, or that talk to clients which do."""
import shutil
import socket
from pathlib import Path

from . import compiled, fetched, packages, paths
from .event_loops import Accepting


class RustEcho(Accepting):
    """One of clients/rust's echo servers: smol, async_io, async_std, tokio."""
    name = "rust"

    def __init__(self, session, how, kind):
        super().__init__(session, how)
        self.file = fetched.rust(f"echo_{kind}")

    def command(self):
        return [self.file, "serve", self.socket]

    def ask_to_stop(self):
        """Not by a signal: that would need a crate more."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket))
            connection.sendall(b"end of the server")
            connection.recv(1)


class Scripted(Accepting):
    """A script of clients/ in one of the runtimes: node, bun, deno."""
    name = "script"

    def __init__(self, session, how, runtime, script, *words):
        super().__init__(session, how)
        self.words = [*runtime_command(runtime), paths.CLIENTS / script, *words, self.socket]

    def command(self):
        return self.words


def runtime_command(runtime):
    if runtime == "node":
        return ["node"]
    if runtime == "deno":
        return [fetched.node_program("deno"), "run", "--quiet", "--no-remote", "--no-prompt", "--allow-all"]
    return [fetched.node_program(runtime)]


class Compositor(Accepting):
    """compositor.c: all by libwayland-server, which uses libc."""
    name = "wayland"

    def command(self):
        return [compiled.c(self.session, "compositor", "-lwayland-server"), self.socket]


class Xvfb(Accepting):
    """Chooses its display by itself, and writes its number to the log."""
    name = "xvfb"

    def command(self):
        return ["Xvfb", "-displayfd", "1", "-ac", "-nolisten", "tcp", "-noreset", "-screen", "0", "320x240x24"]

    def answers(self):
        return bool(self._number())

    def _number(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line for line in lines if line.isdigit()), "")

    @property
    def display(self):
        return f":{self._number()}"


class Tor(Accepting):
    """Without network, in its sandbox: a filter that answers EPERM to what tor does not do itself."""
    name = "tor"

    def prepare(self):
        shutil.copy(packages.tor(), self.dir / "tor")  # the account may not reach the place where it was unpacked
        data = self.dir / "data"
        data.mkdir(mode=0o700)
        self.session.give(data)
        self.dir.chmod(0o700)  # tor insists, because of its sockets
        (self.dir / "torrc").write_text(
            f"DataDirectory {data}\nDisableNetwork 1\nSandbox 1\nControlSocket {self.socket}\nSocksPort unix:{self.dir}/socks\n"
            "CookieAuthentication 0\nDisableDebuggerAttachment 0\nLog notice stdout\n")

    def command(self):
        return [self.dir / "tor", "-f", self.dir / "torrc", "--defaults-torrc", "/dev/null", "--quiet"]

    def answers(self):
        """Only then it is in its sandbox: it listens before."""
        return super().answers() and "\nSeccomp:\t2\n" in Path(f"/proc/{self.process.pid}/status").read_text()

    def check(self):
        """The dialog after which it has ended by itself."""
        return [packages.PYTHON, paths.CLIENTS / "tor_check.py", self.socket]


class Filtered(Accepting):
    """filtered_echo.c under one of its filters."""
    name = "filtered"

    def __init__(self, session, how, filter):
        super().__init__(session, how)
        self.filter = filter

    def command(self):
        return [compiled.c(self.session, "filtered_echo"), self.filter, self.socket]
