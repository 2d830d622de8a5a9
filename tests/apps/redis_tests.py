"""Redis: every answer of random commands, its own load generator and its own command line."""
import random
import signal
import time
from pathlib import Path

import ways
from harness import app_test, expect_success
from lab.clients import resp
from lab.redis import Redis


@app_test(*ways.ALL)
def answers(session, way):
    """Values up to 4 MiB, pipelines, a second connection asleep in BLPOP, forks of the server (BGSAVE)."""
    with Redis(session, way.server) as server:
        for seed, manner in enumerate(("blocking", "timeout", "epoll")):
            expect_success(server.client(server.check_arguments(seed, 4000, "--manner", manner), way.client))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def several_clients_at_once(session, way):
    with Redis(session, way.server) as server:
        clients = [server.start_client(server.check_arguments(10 + seed, 1500, "--largest", "300000", "--manner", manner), way.client)
                   for seed, manner in enumerate(("blocking", "timeout", "epoll", "blocking", "epoll"))]
        for client in clients:
            expect_success(session.finish(client, 60))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def benchmark(session, way):
    """One client, fifty, pipelines, and two threads with an event loop each."""
    with Redis(session, way.server) as server:
        for words in (["-c", "1", "-n", "1000"], ["-c", "50", "-n", "3000"], ["-c", "20", "-n", "10000", "-P", "16"],
                      ["-c", "10", "-n", "3000", "--threads", "2", "-d", "3000"]):
            result = expect_success(server.client(
                ["redis-benchmark", "-s", server.socket, "-t", "set,get,lpush,lpop,lrange_100", "--csv", *words], way.client))
            rows = result.text.strip().splitlines()[1:]
            assert len(rows) >= 5 and all(float(row.split(",")[1].strip('"')) > 0 for row in rows), str(result)
        ways.check_server(way, server)


@app_test(*ways.ALL)
def command_line(session, way):
    """redis-cli: a script, mass insertion, and a value of 3 MB in and out."""
    with Redis(session, way.server) as server:
        cli = ["redis-cli", "-s", server.socket]

        script = "".join(f"SET k{n} v{n}\nGET k{n}\nINCR count\nLPUSH k{n} x\n" for n in range(500))
        result = expect_success(server.client(cli, way.client, input=script.encode()))
        wrong_type = "WRONGTYPE Operation against a key holding the wrong kind of value\n"
        expected = "".join(f"OK\nv{n}\n{n + 1}\n{wrong_type}" for n in range(500))
        assert result.text.replace("\n\n", "\n") == expected, f"redis-cli answered otherwise: {result}"

        mass = b"".join(resp.encode(("SET", f"m{n}", "x" * (n % 300))) for n in range(20000))
        result = expect_success(server.client([*cli, "--pipe"], way.client, input=mass))
        assert "errors: 0, replies: 20000" in result.text, str(result)

        value = random.Random(5).randbytes(3_000_000)
        expect_success(server.client([*cli, "-x", "SET", "large"], way.client, input=value))
        result = expect_success(server.client([*cli, "--raw", "GET", "large"], way.client))
        assert result.out == value + b"\n", f"a value of {len(value)} bytes came back as {len(result.out)} other ones"
        ways.check_server(way, server)


@app_test(*ways.SEEDS)
def answers_by_seed(session, way):
    """A connection leaves shared memory once in its life: many short ones, so that it happens at many places."""
    with Redis(session, way.server) as server:
        for seed, manner in enumerate(("blocking", "timeout", "epoll") * 3):
            expect_success(server.client(server.check_arguments(seed, 300, "--largest", "100000", "--manner", manner), way.client))
        ways.check_server(way, server)


def _until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: {what}"
        time.sleep(0.02)


@app_test(*ways.KILLS)
def client_killed(session, way):
    """The server notices, forgets the client and serves the next one; six times, at different moments."""
    rng = random.Random(7)
    with Redis(session, way.server) as server:
        for turn in range(6):
            manner = rng.choice(("blocking", "timeout", "epoll"))
            client = server.start_client(server.check_arguments(turn, 0, "--seconds", "60", "--manner", manner), way.client)
            _until(lambda: server.other_clients() >= 2, 10, "the client has not connected")
            time.sleep(rng.uniform(0.1, 0.4))
            client.kill()
            session.finish(client, 10)
            _until(lambda: server.other_clients() == 0, 10, "the server still holds the killed client's connections")
            expect_success(server.client(server.check_arguments(100 + turn, 300, "--manner", manner), way.client))
        ways.check_server(way, server)


