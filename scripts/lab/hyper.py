"""HyPer, Tableau's database server: the Python package `tableauhyperapi` carries it and talks to it over a unix socket.

The client program starts the server itself, so both are in one command and one report file.
"""
import functools
import subprocess
import sys

from . import paths, preload


class CannotHave(Exception):
    """The package could not be installed; the text says why."""


def python():
    """A Python that has the package, in an environment below the build directory."""
    program, trouble = _installed()
    if trouble:
        raise CannotHave(f"the Python package tableauhyperapi cannot be installed: {trouble}")
    return program


@functools.cache
def _installed():
    """(program, what went wrong); tried once."""
    program = paths.HYPER_VENV / "bin" / "python3"
    if _works(program):
        return program, ""
    paths.BUILD.mkdir(exist_ok=True)
    for command in ([sys.executable, "-m", "venv", "--clear", paths.HYPER_VENV],
                    [program, "-m", "pip", "install", "--quiet", "tableauhyperapi"]):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as problem:
            return program, str(problem)
        if done.returncode != 0:
            return program, (done.stdout.strip().splitlines()[-1:] or [f"status {done.returncode}"])[0]
    return program, "" if _works(program) else "it was installed, but does not load"


def _works(program):
    try:
        return subprocess.run([program, "-c", "import tableauhyperapi"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except OSError:  # not made yet, or made by another user
        return False


class Hyper:
    """One directory in which client programs run, each with a server of its own."""

    needs = ("hyper",)
    only_server = preload.Preload(only="hyperd*")
    only_client = preload.Preload(only="python*")

    def __init__(self, session):
        self.session = session
        self.dir = session.directory("hyper")
        self.report_file = self.dir / "report"
        self.python = python()

    def arguments(self, verb, *words):
        return [self.python, paths.CLIENTS / "hyper_session.py", verb, "--dir", self.dir, *map(str, words)]

    def run(self, verb, *words, how=preload.KERNEL, timeout=90):
        return self.session.run(self.arguments(verb, *words), timeout=timeout, how=how, report=self.report_file, cwd=self.dir)

    def start(self, verb, *words, how=preload.KERNEL):
        return self.session.start(self.arguments(verb, *words), how=how, report=self.report_file, cwd=self.dir, pipe=True)

    def version(self):
        return self.session.run([self.python, "-c", "import tableauhyperapi as t; print(t.__version__)"]).text.strip()

    def server_report(self):
        return preload.Report(self.report_file, "hyperd")

    def client_report(self):
        return preload.Report(self.report_file, "python")
