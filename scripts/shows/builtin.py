"""The project's own pair of programs: needs no server. See bench/README.md."""
import json
import os

from lab import paths
from lab.server import ServerProblem

from .table import Row, Shown

NEEDS = ()
MEGABYTE = 1e6


def show(session, count):
    place = ["--cpus", ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))] if len(os.sched_getaffinity(0)) > 1 else []
    rows, runs, wrong = [], [], []

    def measure(what, factor, *words):
        print(f"builtin   {count} pairs of {what} ...", flush=True)
        result = session.run([paths.BENCH, "--json", "--pairs", str(count), *place, *words], timeout=600)
        if result.status not in (0, 3):
            raise ServerProblem(str(result))
        if result.status == 3:
            wrong.append(f"{what}: not upgraded on both ends")
        found = json.loads(result.text[result.text.index("{"):])
        rows.append(Row(what, *([factor(run) for run in found[side]["runs"]] for side in ("kernel", "shunt"))))
        runs.extend(found["shunt"]["runs"])

    def round_trip(run):
        return run["messages_per_s"], run["median_ns"] / 1000

    def bulk(run):
        return run["bytes_per_s"] / MEGABYTE, 0

    measure("round trips of 8 bytes (/s)", round_trip, "pingpong", "--size", "8", "--count", "50000")
    measure("round trips of 4 KiB (/s)", round_trip, "pingpong", "--size", "4096", "--count", "20000")
    # The server writes once, at the start, and only a write can carry the offer: so it must be made at once.
    measure("writes of 1 KiB (MB/s)", bulk, "--upgrade", "eager", "oneway", "--size", "1024", "--seconds", "1")
    measure("writes of 64 KiB (MB/s)", bulk, "--upgrade", "eager", "oneway", "--size", "65536", "--seconds", "1")
    accelerated = list(runs)
    measure("connect, ask, close (/s)", round_trip, "cycles", "--count", "3000")
    proof = [f"{end}: {sum(run[end]['upgraded'] for run in accelerated)} connections upgraded, "
             f"{sum(run[end]['ring_bytes'] for run in accelerated) / MEGABYTE:,.0f} MB through rings" for end in ("server", "client")]
    return Shown("Two small programs" + (", each on a CPU of its own" if place else ", on one CPU"), rows, proof, wrong)
