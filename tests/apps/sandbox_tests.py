"""Servers under a filter that refuses system calls, by an error or by a signal: the library's own calls may be refused, and nobody notices."""
import ways
from harness import app_test
from lab import packages, paths
from lab.past_libc import Filtered, Tor
from lab.preload import loaded
from lab.server import until

ALL = (*ways.ALL, *ways.ASKED)
USUAL = (ways.NEITHER, ways.ONLY_SERVER, ways.ONLY_CLIENT, ways.BOTH, ways.EAGERLY, ways.CHAOS, *ways.ASKED)


def _dialog(session, server_how, client_how):
    """(what tor answered, the server, which has ended with status 0)"""
    with Tor(session, server_how) as tor:
        assert loaded(tor.process.pid) == (server_how is not None)
        result = tor.client(tor.check(), client_how)
        assert result.status == 0, f"{result}\ntor: status {tor.process.poll()}\n{tor.log_tail()}"
        until(lambda: tor.process.poll() is not None, 20, "tor does not end")
        assert tor.process.returncode == 0, f"tor ended with status {tor.process.returncode}\n{tor.log_tail()}"
        tor.process = None
        return result.text.replace(str(tor.dir), "DIR"), tor


@app_test(*ALL)
def tor_in_its_sandbox(session, way):
    """Start, a dialog of some hundred answers on four control connections, SIGNAL HALT: all as on the kernel."""
    if "tor" not in session.templates:
        session.templates["tor"] = _dialog(session, None, None)[0]
    said, tor = _dialog(session, way.server, way.client)
    assert said == session.templates["tor"], f"other answers than on the kernel: {said[:2000]}"
    # Its filter refuses it the file of the report.
    ways.check_behaved(way, None, tor.client_report())


def _filtered(session, way, filter):
    with Filtered(session, way.server, filter) as server:
        for loop in ("select", "epoll"):
            result = server.client([packages.PYTHON, paths.CLIENTS / "echo_check.py", loop, server.socket, "--connections", "8", "--rounds", "30"], way.client)
            assert result.status == 0, f"{result}\nthe server: status {server.process.poll()}\n{server.log_tail()}"
        server.stop()
        ways.check_behaved(way, server.report(), server.client_report())
        assert way.server or server.log_tail() == "trapped 0", f"the program itself makes the call: {server.log_tail()}"


@app_test(*USUAL)
def memfd_create_traps(session, way):
    """SECCOMP_RET_TRAP, with a handler that answers EPERM: no channel can be made."""
    _filtered(session, way, "trap:memfd_create")


@app_test(*USUAL)
def recvfrom_traps(session, way):
    """The server reads with read()."""
    _filtered(session, way, "trap:recvfrom")


@app_test(*USUAL)
def sendto_traps(session, way):
    """The server writes with write()."""
    _filtered(session, way, "trap:sendto")


@app_test(*USUAL)
def blocking_signals_is_refused(session, way):
    """SIG_BLOCK is answered with EPERM; the server's mask stays what it is."""
    _filtered(session, way, "errno:rt_sigprocmask")
