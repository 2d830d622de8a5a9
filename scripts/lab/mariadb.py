"""MariaDB on a unix socket, with a data directory of its own."""
import re
import shutil

from .packages import program_path
from .server import Server, ServerProblem


class MariaDB(Server):
    name = "mariadb"
    needs = ("mariadb",)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.data = self.dir / "data"

    def prepare(self):
        if not self.data.exists():
            self.copy_template(self.data, self._make_data)

    def _make_data(self, directory):
        self.must(self.session.run(["mariadb-install-db", "--no-defaults", f"--datadir={directory}", "--skip-test-db",
                                    "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M"],
                                   as_server=True, timeout=180))

    def command(self):
        return [shutil.which("mariadbd", path=program_path()), "--no-defaults", f"--datadir={self.data}",
                f"--socket={self.socket}", "--skip-networking", f"--pid-file={self.dir}/pid", f"--tmpdir={self.dir}",
                "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0",
                "--max-allowed-packet=64M", "--local-infile=1", "--skip-log-bin", "--character-set-server=utf8mb4"]

    def answers(self):
        return self.socket.exists() and self.session.run(self.mariadb("-e", "select 1")).status == 0

    def mariadb(self, *words):
        """The client without configuration files: rows with tabs, no names, raw values."""
        return ["mariadb", "--no-defaults", "-u", "root", f"--socket={self.socket}", "--batch", "--skip-column-names", "--raw",
                "--max-allowed-packet=64M", "--local-infile=1", *words]

    def dump(self, *words):
        return ["mariadb-dump", "--no-defaults", "-u", "root", f"--socket={self.socket}", "--skip-comments", *words]

    def slap(self, *words):
        return ["mariadb-slap", "--no-defaults", "-u", "root", f"--socket={self.socket}", *words]

    def sysbench(self, script, *words):
        verb = words[-1]
        return ["sysbench", script, "--db-driver=mysql", f"--mysql-socket={self.socket}", "--mysql-user=root",
                "--mysql-db=load", *words[:-1], verb]

    def ask(self, query):
        """One query from a client without Shunt."""
        return self.must(self.session.run(self.mariadb("-e", query))).text.strip()

    def sessions(self):
        """Connections that serve clients, but for the one that asks."""
        rows = self.ask("select id from information_schema.processlist where id <> connection_id() and user = 'root'")
        return [int(row) for row in rows.split()]

    def title(self):
        return f"MariaDB {self.ask('select version()').split('-')[0]}"


def rate(result, threads):
    """(queries each second, mean latency in µs) of a sysbench run; sysbench itself prints latencies in steps of 10 µs."""
    queries = re.search(r"queries: +\d+ +\(([\d.]+) per sec", result.text)
    if result.status != 0 or not queries:
        raise ServerProblem(f"sysbench: {result}")
    return float(queries[1]), threads * 1e6 / float(queries[1])
