"""Servers in which connections lead unusual lives: passed between processes, inherited by programs, closed under the threads that use them."""
import shutil
from multiprocessing.connection import Client

from . import compiled, packages, paths
from .clients import processes
from .event_loops import Accepting


class Processes(Accepting):
    """processes_server.py, whose children are made by `method`."""
    name = "processes"

    def __init__(self, session, how, method):
        super().__init__(session, how)
        self.method = method

    def command(self):
        return [packages.PYTHON, paths.CLIENTS / "processes_server.py", self.method, self.socket]

    def ask_to_stop(self):
        """Not by a signal: Python runs no handler for one that comes just before it waits in accept()."""
        with Client(str(self.socket), "AF_UNIX", authkey=processes.KEY) as connection:
            connection.send(processes.END)


class NodeCluster(Accepting):
    """cluster_server.js; `policy` says who accepts."""
    name = "cluster"

    def __init__(self, session, how, policy):
        super().__init__(session, how)
        self.policy = policy

    def command(self):
        return ["node", paths.CLIENTS / "cluster_server.js", self.policy, self.socket]

    def answers(self):
        return self.log.read_text().count("listening\n") == 2

    def connections(self):
        """Of each worker; they tell at the end."""
        return [int(line.split()[1]) for line in self.log.read_text().splitlines() if line.startswith("had ")]


class Evictions(Accepting):
    """Evictions.java: threads that other threads put out of their calls."""
    name = "evictions"
    good_status = 143

    def prepare(self):
        self.words = compiled.java(self.session, "Evictions")

    def command(self):
        return [*self.words, "serve", self.socket]

    def check_arguments(self, lanes, rounds):
        return [*self.words, "check", self.socket, lanes, rounds]


class Runtime(Accepting):
    """A server program of ours in a runtime that was fetched. `words`: what comes before the socket, `after` behind it."""
    name = "runtime"

    def __init__(self, session, how, *words, after=()):
        super().__init__(session, how)
        self.words, self.after = words, after

    def command(self):
        return [*self.words, self.socket, *self.after]


def preloading(library, first):
    """Words in front of a command: `library` is preloaded too, before or after what is preloaded already."""
    joined = "$0${LD_PRELOAD:+:$LD_PRELOAD}" if first else "${LD_PRELOAD:+$LD_PRELOAD:}$0"
    return [shutil.which("sh"), "-c", f'LD_PRELOAD="{joined}" exec "$@"', library]
