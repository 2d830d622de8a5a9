"""Redis, driven by redis-benchmark."""
import csv
import io

from lab.redis import Redis

from . import pairs
from .table import Row

NEEDS = ("redis",)
CLIENTS = ((1, 30_000), (50, 100_000))  # how many, and how many requests they send


def show(session, count):
    rows = [Row(f"{command}, {clients} client{'s' * (clients > 1)}") for clients, _ in CLIENTS for command in ("SET", "GET")]
    return pairs.run(session, lambda how: Redis(session, how), rows, _measure, _check, count, "redis-benchmark (requests/s)")


def _measure(server, how):
    figures = []
    for clients, requests in CLIENTS:
        result = server.must(server.client(["redis-benchmark", "-s", server.socket, "-t", "set,get", "--csv", "-c", str(clients),
                                            "-n", str(requests)], how, timeout=120))
        for line in csv.DictReader(io.StringIO(result.text)):
            figures.append((float(line["rps"]), float(line["avg_latency_ms"]) * 1000))
    return figures


def _check(server, how):
    return server.must(server.client(server.check_arguments(1, 5000), how)).text.strip()
