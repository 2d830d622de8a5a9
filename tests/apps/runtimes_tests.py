"""Runtimes in which connections lead unusual lives: Java, Node's cluster, Python's processes, socat, libuv's ring; and other preloaded libraries."""
from pathlib import Path

import ways
from harness import Skip, app_test, expect_success
from lab import packages, paths, versions
from lab.event_loops import Echo, Memcached
from lab.postgres import Postgres
from lab.redis import Redis
from lab.runtimes import Evictions, NodeCluster, Processes, Runtime, preloading


def _client(program, *words):
    return [packages.PYTHON, paths.CLIENTS / f"{program}.py", *words]


@app_test(*ways.FEW)
def java_evictions(session, way):
    """Threads in read and write whose channel is closed under them, or who are interrupted, at either end."""
    with Evictions(session, way.server) as server:
        result = server.client(server.check_arguments(10, 50), way.client)
        server.stop()
        assert result.text == "500 rounds, 0 problems\n" and result.status == 0 and not server.log_tail(), f"{result}\n{server.log_tail()}"
        ways.check_server(way, server)


def _expect_processes(session, way, method, *words):
    with Processes(session, way.server, method) as server:
        expect_success(server.client(_client("processes_check", method, server.socket, *words), way.client))
        ways.check_server(way, server)
        assert server.report().demoted > 0 or not way.accelerated, f"no connection of the server went anywhere: {server.report()}"


def _expect_multiprocessing(session, way, method):
    _expect_processes(session, way, method, "stay", "new_process", "running_process", "--children")


@app_test(*ways.ALL)
def multiprocessing_fork(session, way):
    _expect_multiprocessing(session, way, "fork")


@app_test(*ways.FEW)
def multiprocessing_spawn(session, way):
    _expect_multiprocessing(session, way, "spawn")


@app_test(*ways.FEW)
def multiprocessing_forkserver(session, way):
    _expect_multiprocessing(session, way, "forkserver")


@app_test(*ways.ALL)
def subprocess(session, way):
    """A connection becomes another program's standard input and output, or one of its descriptors; or stays, beside programs that close it."""
    _expect_processes(session, way, "fork", "cat", "socat", "inherited_number", "stay_beside_programs")


@app_test(*ways.ALL)
def socat_exec(session, way):
    """The program that socat executes has the connection itself, as its standard input and output: never accelerated."""
    with Echo(session, way.server, "socat ,nofork") as server:
        expect_success(server.client(_client("echo_check", "asyncio", server.socket), way.client))
        server.stop()
        _expect_kernel(way, server)


def _expect_kernel(way, server):
    for end, how, report in (("server", way.server, server.report()), ("client", way.client, server.client_report())):
        assert bool(report.lines) == (how is not ways.KERNEL), f"the {end}: {report}"
        assert report.ring_bytes == 0, f"the {end} used a ring: {report}"


@app_test(*ways.ALL)
def node_cluster(session, way):
    """Two workers accept from one socket."""
    with NodeCluster(session, way.server, "none") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket), way.client))
        ways.check_server(way, server)
        assert sum(server.connections()) == 20, server.log_tail()


@app_test(*ways.FEW)
def node_cluster_round_robin(session, way):
    """The primary accepts and passes each connection to a worker (SCM_RIGHTS): never accelerated."""
    with NodeCluster(session, way.server, "rr") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket), way.client))
        server.stop()
        _expect_kernel(way, server)
        assert sum(server.connections()) == 20 and 0 not in server.connections(), server.log_tail()
        if way.accelerated:
            assert server.report().plain.get("passed-descriptor") == 20, str(server.report())


# ---- libuv since 1.51 batches its epoll_ctl calls through an io_uring

def _node(session, version):
    try:
        return versions.node(session, version)
    except versions.CannotHave as reason:
        raise Skip(str(reason)) from None


def _uvloop(session):
    try:
        return versions.python(session, "uvloop", "asyncpg", "redis")
    except versions.CannotHave as reason:
        raise Skip(str(reason)) from None


def _expect_answers(result):
    expect_success(result)
    assert result.text.endswith(" answers right\n"), str(result)


def _expect_watched(way, server):
    ways.check_server(way, server)
    for report in (server.report(), server.client_report()):
        assert not report.plain.get("io-uring"), f"libuv's ring kept connections on the kernel: {report}"


