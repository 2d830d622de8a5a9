"""Servers that are known for their event loops: echo servers in several runtimes, memcached, nginx, php-fpm, HAProxy."""
import shutil
import signal
import socket

from . import compiled, packages, paths
from .server import Server


def program(name):
    return shutil.which(name, path=packages.program_path())


def accepts(path):
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


class Accepting(Server):
    """Answers as soon as it accepts connections."""

    def answers(self):
        return accepts(self.socket)


class Echo(Accepting):
    """`kind`: one of echo_server.py's loops, node, java, libevent's METHOD, or socat (which forks for each connection)."""
    name = "echo"

    def __init__(self, session, how, kind):
        super().__init__(session, how)
        self.kind = kind
        self.good_status = 143 if kind.startswith(("socat", "java")) else 0

    def prepare(self):
        kind, _, method = self.kind.partition(" ")
        if kind == "node":
            self.words = ["node", paths.CLIENTS / "echo_server.js", self.socket]
        elif kind == "java":
            self.words = compiled.java(self.session, "EchoServer", self.socket)
        elif kind == "libevent":
            self.words = [compiled.c(self.session, "echo_libevent", "-levent_core"), method, self.socket]
        elif kind == "socat":
            self.words = ["socat", f"UNIX-LISTEN:{self.socket},fork,backlog=64", f"EXEC:cat{method}"]
        else:
            self.words = [packages.PYTHON, paths.CLIENTS / "echo_server.py", self.kind, self.socket]

    def command(self):
        return self.words


class Memcached(Accepting):
    """`before`: words in front of its command."""
    name = "memcached"

    def __init__(self, session, how, before=()):
        super().__init__(session, how)
        self.before = before

    def command(self):
        return [*self.before, program("memcached"), "-s", self.socket, "-a", "777", "-t", "4", "-I", "2m", "-U", "0"]


class PhpFpm(Accepting):
    """Answers every request with its body."""
    name = "php-fpm"
    stop_signal = signal.SIGQUIT  # its children exit; SIGTERM kills them, and they could not report

    def prepare(self):
        self.script = self.dir / "echo.php"
        self.script.write_text("<?php echo file_get_contents('php://input');\n")
        (self.dir / "fpm.conf").write_text(
            f"[global]\nerror_log = {self.dir}/fpm.log\ndaemonize = no\nprocess_control_timeout = 20\n[www]\nlisten = {self.socket}\nlisten.mode = 0777\n"
            "pm = static\npm.max_children = 8\n")

    def command(self):
        return [packages.php_fpm(), "-F", "-y", self.dir / "fpm.conf"]


class Nginx(Accepting):
    """Serves the file /big itself, and passes /echo to `backend`, a PhpFpm."""
    name = "nginx"

    def __init__(self, session, how, backend=None):
        super().__init__(session, how)
        self.backend = backend

    def prepare(self):
        self.big = self.dir / "big"
        self.big.write_bytes(bytes(range(256)) * 1000)
        (self.dir / "error.log").touch()
        for path in (self.big, self.dir / "error.log"):
            self.session.give(path)
        location = upstream = ""
        if self.backend:
            upstream = f"upstream php {{ server unix:{self.backend.socket}; keepalive 8; }}"
            location = (f"location /echo {{ fastcgi_pass php; fastcgi_keep_conn on; fastcgi_param SCRIPT_FILENAME {self.backend.script};"
                        " fastcgi_param REQUEST_METHOD $request_method; fastcgi_param CONTENT_TYPE $content_type;"
                        " fastcgi_param CONTENT_LENGTH $content_length; }")
        temporary = "".join(f"{kind}_temp_path {self.dir}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.dir / "conf").write_text(
            f"daemon off; worker_processes 2; pid {self.dir}/pid; error_log {self.dir}/error.log;\n"
            "events { worker_connections 256; use epoll; multi_accept on; }\n"
            f"http {{ access_log off; {temporary} client_max_body_size 10m; sendfile on; {upstream}\n"
            f"server {{ listen unix:{self.socket}; root {self.dir}; {location} }} }}\n")

    def command(self):
        return [program("nginx"), "-p", self.dir, "-c", self.dir / "conf", "-e", self.dir / "error.log"]


class HaProxy(Accepting):
    """Passes HTTP on to `backend`, anything with a socket."""
    name = "haproxy"
    stop_signal = signal.SIGUSR1  # the soft one, after which it exits

    def __init__(self, session, how, backend):
        super().__init__(session, how)
        self.backend = backend

    def prepare(self):
        (self.dir / "conf").write_text(
            "global\n  nbthread 2\ndefaults\n  mode http\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\n"
            f"  http-reuse always\nfrontend f\n  bind unix@{self.socket} mode 777\n  default_backend b\n"
            f"backend b\n  server s unix@{self.backend.socket}\n")

    def command(self):
        return [program("haproxy"), "-db", "-f", self.dir / "conf"]
