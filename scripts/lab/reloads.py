"""Servers that replace themselves while they serve: nginx by a new binary, php-fpm by a new execution of itself."""
import os
import re
import signal

from .event_loops import Nginx, PhpFpm
from .server import until
from .session import descendants, title


class Adopted:
    """A process that we did not start but inherited (subreaper), with the part of Popen that Server uses."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=60):
        until(lambda: self.poll() is not None, timeout, f"process {self.pid} has not ended")
        return self.returncode


class UpgradableNginx(Nginx):
    """nginx replaces its binary only as a daemon, so its master is an orphan, which the session adopts."""
    stop_signal = signal.SIGQUIT

    def prepare(self):
        super().prepare()
        conf = self.dir / "conf"
        # The new binary gets only those variables that are named here.
        names = "".join(f"env {name}; " for name in ("LD_PRELOAD", "SHUNT_UPGRADE", "SHUNT_REPORT"))
        conf.write_text(conf.read_text().replace("daemon off;", names))

    def start(self):
        self.prepare()
        self.must(self.session.run(self.command(), as_server=True, how=self.how, report=self.report_file, cwd=self.dir))
        until(self._master, self.start_timeout, "nginx wrote no pid")
        self.process = Adopted(self._master())
        until(self.answers, self.start_timeout, "nginx does not answer")
        return self

    def _master(self):
        try:
            return int((self.dir / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def workers(self):
        return [pid for pid in descendants(self.process.pid) if title(pid).startswith("nginx: worker")]

    def upgrade(self):
        """As in nginx's manual: USR2 to the old master, WINCH, QUIT. Returns the pids of the old workers."""
        old, workers = self.process, self.workers()
        old.send_signal(signal.SIGUSR2)
        until(lambda: self._master() not in (0, old.pid), 20, f"no new master\n{self.log_tail()}")
        new = self._master()
        until(lambda: len([pid for pid in descendants(new) if title(pid).startswith("nginx: worker")]) == 2, 20, "no new workers")
        old.send_signal(signal.SIGWINCH)
        until(lambda: not set(workers) & set(descendants(old.pid)), 20, "the old workers do not end")
        old.send_signal(signal.SIGQUIT)
        old.wait(20)
        self.process = Adopted(new)
        return workers


class NginxBeforeReloads(Nginx):
    """A new connection to php-fpm for each request: php-fpm's children do not leave a kept one before its other end does."""

    def prepare(self):
        super().prepare()
        conf = self.dir / "conf"
        conf.write_text(conf.read_text().replace(" keepalive 8;", "").replace("fastcgi_keep_conn on;", ""))


class ReloadedPhpFpm(PhpFpm):
    def workers(self):
        return descendants(self.process.pid)

    def reload(self):
        """SIGUSR2: the children finish what they do, the master executes itself anew."""
        told = self._times_ready()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: self._times_ready() > told, 30, f"php-fpm has not come back\n{self._log()}")
        until(lambda: len(self.workers()) == 8, 30, "php-fpm has no children")

    def _log(self):
        return (self.dir / "fpm.log").read_text()

    def _times_ready(self):
        return len(re.findall("ready to handle connections", self._log()))
