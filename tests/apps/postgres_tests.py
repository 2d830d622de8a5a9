"""PostgreSQL: random questions with known answers, COPY, parallel workers, transactions with invariants, errors, cancelling, crashes."""
import hashlib
import os
import signal
import time

import ways
from harness import app_test, expect_success
from lab.postgres import Postgres
from lab.sql_script import first_difference, random_rows, random_script


def _expect_output(result, expected):
    expect_success(result)
    difference = first_difference(result.out, expected)
    assert not difference, f"{difference}\n{result.errors[-500:]}"


def _expect_answers(server, how, seed, statements=150):
    script, answers = random_script(seed, statements)
    _expect_output(server.client(server.psql("-f", "-"), how, input=script), answers)


@app_test(*ways.ALL)
def answers(session, way):
    script, expected = random_script(1, 600, largest=400_000)
    script += b"select repeat('0123456789abcdef', 262144);\n"
    expected += b"0123456789abcdef" * 262144 + b"\n"
    with Postgres(session, way.server) as server:
        _expect_output(server.client(server.psql("-f", "-"), way.client, input=script), expected)
        ways.check_server(way, server)


@app_test(*ways.SEEDS)
def answers_by_seed(session, way):
    with Postgres(session, way.server) as server:
        for seed in range(6):
            _expect_answers(server, way.client, seed, 80)
        expect_success(server.client(server.pgbench("-i", "-q"), way.client))
        expect_success(server.client(server.pgbench("-n", "-S", "-C", "-c", "4", "-t", "20"), way.client))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def errors(session, way):
    """The session goes on after each error, and the errors are the right ones."""
    script = "".join(f"select 1/0;\nselect {n};\nselct {n};\nselect * from nothing{n};\n" for n in range(100))
    with Postgres(session, way.server) as server:
        result = expect_success(server.client(server.psql("-f", "-"), way.client, input=script.encode()))
        assert result.text == "".join(f"{n}\n" for n in range(100)), str(result)
        seen = [line.partition("ERROR:  ")[2] for line in result.errors.splitlines() if "ERROR:  " in line]
        wanted = [text for n in range(100) for text in (
            "division by zero", 'syntax error at or near "selct" at character 1', f'relation "nothing{n}" does not exist at character 15')]
        assert seen == wanted, f"errors differ: {seen[:4]}\n{result.errors[:500]}"
        ways.check_server(way, server)


