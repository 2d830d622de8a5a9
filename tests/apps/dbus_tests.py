"""The tests of D-Bus itself (Debian's dbus-tests): every case as on the kernel. A program starts the message bus that it needs, so one command runs both ends."""
import os
from pathlib import Path

import tap
import ways
from harness import app_test
from lab import packages
from lab.preload import KERNEL, Preload, Report, chaos
from ways import Way

ONLY_SERVER = Way("only server", Preload(only="dbus-daemon*"), KERNEL)
ONLY_CLIENT = Way("only client", KERNEL, Preload(only="test-*"))
SEEDS = tuple(Way(f"chaos {seed}", chaos(seed), chaos(seed)) for seed in (1, 2, 3))
MORE = tuple(Way(way.name, way.server, way.server) for way in ways.ASKED)
IN_ONE_PROCESS = (ways.NEITHER, ways.BOTH, ways.EAGERLY, *SEEDS, *MORE)
WITH_A_DAEMON = (*IN_ONE_PROCESS, ONLY_SERVER, ONLY_CLIENT)
WITHOUT_SOCKETS = (ways.NEITHER, ways.BOTH)

# Two cases that wait for ten seconds together. Only the ways in which users have the library run them, or all with SHUNT_APPS_WHOLE=1.
SLOW = ("/activation/forking", "/echo/limited")

PROGRAMS = {
    "test-dbus-daemon": WITH_A_DAEMON,
    "test-dbus-daemon-eavesdrop": WITH_A_DAEMON,
    "test-dbus-daemon-fork.sh": (ways.NEITHER, ways.BOTH, ways.EAGERLY),
    "test-containers": (ways.NEITHER, ways.BOTH, ways.EAGERLY, SEEDS[0]),
    "test-monitor": WITH_A_DAEMON,
    "test-sd-activation": WITH_A_DAEMON,
    "test-uid-permissions": WITH_A_DAEMON,
    "test-corrupt": IN_ONE_PROCESS,
    "test-fdpass": IN_ONE_PROCESS,
    "test-loopback": IN_ONE_PROCESS,
    "test-relay": IN_ONE_PROCESS,
    "test-server-oom": IN_ONE_PROCESS,
    **dict.fromkeys((
        "test-apparmor-activation", "test-apparmor-activation.sh", "test-assertions", "test-atomic", "test-desktop-file", "test-hash",
        "test-header-fields", "test-marshal", "test-message", "test-misc-internals", "test-printf", "test-refs", "test-shell", "test-syntax",
        "test-sysdeps", "test-syslog", "test-userdb", "test-variant"), WITHOUT_SOCKETS),
}
HELPERS = {"test-service", "test-sleep-forever"}
ACCELERATED = {"test-dbus-daemon"}  # in the usual ways some connection has to come to a ring


def _run(session, way, program):
    words = ["env", f"DBUS_TEST_EXEC={packages.DBUS_TESTS}", f"DBUS_TEST_DATA={packages.DBUS_TESTS}/data", f"{packages.DBUS_TESTS}/{program}"]
    words += [] if program.endswith(".sh") else ["--tap"]
    if program == "test-dbus-daemon" and way not in (ways.NEITHER, ways.BOTH, ways.EAGERLY) and not os.environ.get("SHUNT_APPS_WHOLE"):
        words += [word for path in SLOW for word in ("-s", path)]
    report = session.directory("dbus") / "report"
    tap.expect_the_same(session, words, way.server or way.client, report)
    found = Report(report)
    if program in ACCELERATED and way in (ways.BOTH, ways.EAGERLY):
        assert found.upgraded > 0 and found.ring_bytes > 0, f"nothing was accelerated: {found}"
    if not way.accelerated:
        assert found.ring_bytes == 0, f"a ring without an aware peer: {found}"


def _register(program, in_ways):
    def test(session, way):
        _run(session, way, program)
    test.__name__ = program.removesuffix(".sh").replace("-", "_") + ("_sh" if program.endswith(".sh") else "")
    app_test(*in_ways)(test)


for _program, _ways in PROGRAMS.items():
    _register(_program, _ways)


@app_test()
def all_programs_are_known(session):
    """A newer package may bring more: they belong into the table above."""
    brought = {path.name for path in Path(packages.DBUS_TESTS).glob("test-*") if os.access(path, os.X_OK)}
    assert brought == set(PROGRAMS) | HELPERS, f"not in the table: {brought - set(PROGRAMS) - HELPERS}; gone: {set(PROGRAMS) - brought}"
