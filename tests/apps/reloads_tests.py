"""Servers that replace themselves under load: no request fails, and the old and the new processes were accelerated."""
import signal
import time

import ways
from harness import app_test, expect_success
from lab import packages, paths
from lab.reloads import NginxBeforeReloads, ReloadedPhpFpm, UpgradableNginx


def _load(server, how, *words):
    load = server.start_client([packages.PYTHON, paths.CLIENTS / "http_load.py", server.socket, *words], how)
    time.sleep(0.2)
    return load


def _finish(session, load):
    load.send_signal(signal.SIGTERM)
    result = expect_success(session.finish(load, 30))
    assert int(result.text.split()[0]) > 50, f"too few answers for a load: {result}"


def _expect_generations(way, report, *generations):
    """Each generation of processes moved bytes through rings. In chaos that is left to its dice."""
    if not way.accelerated or way in ways.CHAOTIC:
        return
    for number, pids in enumerate(generations):
        lines = [line for line in report.lines if line["pid"] in pids]
        moved = sum(line["ring"]["bytes_out"] for line in lines)
        assert moved > 0, f"generation {number} moved nothing through rings: processes {pids}, {len(lines)} of them reported"


@app_test(*ways.USUAL)
def nginx_binary(session, way):
    with UpgradableNginx(session, way.server) as server:
        load = _load(server, way.client, "/big", "--file", server.big)
        generations = []
        for _ in range(2):
            generations.append(server.upgrade())
            time.sleep(0.2)
        generations.append(server.workers())
        _finish(session, load)
        ways.check_server(way, server)
        _expect_generations(way, server.report(), *generations)


@app_test(*ways.USUAL)
def php_fpm(session, way):
    """php-fpm is the server, nginx its client."""
    with ReloadedPhpFpm(session, way.server) as backend, NginxBeforeReloads(session, way.client, backend) as server:
        load = _load(server, None, "/echo")
        generations = []
        for _ in range(2):
            generations.append(backend.reload())
            time.sleep(0.2)
        generations.append(backend.workers())
        _finish(session, load)
        server.stop()
        backend.stop()
        ways.check_reports(way, backend.report(), server.report())
        _expect_generations(way, backend.report(), *generations)