@app_test(*ways.ALL)
def copy_in_and_out(session, way):
    rows = random_rows(2, 60_000)  # about 4 MB
    source, target = session.directory("copy") / "in", session.directory("copy") / "out"
    source.write_bytes(rows)
    script = (f"create table t (id int primary key, word text);\n\\copy t from '{source}' csv\n"
              f"\\copy (select * from t order by id) to '{target}' csv\n"
              "select count(*), sum(id) from t;\ncopy (select * from t order by id desc limit 3) to stdout;\n")
    backwards = b"".join(line.replace(b",", b"\t") + b"\n" for line in reversed(rows.splitlines()[-3:]))
    with Postgres(session, way.server) as server:
        result = server.client(server.psql("-f", "-"), way.client, input=script.encode())
        _expect_output(result, b"60000|%d\n" % (60_000 * 59_999 // 2) + backwards)
        difference = first_difference(target.read_bytes(), rows)
        assert not difference, f"what was copied out is not what was copied in: {difference}"
        ways.check_server(way, server)


@app_test(*ways.USUAL)
def copy_with_programs(session, way):
    """Programs that a backend and psql start, in the middle of a session: the backend's inherits its connection, which leaves its ring."""
    rows = random_rows(6, 20_000)
    folder = session.directory("programs")
    source = folder / "in"
    source.write_bytes(rows)
    digest = hashlib.sha256(rows).hexdigest()
    echo = "select repeat('0123456789', 30000);\n" * 3
    script = (f"create table t (id int primary key, word text);\n{echo}copy t from program 'cat {source}' csv;\n{echo}"
              f"copy (select * from t order by id) to program 'cat > {folder}/served' csv;\n{echo}"
              f"\\copy (select * from t order by id) to program 'sha256sum' csv\n"
              f"create table u (like t);\n\\copy u from program 'cat {source}' csv\n{echo}"
              "copy t from program 'exit 3';\nselect count(*) from t natural join u;\n")
    answer = b"0123456789" * 30000 + b"\n"
    expected = 9 * answer + f"{digest}  -\n".encode() + 3 * answer + b"20000\n"
    with Postgres(session, way.server) as server:
        result = server.client(server.psql("-f", "-"), way.client, input=script.encode())
        _expect_output(result, expected)
        assert 'ERROR:  program "exit 3" failed' in result.errors, str(result)
        difference = first_difference((folder / "served").read_bytes(), rows)
        assert not difference, f"what the backend's program got is not what was copied in: {difference}"
        ways.check_server(way, server)
        if way is ways.BOTH:
            reasons = {reason for line in server.report().lines for reason in line["connections"]["demoted_by"]}
            assert "exec-inherited" in reasons, f"the backend's connection left its ring only by {reasons}"


@app_test(*ways.USUAL)
def parallel_workers(session, way):
    """Two workers, forked by the postmaster, and the backend gather 100,000 rows; four sessions do so at once."""
    rows = 100_000
    prepare = (f"create table t as select n, md5(n::text) as word from generate_series(1, {rows}) n; analyze t;\n"
               "alter system set max_parallel_workers_per_gather = 2; alter system set parallel_setup_cost = 0;\n"
               "alter system set parallel_tuple_cost = 0; alter system set min_parallel_table_scan_size = 0;\n"
               "select pg_reload_conf();\n")
    question = "select n, word from t where n % 2 = 0 order by word, n"
    words = sorted((hashlib.md5(str(n).encode()).hexdigest(), n) for n in range(2, rows + 1, 2))
    expected = "".join(f"{n}|{word}\n" for word, n in words).encode()
    with Postgres(session, way.server) as server:
        server.must(server.client(server.psql("-f", "-"), way.client, input=prepare.encode()))
        plan = server.ask(f"explain (analyze, costs off, timing off) {question}")
        assert "Workers Launched: 2" in plan, f"not a parallel plan: {plan}"
        clients = [server.start_client(server.psql("-c", question), way.client) for _ in range(4)]
        for client in clients:
            _expect_output(session.finish(client, 60), expected)
        ways.check_server(way, server)


@app_test(*ways.ALL)
def transactions(session, way):
    """pgbench's own accounts: whatever the interleaving, all balances and the history have one sum."""
    with Postgres(session, way.server) as server:
        expect_success(server.client(server.pgbench("-i", "-q"), way.client))
        expect_success(server.client(server.pgbench("-n", "-c", "4", "-j", "2", "-t", "100"), way.client))
        expect_success(server.client(server.pgbench("-n", "-c", "4", "-j", "1", "-t", "100", "-M", "prepared"), way.client))
        expect_success(server.client(server.pgbench("-n", "-S", "-c", "10", "-j", "2", "-t", "200"), way.client))
        sums = server.ask("select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), "
                          "(select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)").split("|")
        assert len(set(sums)) == 1, f"balances differ: {sums}"
        assert server.ask("select count(*) from pgbench_history") == "800"
        ways.check_server(way, server)


@app_test(*ways.ALL)
def cancelling(session, way):
    """Ctrl-C in psql: a second connection made in the signal handler, while the first one sleeps."""
    with Postgres(session, way.server) as server:
        _expect_answers(server, way.client, 3)
        client = server.start_client(server.psql("-c", "select count(*) from generate_series(1, 3000)", "-c", "select pg_sleep(50)"),
                                     way.client)
        deadline = time.monotonic() + 10
        while server.ask("select count(*) from pg_stat_activity where wait_event = 'PgSleep'") != "1":
            assert time.monotonic() < deadline, "psql has not come to its question"
        client.send_signal(signal.SIGINT)
        result = session.finish(client, 10)
        assert result.status == 1 and "canceling statement due to user request" in result.errors, str(result)
        result = server.client(server.psql("-c", "set statement_timeout = '300ms'", "-c", "select pg_sleep(50)"), way.client)
        assert result.status == 1 and "canceling statement due to statement timeout" in result.errors, str(result)
        ways.check_server(way, server)


def _start_load(session, server, how, *words):
    load = server.start_client(server.pgbench("-n", "-S", "-c", "4", "-j", "2", "-T", "60", *words), how)
    deadline = time.monotonic() + 20
    while len(server.backends()) < 4:
        assert time.monotonic() < deadline and load.poll() is None, f"pgbench has not connected: {session.finish(load, 1)}"
    time.sleep(0.4)
    return load


@app_test(*ways.KILLS)
def client_killed(session, way):
    with Postgres(session, way.server) as server:
        expect_success(server.client(server.pgbench("-i", "-q"), way.client))
        for turn in range(3):
            load = _start_load(session, server, way.client)
            load.kill()
            session.finish(load, 10)
            deadline = time.monotonic() + 10
            while server.backends():
                assert time.monotonic() < deadline, "backends of the killed client remain"
            _expect_answers(server, way.client, turn)
        ways.check_server(way, server)


@app_test(*ways.KILLS)
def backend_killed(session, way):
    """The postmaster ends all sessions, recovers, and serves again; pgbench ends with an error."""
    with Postgres(session, way.server) as server:
        expect_success(server.client(server.pgbench("-i", "-q"), way.client))
        load = _start_load(session, server, way.client)
        os.kill(server.backends()[1], signal.SIGKILL)
        result = session.finish(load, 20)
        assert result.status == 2 and "aborted" in result.errors, str(result)
        deadline = time.monotonic() + 20
        while not server.answers():
            assert time.monotonic() < deadline, f"no recovery\n{server.log_tail()}"
        _expect_answers(server, way.client, 5)
        ways.check_server(way, server)


@app_test(*ways.KILLS)
def server_killed(session, way):
    """kill -9 of the postmaster: its sessions end, so does pgbench; the cluster starts again."""
    with Postgres(session, way.server) as server:
        expect_success(server.client(server.pgbench("-i", "-q"), way.client))
        load = _start_load(session, server, way.client)
        backends = server.backends()
        asleep = server.start_client(server.psql("-c", "select pg_sleep(50)"), way.client)
        time.sleep(0.3)
        server.kill()
        for pid in backends:  # a postmaster's sessions may live on while they are busy; the machine's crash ends them too
            os.kill(pid, signal.SIGKILL)
        result = session.finish(load, 20)
        assert result.status == 2 and "aborted" in result.errors, str(result)
        result = session.finish(asleep, 20)
        assert result.status == 2 and "server closed the connection unexpectedly" in result.errors, str(result)
        server.start()
        _expect_answers(server, way.client, 6)
        ways.check_server(way, server)
