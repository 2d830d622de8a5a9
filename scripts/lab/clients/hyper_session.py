"""A HyPer client that knows every answer. Run by a Python that has `tableauhyperapi`; starts the server itself.

verify: every kind of statement, each answer compared; prints `N answers right`.
rate:   one short query after the other; prints `RATE queries/s LATENCY_US median`.
hold:   prints `server PID`, then asks until the server goes away; prints `ended: ...` and status 3.
"""
import argparse
import os
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.sql_script import first_difference, random_script  # noqa: E402
from tableauhyperapi import (Connection, CreateMode, HyperException, HyperProcess, Inserter, SqlType,  # noqa: E402
                             TableDefinition, Telemetry)


def process(directory):
    return HyperProcess(Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU,
                        parameters={"log_config": "", "log_dir": str(directory), "domain_socket_dir": str(directory)})


class Wrong(Exception):
    pass


def expect(what, got, expected):
    if got != expected:
        text = (first_difference(got.encode(), expected.encode()) if isinstance(got, str) and isinstance(expected, str)
                else f"expected {expected!r}, got {got!r}")
        raise Wrong(f"{what}: {text}")


def verify_statements(connection, seed, count):
    script, answers = random_script(seed, count, largest=400_000)
    for statement, answer in zip(script.decode().splitlines(), answers.decode().splitlines()):
        if "md5(" in statement:  # HyPer has no md5; the length of the argument is as good a question
            word = statement[len("select md5('"):-len("');")]
            statement, answer = f"select length('{word}')", str(len(word))
        expect(statement[:80], str(connection.execute_scalar_query(statement.rstrip(";"))), answer)
    return count


def verify_bulk(connection, rows):
    table = TableDefinition("bulk", [TableDefinition.Column("id", SqlType.int()), TableDefinition.Column("word", SqlType.text())])
    connection.catalog.create_table(table)
    data = [[number, f"row {number} " + "abc" * (number % 50)] for number in range(rows)]
    with Inserter(connection, table) as inserter:
        inserter.add_rows(data)
        inserter.execute()
    expect("count", connection.execute_scalar_query("select count(*) from bulk"), rows)
    expect("sum", connection.execute_scalar_query("select sum(id) from bulk"), rows * (rows - 1) // 2)
    expect("all rows", connection.execute_list_query("select id, word from bulk order by id"), data)
    return 3


def verify_errors(connection):
    for statement in ("select 1/0", "select * from nothing", "selct 1"):
        try:
            connection.execute_scalar_query(statement)
        except HyperException:
            expect("after an error", connection.execute_scalar_query("select 7"), 7)
        else:
            raise Wrong(f"{statement}: no error")
    return 3


def verify_cancel(connection):
    timer = threading.Timer(0.5, connection.cancel)
    timer.start()
    started = time.monotonic()
    try:
        connection.execute_scalar_query("select count(*) from generate_series(1, 40000000000) a where a % 7 = 3")
    except HyperException:
        pass
    else:
        raise Wrong("a cancelled query ended well")
    if time.monotonic() - started > 15:
        raise Wrong("cancelling took more than 15 s")
    timer.join()
    expect("after a cancelled query", connection.execute_scalar_query("select 8"), 8)
    return 1


def verify(options):
    with process(options.dir) as hyper, \
            Connection(hyper.endpoint, str(options.dir / f"v{os.getpid()}.hyper"), CreateMode.CREATE_AND_REPLACE) as connection:
        right = verify_statements(connection, options.seed, options.count) + verify_bulk(connection, options.rows)
        right += verify_errors(connection) + verify_cancel(connection)
        with Connection(hyper.endpoint) as other:  # a second session beside the first
            right += verify_statements(other, options.seed + 1, 100)
    print(f"{right} answers right")
    return 0


def rate(options):
    with process(options.dir) as hyper, Connection(hyper.endpoint) as connection:
        for number in range(300):
            connection.execute_scalar_query(f"select {number} + 1")
        latencies, deadline = [], time.perf_counter() + options.seconds
        while (started := time.perf_counter()) < deadline:
            number = len(latencies)
            expect("sum", connection.execute_scalar_query(f"select {number} + 1"), number + 1)
            latencies.append(time.perf_counter() - started)
    print(f"{len(latencies) / sum(latencies):.0f} queries/s {statistics.median(latencies) * 1e6:.1f} median")
    return 0


def server_pid():
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return next(pid for pid in children if "hyperd" in os.readlink(f"/proc/{pid}/exe"))


def hold(options):
    hyper = process(options.dir)
    connection = Connection(hyper.endpoint)
    for number in range(500):
        connection.execute_scalar_query(f"select {number} + 1")
    print(f"server {server_pid()}", flush=True)
    try:
        while True:
            expect("sum", connection.execute_scalar_query("select 5 + 1"), 6)
    except HyperException as problem:
        print(f"ended: {str(problem).splitlines()[0]}", flush=True)
    return 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("verify", "rate", "hold"))
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    try:
        return {"verify": verify, "rate": rate, "hold": hold}[options.verb](options)
    except Wrong as wrong:
        print(f"wrong: {wrong}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
