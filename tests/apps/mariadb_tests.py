"""MariaDB: random questions with known answers, bulk loading, dumps, sysbench, mariadb-slap, cancelling, crashes."""
import random
import time

import ways
from harness import app_test, expect_success
from lab.mariadb import MariaDB
from lab.sql_script import first_difference, random_rows, random_script


def _expect_output(result, expected):
    expect_success(result)
    difference = first_difference(result.out, expected)
    assert not difference, f"{difference}\n{result.errors[-500:]}"


def _expect_answers(server, how, seed, statements=150):
    script, answers = random_script(seed, statements)
    _expect_output(server.client(server.mariadb(), how, input=script), answers)


@app_test(*ways.ALL)
def answers(session, way):
    script, expected = random_script(1, 600, largest=400_000)
    script += b"select repeat('0123456789abcdef', 262144);\n"
    expected += b"0123456789abcdef" * 262144 + b"\n"
    with MariaDB(session, way.server) as server:
        _expect_output(server.client(server.mariadb(), way.client, input=script), expected)
        ways.check_server(way, server)


@app_test(*ways.SEEDS[:6])
def answers_by_seed(session, way):
    with MariaDB(session, way.server) as server:
        for seed in range(10):
            _expect_answers(server, way.client, seed, 80)
        ways.check_server(way, server)


@app_test(*ways.ALL)
def errors(session, way):
    """The session goes on after each error, and the errors are the right ones."""
    script = "".join(f"select * from nothing{n};\nselect {n};\nselct {n};\n" for n in range(100))
    with MariaDB(session, way.server) as server:
        result = server.client(server.mariadb("--force", "mysql"), way.client, input=script.encode())
        assert result.text == "".join(f"{n}\n" for n in range(100)), str(result)
        codes = [line.split()[1] for line in result.errors.splitlines() if line.startswith("ERROR ")]
        assert codes == ["1146", "1064"] * 100, f"errors differ: {result.errors[:500]}"
        ways.check_server(way, server)


@app_test(*ways.ALL)
def bulk_in_and_out(session, way):
    rows = random_rows(2, 60_000)  # about 4 MB
    source = session.directory("bulk") / "in"
    source.write_bytes(rows)
    script = (f"create database bulk; use bulk; create table t (id int primary key, word text character set ascii);\n"
              f"load data local infile '{source}' into table t fields terminated by ',';\n"
              "select * from t order by id;\n")
    with MariaDB(session, way.server) as server:
        _expect_output(server.client(server.mariadb(), way.client, input=script.encode()), rows.replace(b",", b"\t"))
        dump = expect_success(server.client(server.dump("--skip-extended-insert", "--no-create-info", "bulk"), way.client))
        inserted = [line for line in dump.out.splitlines() if line.startswith(b"INSERT INTO")]
        expected = [b"INSERT INTO `t` VALUES (%s,'%s');" % tuple(line.split(b",")) for line in rows.splitlines()]
        assert inserted == expected, f"the dump has {len(inserted)} rows, or other ones"
        ways.check_server(way, server)


@app_test(*ways.ALL)
def load_generators(session, way):
    with MariaDB(session, way.server) as server:
        server.ask("create database `load`")
        tables = ("--tables=2", "--table-size=1000")
        expect_success(server.client(server.sysbench("oltp_read_write", *tables, "prepare"), way.client))
        result = expect_success(server.client(
            server.sysbench("oltp_read_write", *tables, "--threads=4", "--events=200", "--time=0", "run"), way.client))
        assert "transactions:                        200" in result.text, str(result)
        expect_success(server.client(
            server.sysbench("oltp_point_select", *tables, "--threads=8", "--events=4000", "--time=0", "run"), way.client))
        counts = server.ask("select count(*) from `load`.sbtest1; select count(*) from `load`.sbtest2").split()
        assert counts == ["1000", "1000"], f"rows came or went: {counts}"
        expect_success(server.client(
            server.slap("--auto-generate-sql", "--concurrency=8", "--number-of-queries=1000", "--auto-generate-sql-load-type=mixed"),
            way.client))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def cancelling(session, way):
    """KILL QUERY from another connection, and a statement that takes too long."""
    with MariaDB(session, way.server) as server:
        _expect_answers(server, way.client, 3)
        client = server.start_client(server.mariadb("-e", "select sleep(50) from mysql.user"), way.client)
        deadline = time.monotonic() + 10
        while not (sleeping := server.ask("select id from information_schema.processlist where state = 'User sleep'")):
            assert time.monotonic() < deadline, "the client has not come to its question"
        server.ask(f"kill query {sleeping}")
        result = session.finish(client, 10)
        assert result.status == 1 and "ERROR 1317" in result.errors, str(result)
        slow = "set statement max_statement_time = 0.3 for select sleep(50) from mysql.user"
        result = server.client(server.mariadb("-e", slow), way.client)
        assert result.status == 1 and "ERROR 1969" in result.errors, str(result)
        ways.check_server(way, server)


def _start_load(session, server, how):
    server.ask("create database if not exists `load`")
    if not server.ask("show tables from `load`"):
        expect_success(server.client(server.sysbench("oltp_point_select", "--table-size=1000", "prepare"), how))
    load = server.start_client(server.sysbench("oltp_point_select", "--table-size=1000", "--threads=4", "--time=60", "run"), how)
    deadline = time.monotonic() + 20
    while len(server.sessions()) < 4:
        assert time.monotonic() < deadline and load.poll() is None, f"sysbench has not connected: {session.finish(load, 1)}"
    time.sleep(random.Random(1).uniform(0.3, 0.5))
    return load


@app_test(*ways.KILLS)
def client_killed(session, way):
    with MariaDB(session, way.server) as server:
        for turn in range(3):
            load = _start_load(session, server, way.client)
            load.kill()
            session.finish(load, 10)
            deadline = time.monotonic() + 10
            while server.sessions():
                assert time.monotonic() < deadline, "sessions of the killed client remain"
            _expect_answers(server, way.client, turn)
        ways.check_server(way, server)


@app_test(*ways.KILLS)
def server_killed(session, way):
    with MariaDB(session, way.server) as server:
        load = _start_load(session, server, way.client)
        asleep = server.start_client(server.mariadb("-e", "select sleep(50)"), way.client)
        time.sleep(0.3)
        server.kill()
        result = session.finish(load, 20)
        assert result.status == 1 and ("2013" in result.text + result.errors or "2006" in result.text + result.errors), str(result)
        result = session.finish(asleep, 20)
        assert result.status == 1 and "ERROR 2013" in result.errors, str(result)
        server.start()
        _expect_answers(server, way.client, 6)
        ways.check_server(way, server)
