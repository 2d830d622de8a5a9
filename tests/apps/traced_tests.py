"""Processes that somebody looks into or stops while they work: strace and gdb attached and gone again, SIGSTOP and SIGCONT."""
import re
import signal
import time
from pathlib import Path

import ways
from harness import Skip, app_test, expect_success
from lab import packages, paths
from lab.redis import Redis
from lab.server import until


def _tracer(pid):
    return int(re.search(r"^TracerPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def _expect_traceable(session):
    """The servers' account may attach to what is its own, unless the machine forbids that (Yama, seccomp)."""
    sleeper = session.start(["sleep", "100"], as_server=True)
    try:
        result = session.run(["gdb", "-q", "-nx", "-batch", "-p", sleeper.pid, "-ex", "detach"], as_server=True)
        if "ptrace: Operation not permitted" in result.text + result.errors:
            raise Skip("ptrace(2) is not permitted")
    finally:
        sleeper.kill()
        sleeper.wait()


def _under_strace(session, pid, as_server):
    trace = session.directory("strace") / "out"
    strace = session.start(["strace", "-f", "-o", trace, "-p", pid], as_server=as_server, pipe=True)
    until(lambda: trace.exists() and trace.stat().st_size > 20_000, 20, f"strace sees nothing of {pid}")
    strace.send_signal(signal.SIGINT)
    session.finish(strace, 20)
    assert _tracer(pid) == 0, f"{pid} is still traced"


def _under_gdb(session, pid, as_server):
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    result = expect_success(session.run(
        ["gdb", "-q", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", pid, "-ex", "info threads",
         "-ex", "thread apply all backtrace 3", "-ex", "detach"], as_server=as_server))
    seen = len(re.findall(r"^[* ] +\d+ +(?:Thread|LWP|process)", result.text, re.M))
    assert seen == threads, f"gdb saw {seen} threads, not {threads}: {result}"


def _stopped(pid_of):
    pid_of.send_signal(signal.SIGSTOP)
    time.sleep(0.15)
    pid_of.send_signal(signal.SIGCONT)
    time.sleep(0.05)


@app_test(*ways.KILLS)
def in_the_middle_of_a_load(session, way):
    """Server and client, one after the other; every answer before, meanwhile and afterwards is right."""
    _expect_traceable(session)
    with Redis(session, way.server) as server:
        load = [server.start_client(server.steady_load(seed, manner), way.client)
                for seed, manner in enumerate(("blocking", "timeout", "epoll"))]
        until(lambda: server.other_clients() == 2 * len(load), 20, "the clients have not connected")
        for process in (server.process, load[0], load[2]):
            same_account = process is server.process
            _under_strace(session, process.pid, same_account)
            _under_gdb(session, process.pid, same_account)
            _stopped(process)
            _under_strace(session, process.pid, same_account)
            for client in load:
                assert client.poll() is None, str(session.finish(client, 1))
        for client in load:
            client.send_signal(signal.SIGTERM)
        for client in load:
            expect_success(session.finish(client, 30))
        ways.check_server(way, server)


def _calls_of_short_connections(session, library, count):
    """How many system calls the server and the client make, Python's own included."""
    work = session.directory("short")
    script = paths.CLIENTS / "short_connections.py"
    preloaded = [f"LD_PRELOAD={library}"] if library else []

    def traced(role):
        return ["strace", "-f", "-c", "-o", work / role, "env", *preloaded, packages.PYTHON, script, role, work / "socket", count]

    server = session.start(traced("server"), pipe=True)
    until(lambda: (work / "socket").exists(), 20, "the server does not listen")
    time.sleep(0.2)
    expect_success(session.run(traced("client")))
    expect_success(session.finish(server, 20))
    return [int(re.search(r"^ *100\.00 +\S+ +\d+ +(\d+)", (work / role).read_text(), re.M)[1]) for role in ("server", "client")]


@app_test()
def short_connections_make_no_call_of_the_library(session):
    """connect, a question, an answer, close: what 200 of them cost beyond the first five is the same with the library and without.

    The least of three runs: a busy machine adds a call here and there."""
    library = session.shunt.parent.parent / "lib" / "libshunt.so"
    per_connection = {}
    for how in (None, library):
        few, many = ([min(ends) for ends in zip(*(_calls_of_short_connections(session, how, count) for _ in range(3)))] for count in (5, 205))
        per_connection[how] = [more - less for less, more in zip(few, many)]
    for end, plain, with_library in zip(("server", "client"), per_connection[None], per_connection[library]):
        assert with_library <= plain, f"the {end} makes {with_library - plain} system calls more in 200 connections"
