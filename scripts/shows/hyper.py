"""HyPer, asked through its own client library; the client starts its server, so one command holds both ends."""
from lab.hyper import Hyper
from lab.preload import AUTO, KERNEL
from lab.server import ServerProblem

from .table import Row, Shown, ends, progress

NEEDS = ("hyper",)


def show(session, count):
    row, home = Row("select n + 1, 1 client"), Hyper(session)
    for pair in range(1, count + 1):
        row.kernel.append(_measure(home, KERNEL))
        row.shunt.append(_measure(home, AUTO))
        progress("hyper", pair, count, row)
    answers = _must(home.run("verify", how=AUTO)).text.strip()
    proof, wrong = ends(home.server_report(), home.client_report())
    title = f"HyPer (tableauhyperapi {home.version()}), its Python client (queries/s)"
    return Shown(title, [row], [*proof, f"answers compared under Shunt: {answers}, and every one above"], wrong)


def _must(result):
    if result.status != 0:
        raise ServerProblem(str(result))
    return result


def _measure(home, how):
    words = _must(home.run("rate", how=how)).text.split()
    return float(words[0]), float(words[2])
