"""The ways in which a server and its client can meet, and what their reports must say afterwards."""
import os
from dataclasses import dataclass

from lab.preload import AUTO, EAGER, KERNEL, Preload, chaos


@dataclass(frozen=True)
class Way:
    name: str
    server: Preload | None
    client: Preload | None

    @property
    def accelerated(self):
        return self.server is not KERNEL and self.client is not KERNEL

    @property
    def chaotic(self):
        return "chaos" in self.name


BOTH = Way("both", AUTO, AUTO)
EAGERLY = Way("both, eager", EAGER, EAGER)
ONLY_SERVER = Way("only server", AUTO, KERNEL)
ONLY_CLIENT = Way("only client", KERNEL, AUTO)
NEITHER = Way("neither", KERNEL, KERNEL)
CHAOS = Way("chaos 1, 2", chaos(1), chaos(2))
CHAOS_SERVER = Way("chaos 3, auto", chaos(3), AUTO)
CHAOS_CLIENT = Way("eager, chaos 4", EAGER, chaos(4))

SEEDS = tuple(Way(f"chaos {seed}, {seed + 100}", chaos(seed), chaos(seed + 100)) for seed in range(10, 22))

ALL = (NEITHER, ONLY_SERVER, ONLY_CLIENT, BOTH, EAGERLY, CHAOS, CHAOS_SERVER, CHAOS_CLIENT)
FEW = (NEITHER, ONLY_SERVER, ONLY_CLIENT, BOTH, CHAOS)
KILLS = (NEITHER, BOTH, CHAOS)
USUAL = (NEITHER, ONLY_SERVER, ONLY_CLIENT, BOTH, CHAOS)
# What is said of a connection that the dice of chaos have left alone: by themselves, or because what they split makes reads that need not wait.
LEFT_ALONE = {"chaos", "peer-asked", "peer-unaware", "no-offer", "unseen-use"}
# More seeds for the suites that take them: as for the behaviours.
ASKED = tuple(Way(f"chaos {seed}, {seed + 100}", chaos(seed), chaos(seed + 100)) for seed in map(int, os.environ.get("SHUNT_CHAOS_SEEDS", "").split()))


def check_reports(way, server, client):
    """Acceleration happened on both ends if both were aware, and on none otherwise."""
    for end, how, report in (("server", way.server, server), ("client", way.client, client)):
        if how is KERNEL:
            assert not report.lines, f"the {end} ran without Shunt, yet reported: {report}"
            continue
        assert report.lines, f"no process of the {end} reported"
        if way.accelerated:
            if way.chaotic and LEFT_ALONE & report.plain.keys():
                continue  # perhaps every connection
            assert report.upgraded > 0, f"no connection of the {end} was upgraded: {report}"
            assert report.ring_bytes > 0, f"no byte of the {end} went through a ring: {report}"
        else:
            assert report.upgraded == 0, f"the {end} upgraded without an aware peer: {report}"
            assert report.ring_bytes == 0, f"the {end} used a ring without an aware peer: {report}"


def check_behaved(way, server, client):
    """For programs that may, but need not, be accelerated: who is aware reported, and without an aware peer nobody used a ring.
    None for an end that cannot report."""
    for end, how, report in (("server", way.server, server), ("client", way.client, client)):
        if report is None:
            continue
        assert bool(report.lines) == (how is not KERNEL), f"the {end} {'reported' if report.lines else 'did not report'}: {report}"
        if not way.accelerated:
            assert (report.upgraded, report.ring_bytes) == (0, 0), f"the {end} used a ring without an aware peer: {report}"


def check_server(way, server):
    """For tests that used one server and clients that all ended by themselves. Stops the server."""
    server.stop()
    check_reports(way, server.report(), server.client_report())
