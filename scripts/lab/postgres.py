"""PostgreSQL on a unix socket, in a cluster of its own."""
import re
import signal
import subprocess

from .packages import postgres_programs
from .server import Server, ServerProblem


class Postgres(Server):
    name = "postgres"
    needs = ("postgres",)
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then itself

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.programs = postgres_programs()
        self.data = self.dir / "data"

    def prepare(self):
        if not self.data.exists():
            self.copy_template(self.data, self._make_cluster)
            self.data.chmod(0o700)

    def _make_cluster(self, directory):
        self.must(self.session.run([self.programs / "initdb", "-D", directory, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                                    "--locale=C.UTF-8", "--no-sync"], as_server=True, timeout=120))

    def command(self):
        settings = dict(listen_addresses="", unix_socket_directories=self.dir, fsync="off", shared_buffers="64MB",
                        max_connections="50", dynamic_shared_memory_type="mmap", autovacuum="off", log_timezone="UTC")
        return [self.programs / "postgres", "-D", self.data,
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}"))]

    def answers(self):
        return self.session.run([self.programs / "pg_isready", "-q", "-h", self.dir, "-U", "postgres"]).status == 0

    def psql(self, *words):
        """psql without startup file: plain rows, `|` between columns, errors in one line."""
        return [self.programs / "psql", "-X", "-q", "-A", "-t", "-v", "VERBOSITY=terse", "-h", self.dir, "-U", "postgres",
                "-d", "postgres", *words]

    def pgbench(self, *words):
        return [self.programs / "pgbench", "-h", self.dir, "-U", "postgres", *words, "postgres"]

    def ask(self, query):
        """One query from a client without Shunt."""
        return self.must(self.session.run(self.psql("-c", query))).text.strip()

    def backends(self):
        """Pids of the sessions that serve clients, but for the one that asks."""
        rows = self.ask("select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")
        return [int(row) for row in rows.split()]

    def discard(self):
        super().discard()
        self._remove_memory()

    def _remove_memory(self):
        """A killed postmaster leaves a System V segment; its number is in the lock file that it also leaves."""
        lock = self.data / "postmaster.pid"
        if lock.exists():
            words = lock.read_text().splitlines()
            if len(words) > 6 and words[6].split():
                subprocess.run(["ipcrm", "-m", words[6].split()[1]], stderr=subprocess.DEVNULL)

    def title(self):
        return f"PostgreSQL {self.ask('show server_version').split()[0]}"


def rate(result):
    """(transactions each second, mean latency in µs) from what pgbench printed."""
    tps = re.search(r"tps = ([\d.]+)", result.text)
    latency = re.search(r"latency average = ([\d.]+) ms", result.text)
    if result.status != 0 or not tps or not latency:
        raise ServerProblem(f"pgbench: {result}")
    return float(tps[1]), float(latency[1]) * 1000
