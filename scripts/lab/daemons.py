"""Servers that hand descriptors on or relay: an ssh master, a message bus, socat between two sockets."""
import os
import shutil
import signal
from pathlib import Path

from . import packages
from .event_loops import Accepting, program
from .server import until
from .session import descendants, title


class Ssh(Accepting):
    """A master (ControlMaster) and its sshd -i, which talk over pipes: no port, no account but our own, keys of this run.

    Its socket is the control socket; connections to `forwarded` go on to `backend` through both programs.
    """
    name = "ssh"
    good_status = 255  # of a master without a session of its own

    def __init__(self, session, how, backend):
        super().__init__(session, how)
        self.backend, self.forwarded = backend, self.dir / "f"
        self.config, self.sshd = self.dir / "config", self.dir / "sshd"

    def prepare(self):
        shutil.copy(packages.sshd(), self.sshd)
        for key in ("host", "user"):
            self.must(self.session.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key], as_server=True))
        (self.dir / "sshd_config").write_text(
            f"HostKey {self.dir}/host\nAuthorizedKeysFile {self.dir}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nPermitUserRC no\nAllowStreamLocalForwarding yes\n")
        # ssh ends its proxy command by a signal, after which sshd would report nothing: so that is a shell, and sshd meets the end of its input.
        self.config.write_text(
            f"Host *\nIdentityFile {self.dir}/user\nIdentitiesOnly yes\nUserKnownHostsFile {self.dir}/known\n"
            f"GlobalKnownHostsFile none\nStrictHostKeyChecking no\nLogLevel error\nControlPath {self.socket}\n"
            f"ProxyCommand sh -c '{self.sshd} -i -f {self.dir}/sshd_config -E {self.dir}/sshd.log; true'\n")

    def command(self):
        return ["ssh", "-F", self.config, "-M", "-N", "-L", f"{self.forwarded}:{self.backend.socket}", "host"]

    def session_of(self, *words):
        """A client of the master. Words before `host` are ssh's, the rest is run there."""
        return ["ssh", "-F", self.config, *words]

    def ask_to_stop(self):
        """Not by a signal: a master that is about to wait (clientloop.c: a flag, then poll) would miss it, and serve on."""
        self.must(self.session.run(self.session_of("-O", "exit", "host"), as_server=True))

    def stop(self):
        """Nobody waits for sshd's processes, and the last of them has the report."""
        super().stop()
        until(lambda: not any(title(pid).startswith(("sshd", str(self.sshd))) for pid in descendants(os.getpid())), 20, "sshd does not end")

    def report_of(self, name):
        """Of the processes of one of the two programs."""
        report = self.report()
        report.lines = [line for line in report.lines if Path(line["program"]).name == name]
        return report


class MessageBus(Accepting):
    name = "dbus"

    def prepare(self):
        (self.dir / "config").write_text(
            '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" '
            '"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
            f"<busconfig><type>session</type><listen>{self.address}</listen><auth>EXTERNAL</auth><policy context='default'>"
            "<allow user='*'/><allow own='*'/><allow eavesdrop='true'/><allow send_destination='*' eavesdrop='true'/></policy></busconfig>\n")

    @property
    def address(self):
        return f"unix:path={self.socket}"

    def command(self):
        return ["dbus-daemon", f"--config-file={self.dir}/config", "--nofork", "--nopidfile"]


class Relay(Accepting):
    """socat from its own socket to another one, a process for each connection."""
    name = "relay"
    good_status = 128 + signal.SIGTERM

    def __init__(self, session, how, target):
        super().__init__(session, how)
        self.target = target

    def command(self):
        return [program("socat"), "-t", "30", "-b", "65536", f"UNIX-LISTEN:{self.socket},fork,backlog=64",
                f"UNIX-CONNECT:{self.target}"]
