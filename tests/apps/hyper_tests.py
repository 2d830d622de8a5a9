"""HyPer: the client library starts the server, so the two are aware together, or one is left out by its name."""
import time

import os
import signal

import ways
from harness import Skip, app_test, expect_success
from lab import hyper
from lab.preload import AUTO, EAGER, KERNEL, chaos
from ways import Way

ONLY_SERVER = Way("only server", hyper.Hyper.only_server, KERNEL)
ONLY_CLIENT = Way("only client", KERNEL, hyper.Hyper.only_client)
CHAOS = Way("chaos 1", chaos(1), chaos(1))
CHAOS_AGAIN = Way("chaos 5", chaos(5), chaos(5))
ALL = (ways.NEITHER, ONLY_SERVER, ONLY_CLIENT, ways.BOTH, ways.EAGERLY, CHAOS, CHAOS_AGAIN)
KILLS = (ways.NEITHER, ways.BOTH, CHAOS)


def _hyper(session):
    try:
        return hyper.Hyper(session)
    except hyper.CannotHave as reason:
        raise Skip(str(reason)) from None


def _how(way):
    """One command runs both ends."""
    return way.server or way.client


@app_test(*ALL)
def answers(session, way):
    """Statements, bulk loading, errors, cancelling, and a second session."""
    home = _hyper(session)
    expect_success(home.run("verify", how=_how(way)))
    ways.check_reports(way, home.server_report(), home.client_report())


def _start_load(home, way):
    client = home.start("hold", how=_how(way))
    line = client.stdout.readline().decode().split()
    assert line[:1] == ["server"], f"the client did not come to its load: {line} {home.session.finish(client, 5)}"
    time.sleep(0.3)
    return client, int(line[1])


@app_test(*KILLS)
def client_killed(session, way):
    """The server has no reason to go on, and ends itself."""
    home = _hyper(session)
    client, server = _start_load(home, way)
    client.kill()
    session.finish(client, 10)
    deadline = time.monotonic() + 20
    while _alive(server):
        assert time.monotonic() < deadline, "the server outlives its client"
        time.sleep(0.05)


@app_test(*KILLS)
def server_killed(session, way):
    """The client gets an error and ends."""
    home = _hyper(session)
    client, server = _start_load(home, way)
    os.kill(server, signal.SIGKILL)
    result = session.finish(client, 20)
    assert result.status == 3 and "ended: " in result.text, str(result)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
