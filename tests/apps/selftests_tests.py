"""The kernel's own tests of unix sockets, tools/testing/selftests/net/af_unix: control data, out-of-band bytes, connect.

Not scm_rights, which sleeps for 20 s each time."""
import tap
import ways
from harness import Skip, app_test
from lab import fetched
from lab.preload import chaos
from ways import Way

SEEDS = tuple(Way(f"chaos {seed}", chaos(seed), chaos(seed)) for seed in (1, 2, 3, 4, 5))


def _run(session, way, name):
    try:
        program = fetched.kernel_selftest(f"net/af_unix/{name}")
    except fetched.CannotHave as reason:
        raise Skip(str(reason)) from None
    directory = session.directory("selftest")  # some of them leave their sockets where they ran
    tap.expect_the_same(session, [program], way.server, directory / "report", cwd=directory)


@app_test(ways.NEITHER, ways.BOTH, ways.EAGERLY, *SEEDS)
def scm_pidfd(session, way):
    """SO_PASSCRED and SO_PASSPIDFD set after connect, and then exactly the expected control data."""
    _run(session, way, "scm_pidfd")


@app_test(ways.NEITHER, ways.BOTH, ways.EAGERLY, SEEDS[0])
def msg_oob(session, way):
    _run(session, way, "msg_oob")


@app_test(ways.NEITHER, ways.BOTH, ways.EAGERLY, SEEDS[0])
def unix_connect(session, way):
    _run(session, way, "unix_connect")
