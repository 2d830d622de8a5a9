"""A real server on a unix socket in a directory of its own: start, wait until it answers, stop."""
import shutil
import signal
import subprocess
import time

from . import preload
from .session import end_descendants


class ServerProblem(Exception):
    """The server did not start, did not stop, or ended badly; carries the tail of its log."""


def until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerProblem(f"after {seconds} s: {what}")
        time.sleep(0.01)


class Server:
    """Subclasses say what to run (`command`), how to see that it serves (`answers`), and name themselves."""

    name = ""
    start_timeout = 60
    stop_timeout = 60
    stop_signal = signal.SIGTERM
    good_status = 0  # after ask_to_stop()

    def __init__(self, session, how=preload.KERNEL):
        self.session, self.how = session, how
        self.dir = session.directory(self.name)
        self.socket = self.dir / "s"
        self.log = self.dir / "log"
        self.report_file = self.dir / "server.report"
        self.client_report_file = self.dir / "client.report"
        self.process = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, failure, *_):
        if failure is None:
            self.stop()
        self.discard()

    def prepare(self):
        """Before each start: make or refresh what the server needs in its directory."""

    def command(self):
        raise NotImplementedError

    def answers(self):
        raise NotImplementedError

    def title(self):
        """Name and version, asked of the running server."""
        raise NotImplementedError

    def start(self):
        self.prepare()
        self.process = self.session.start(self.command(), log=self.log, as_server=True, how=self.how,
                                          report=self.report_file, cwd=self.dir)
        deadline = time.monotonic() + self.start_timeout
        while not self.answers():
            if self.process.poll() is not None:
                raise ServerProblem(f"{self.name} ended at start with status {self.process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerProblem(f"{self.name} does not answer after {self.start_timeout} s\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def ask_to_stop(self):
        self.process.send_signal(self.stop_signal)

    def stop(self):
        """Stop as an administrator would; the reports are complete afterwards."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            status = self.process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self.discard()
            raise ServerProblem(f"{self.name} did not stop within {self.stop_timeout} s\n{self.log_tail()}") from None
        self.process = None
        if status != self.good_status:
            raise ServerProblem(f"{self.name} ended with status {status}\n{self.log_tail()}")

    def kill(self):
        """kill -9, and nothing else: the test is what happens next."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def discard(self):
        if self.process is not None:
            end_descendants(self.process.pid)
            self.process.kill()
            self.process.wait()
            self.process = None

    def start_client(self, argv, how=preload.KERNEL, **options):
        return self.session.start(argv, how=how, report=self.client_report_file, pipe=True, **options)

    def client(self, argv, how=preload.KERNEL, timeout=60, **options):
        return self.session.run(argv, timeout=timeout, how=how, report=self.client_report_file, **options)

    def report(self):
        return preload.Report(self.report_file)

    def client_report(self):
        return preload.Report(self.client_report_file)

    def log_tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""

    def copy_template(self, target, make):
        """A data directory takes seconds to make: made once a session, by `make(directory)`, then copied."""
        if self.name not in self.session.templates:
            template = self.session.directory(f"{self.name}-template")
            make(template)
            self.session.templates[self.name] = template
        shutil.copytree(self.session.templates[self.name], target, symlinks=True)
        for path in (target, *target.rglob("*")):
            self.session.give(path)

    def must(self, result):
        if result.status != 0:
            raise ServerProblem(f"{result}\n{self.log_tail()}")
        return result
