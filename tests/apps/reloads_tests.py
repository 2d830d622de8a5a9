"""Servers that replace themselves under load: no request fails. Where connections last, the old and the new processes were accelerated."""
import signal

import ways
from harness import app_test, expect_success
from lab import packages, paths
from lab.reloads import NginxBeforeReloads, ReloadedPhpFpm, UpgradableNginx
from lab.server import until


class Load:
    """http_load.py. A generation has had its share when it has answered some of it, however long that takes."""

    def __init__(self, server, how, *words):
        self.tally = server.dir / "tally"
        self.tally.touch()
        self.process = server.start_client([packages.PYTHON, paths.CLIENTS / "http_load.py", server.socket, *words, "--tally", self.tally], how)

    def wait(self):
        wanted = self._answers() + 1000  # by several connections, each of which is to be long enough
        until(lambda: self._answers() >= wanted or self.process.poll() is not None, 30, "no answers")

    def finish(self, session):
        self.process.send_signal(signal.SIGTERM)
        expect_success(session.finish(self.process, 30))

    def _answers(self):
        return self.tally.stat().st_size


def _expect_generations(way, report, *generations):
    """Each generation of processes moved bytes through rings. In chaos that is left to its dice."""
    if not way.accelerated or way.chaotic:
        return
    for number, pids in enumerate(generations):
        lines = [line for line in report.lines if line["pid"] in pids]
        moved = sum(line["ring"]["bytes_out"] for line in lines)
        assert moved > 0, f"generation {number} moved nothing through rings: processes {pids}, {len(lines)} of them reported"


@app_test(*ways.USUAL)
def nginx_binary(session, way):
    with UpgradableNginx(session, way.server) as server:
        load = Load(server, way.client, "/big", "--file", server.big)
        generations = []
        for _ in range(2):
            load.wait()
            generations.append(server.upgrade())
        load.wait()
        generations.append(server.workers())
        load.finish(session)
        ways.check_server(way, server)
        _expect_generations(way, server.report(), *generations)


@app_test(*ways.USUAL)
def php_fpm(session, way):
    """php-fpm is the server, nginx its client. A connection for each request is short: most stay plain."""
    with ReloadedPhpFpm(session, way.server) as backend, NginxBeforeReloads(session, way.client, backend) as server:
        load = Load(server, None, "/echo")
        for _ in range(2):
            load.wait()
            backend.reload()
        load.wait()
        load.finish(session)
        server.stop()
        backend.stop()
        ways.check_behaved(way, backend.report(), server.report())
