"""PostgreSQL, driven by pgbench."""
from lab.postgres import Postgres, rate
from lab.server import ServerProblem
from lab.sql_script import first_difference, random_script

from . import pairs
from .table import Row

NEEDS = ("postgres",)


class _Prepared(Postgres):
    """A server with pgbench's tables in it."""

    def start(self):
        super().start()
        self.must(self.client(self.pgbench("-i", "-q")))
        return self


def show(session, count):
    rows = [Row("select by key, 1 client"), Row("select by key, 10 clients")]
    return pairs.run(session, lambda how: _Prepared(session, how), rows, _measure, _check, count, "pgbench -S (transactions/s)")


def _measure(server, how):
    return [rate(server.client(server.pgbench("-n", "-S", "-c", clients, "-T", "3"), how)) for clients in ("1", "10")]


def _check(server, how):
    script, answers = random_script(1, 1000)
    result = server.must(server.client(server.psql("-f", "-"), how, input=script))
    if result.out != answers:
        raise ServerProblem(f"wrong answer: {first_difference(result.out, answers)}")
    return "1000 answers right"
