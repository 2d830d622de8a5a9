"""Programs that hand descriptors on or relay: ssh with a control master, a message bus, socat in a chain."""
import random
from collections import namedtuple

import ways
from harness import app_test, expect_success
from lab import packages, paths
from lab.daemons import MessageBus, Relay, Ssh
from lab.event_loops import Echo
from lab.preload import AUTO, KERNEL, chaos
from lab.sql_script import first_difference


def _client(program, *words):
    return [packages.PYTHON, paths.CLIENTS / f"{program}.py", *words]


def _ssh(session, way):
    """(echo server behind it, master)"""
    backend = Echo(session, way.server, "epoll")
    return backend, Ssh(session, way.server, backend)


@app_test(*ways.USUAL, ways.EAGERLY)
def ssh_sessions(session, way):
    """Sessions of one master at once: those that pass their descriptors to it, and those that speak through its socket."""
    data = random.Random(22).randbytes(3_000_000)
    source = session.directory("ssh-data") / "in"
    source.write_bytes(data)
    backend, master = _ssh(session, way)
    with backend, master:
        started = []
        for words in (("host",), ("host",), ("-O", "proxy", "host"), ("-O", "proxy", "host")):
            with open(source, "rb") as stdin:
                started.append(master.start_client(master.session_of(*words, "cat"), way.client, as_server=True, stdin=stdin))
        for client in started:
            result = expect_success(session.finish(client, 60))
            difference = first_difference(result.out, data)
            assert not difference, f"{result.argv[-4:]}: {difference}"
        for words in (("host",), ("-O", "proxy", "host")):
            result = master.client(master.session_of(*words, "echo out; echo err >&2; exit 7"), way.client, as_server=True)
            assert (result.status, result.out, result.err) == (7, b"out\n", b"err\n"), str(result)
        ways.check_server(way, master)


@app_test(*ways.USUAL)
def ssh_forwards_sockets(session, way):
    """The master accepts, sshd connects: both ends of a forwarded socket are local."""
    backend, master = _ssh(session, way)
    with backend, master:
        expect_success(master.client(_client("echo_check", "epoll", master.forwarded, "--connections", "5"), way.client))
        master.stop()
        backend.stop()
        ways.check_reports(way, master.report_of("ssh"), master.client_report())
        ways.check_reports(ways.Way(way.name, way.server, way.server), backend.report(), master.report_of("sshd"))


@app_test(*ways.USUAL)
def message_bus(session, way):
    """Calls with bytes move to rings, until one with a descriptor comes; the connection that is handed on leaves its ring, too."""
    with MessageBus(session, way.server) as bus, Echo(session, way.server, "epoll") as echo:
        service = bus.start_client(_client("dbus_check", "serve", bus.address), way.client)
        assert service.stdout.readline() == b"ready\n", str(session.finish(service, 5))
        expect_success(bus.client(_client("dbus_check", "ask", bus.address, echo.socket), way.client))
        expect_success(session.finish(service, 10))
        ways.check_server(way, bus)
        if way is ways.BOTH:
            reasons = {reason for line in bus.client_report().lines for reason in line["connections"]["demoted_by"]}
            assert {"carries-descriptors", "passed-descriptor"} <= reasons, f"connections left their rings only by {reasons}"


# Who is aware, in the order in which the bytes pass: client, three relays, the server that echoes.
Chain = namedtuple("Chain", "name ends")
CHAINS = tuple(Chain(name, tuple(how if mark == "+" else KERNEL for mark in marks)) for name, marks, how in (
    ("neither", "-----", AUTO), ("all", "+++++", AUTO), ("every other", "+-+-+", AUTO), ("client and first", "++---", AUTO),
    ("middle two", "-++--", AUTO), ("last three", "--+++", AUTO), ("chaos 6", "+++++", chaos(6))))


@app_test(*CHAINS)
def socat_chain(session, chain):
    """64 MiB there and back through three relays."""
    client, first, second, third, last = chain.ends
    with (Echo(session, last, "epoll") as echo, Relay(session, third, echo.socket) as c, Relay(session, second, c.socket) as b,
          Relay(session, first, b.socket) as a):
        expect_success(a.client(_client("stream_check", a.socket), client, timeout=120))
        for server in (a, b, c, echo):
            server.stop()
        _expect_links(chain, [a.client_report(), *(server.report() for server in (a, b, c, echo))])


def _expect_links(chain, reports):
    """Bytes went through the rings of exactly those links that have two aware ends: at least nine tenths of them."""
    links = [left is not KERNEL and right is not KERNEL for left, right in zip(chain.ends, chain.ends[1:])]
    for number, (how, report) in enumerate(zip(chain.ends, reports)):
        expected = 2 * ((64 << 20) + 10_000) * sum(links[max(0, number - 1):number + 1])
        if how not in (KERNEL, AUTO):  # in chaos a ring is left at some byte
            assert report.upgraded > 0, f"program {number} upgraded no connection: {report}"
            continue
        assert 0.9 * expected <= report.ring_bytes <= expected, f"program {number}: {report}, expected {expected} bytes through rings"