def _expect_node(session, way, version, before=()):
    """An echo server, with a client of another kind and one of its own."""
    node = _node(session, version)
    with Runtime(session, way.server, *before, node, paths.CLIENTS / "echo_server.js") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket), way.client))
        _expect_answers(server.client([*before, node, paths.CLIENTS / "echo_check.js", server.socket], way.client))
        _expect_watched(way, server)


def _expect_node_http(session, way, version):
    node = _node(session, version)
    with Runtime(session, way.server, node, paths.CLIENTS / "http_server.js") as server:
        _expect_answers(server.client([node, paths.CLIENTS / "http_check.js", server.socket], way.client))
        _expect_watched(way, server)


@app_test(*ways.ALL)
def node_22(session, way):
    _expect_node(session, way, 22)


@app_test(*ways.ALL)
def node_24(session, way):
    _expect_node(session, way, 24)


@app_test(*ways.ALL)
def node_22_http(session, way):
    _expect_node_http(session, way, 22)


@app_test(*ways.ALL)
def node_24_http(session, way):
    _expect_node_http(session, way, 24)


@app_test(*ways.FEW)
def node_24_without_ring(session, way):
    _expect_node(session, way, 24, ["env", "UV_USE_IO_URING=0"])


@app_test(*ways.ALL)
def uvloop_echo(session, way):
    python = _uvloop(session)
    with Runtime(session, way.server, python, paths.CLIENTS / "uvloop_server.py") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket), way.client))
        _expect_answers(server.client([python, paths.CLIENTS / "uvloop_check.py", "echo", server.socket], way.client))
        _expect_watched(way, server)


@app_test(*ways.ALL)
def uvloop_protocol(session, way):
    python = _uvloop(session)
    with Runtime(session, way.server, python, paths.CLIENTS / "uvloop_server.py", after=["protocol"]) as server:
        expect_success(server.client(_client("echo_check", "asyncio", server.socket), way.client))
        _expect_watched(way, server)


@app_test(*ways.ALL)
def uvloop_asyncpg(session, way):
    python = _uvloop(session)
    with Postgres(session, way.server) as server:
        _expect_answers(server.client([python, paths.CLIENTS / "uvloop_check.py", "postgres", server.dir], way.client))
        _expect_watched(way, server)


@app_test(*ways.ALL)
def uvloop_redis(session, way):
    python = _uvloop(session)
    with Redis(session, way.server) as server:
        _expect_answers(server.client([python, paths.CLIENTS / "uvloop_check.py", "redis", server.socket, "--count", "1000"], way.client))
        _expect_watched(way, server)


@app_test(*ways.ALL)
def uvloop_redis_order(session, way):
    """The server sees what was written to one connection before what was written to another afterwards."""
    python = _uvloop(session)
    with Redis(session, way.server) as server:
        _expect_answers(server.client([python, paths.CLIENTS / "uvloop_check.py", "order", server.socket, "--count", "500"], way.client))
        _expect_watched(way, server)


def _preloaded(pid):
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(line for line in environment if line.startswith("LD_PRELOAD=")).partition("=")[2].split(":")


def _expect_with_malloc(session, way, library, first):
    before = preloading(library, first)
    with Memcached(session, way.server, before) as server:
        loaded = [Path(file).name for file in _preloaded(server.process.pid)]
        wanted = [Path(library).name, *(["libshunt.so"] if way.server else [])]
        assert loaded == (wanted if first else wanted[::-1]), loaded
        assert all(name in Path(f"/proc/{server.process.pid}/maps").read_text() for name in wanted)
        expect_success(server.client([*before, *_client("memcached_check", server.socket, "--rounds", "30")], way.client))
        ways.check_server(way, server)


@app_test(ways.NEITHER, ways.BOTH)
def jemalloc_first(session, way):
    _expect_with_malloc(session, way, packages.JEMALLOC, first=True)


@app_test(ways.BOTH, ways.CHAOS)
def jemalloc_last(session, way):
    _expect_with_malloc(session, way, packages.JEMALLOC, first=False)


@app_test(ways.NEITHER, ways.BOTH)
def tcmalloc_first(session, way):
    _expect_with_malloc(session, way, packages.TCMALLOC, first=True)


@app_test(ways.BOTH, ways.CHAOS)
def tcmalloc_last(session, way):
    _expect_with_malloc(session, way, packages.TCMALLOC, first=False)
