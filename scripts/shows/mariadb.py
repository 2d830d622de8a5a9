"""MariaDB, driven by sysbench."""
from lab.mariadb import MariaDB, rate
from lab.server import ServerProblem
from lab.sql_script import first_difference, random_script

from . import pairs
from .table import Row

NEEDS = ("mariadb",)
TABLE = ("--tables=1", "--table-size=10000")


class _Prepared(MariaDB):
    """A server with sysbench's table in it."""

    def start(self):
        super().start()
        self.ask("create database if not exists `load`")
        self.must(self.client(self.sysbench("oltp_point_select", *TABLE, "prepare")))
        return self


def show(session, count):
    rows = [Row("select by key, 1 client"), Row("select by key, 10 clients")]
    return pairs.run(session, lambda how: _Prepared(session, how), rows, _measure, _check, count, "sysbench oltp_point_select (queries/s)")


def _measure(server, how):
    return [rate(server.client(server.sysbench("oltp_point_select", *TABLE, f"--threads={clients}", "--time=3", "run"), how), clients)
            for clients in (1, 10)]


def _check(server, how):
    script, answers = random_script(1, 1000)
    result = server.must(server.client(server.mariadb(), how, input=script))
    if result.out != answers:
        raise ServerProblem(f"wrong answer: {first_difference(result.out, answers)}")
    return "1000 answers right"