def _expect_ends(session, busy, waiting):
    for client in busy:
        result = session.finish(client, 10)
        assert result.status == 3 and result.text.split()[1] in ("EOF", "ECONNRESET", "EPIPE"), str(result)
    for client in waiting:
        result = session.finish(client, 10)
        assert result.status == 1, str(result)


def _start_clients(server, how):
    """(busy ones that know what the end of a connection looks like, one asleep)"""
    busy = [server.start_client(server.check_arguments(seed, 0, "--seconds", "60", "--manner", manner), how)
            for seed, manner in enumerate(("blocking", "timeout", "epoll"))]
    return busy, server.start_client(["redis-cli", "-s", server.socket, "BLPOP", "nothing", "0"], how)


@app_test(*ways.KILLS)
def server_killed(session, way):
    """Clients, asleep or busy, see the end of the connection and end themselves."""
    with Redis(session, way.server) as server:
        busy, asleep = _start_clients(server, way.client)
        _until(lambda: server.other_clients() >= 3 * 2 + 1, 10, "the clients have not connected")
        time.sleep(0.5)
        server.kill()
        _expect_ends(session, busy, [asleep])


@app_test(*ways.KILLS)
def server_killed_with_all_waiting(session, way):
    """The same when the server has not answered for a while, so that all wait for it, and redis-benchmark among them.

    redis-benchmark ends if the end meets it reading. It takes EPIPE for EAGAIN (cliWriteConn), so it would spin for ever
    on any socket if the end met all its connections between an answer and the next request.
    """
    with Redis(session, way.server) as server:
        busy, asleep = _start_clients(server, way.client)
        loaded = server.start_client(["redis-benchmark", "-s", server.socket, "-c", "20", "-n", "100000000", "-t", "set"], way.client)
        _until(lambda: server.other_clients() >= 3 * 2 + 1 + 20, 10, "the clients have not connected")
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        _until(lambda: _sleeps(loaded.pid), 10, "redis-benchmark goes on without a server")
        server.kill()
        _expect_ends(session, busy, [asleep, loaded])


def _sleeps(pid):
    """Whether a process used no CPU for a quarter of a second: longer than redis-benchmark needs to have sent all it can."""
    def used():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    before = used()
    time.sleep(0.25)
    return used() == before


@app_test(*ways.USUAL)
def dumped_under_load_and_restarted(session, way):
    """BGSAVE forks the server again and again while clients work; a server that is killed comes back with what its last dump held."""
    rng = random.Random(31)
    known = {f"known{n}": rng.randbytes(rng.randint(1, 400)) for n in range(5000)}
    with Redis(session, way.server) as server:
        _fill(server, way.client, known)
        load = [server.start_client(server.steady_load(20 + seed, manner), way.client)
                for seed, manner in enumerate(("blocking", "timeout", "epoll"))]
        _until(lambda: server.other_clients() == 2 * len(load), 10, "the clients have not connected")
        for number in range(4):
            assert server.ask("BGSAVE").startswith(b"+Background saving started"), "the server does not save"
            _until(lambda: b"rdb_bgsave_in_progress:0" in server.ask("INFO persistence"), 20, f"save {number} does not end")
            assert b"rdb_last_bgsave_status:ok" in server.ask("INFO persistence"), f"save {number} failed"
        for client in load:
            client.send_signal(signal.SIGTERM)
        for client in load:
            expect_success(session.finish(client, 30))
        server.kill()
        server.start()
        _expect_known(server, way.client, known)
        expect_success(server.client(server.check_arguments(9, 1000, "--largest", "100000"), way.client))
        ways.check_server(way, server)


def _fill(server, how, values):
    commands = b"".join(resp.encode(("SET", key, value)) for key, value in values.items())
    result = expect_success(server.client(["redis-cli", "-s", server.socket, "--pipe"], how, input=commands))
    assert f"errors: 0, replies: {len(values)}" in result.text, str(result)


def _expect_known(server, how, values):
    """All in one command, answered in hexadecimal digits, so that a line is a value."""
    script = ("local t = {} for i, k in ipairs(KEYS) do "
              "t[i] = redis.call('get', k):gsub('.', function(c) return ('%02x'):format(c:byte()) end) end return t")
    names = list(values)
    for begin in range(0, len(names), 1000):
        part = names[begin:begin + 1000]
        result = expect_success(server.client(["redis-cli", "-s", server.socket, "--raw", "EVAL", script, str(len(part)), *part], how))
        assert result.text.split() == [values[name].hex() for name in part], f"values from {part[0]} on came back as other ones"
