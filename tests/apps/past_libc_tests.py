"""Programs that make some of their system calls past libc: they behave as on the kernel, accelerated or not.

smol, async-io, async-std: epoll and O_NONBLOCK by calls of their own, read and write by libc. zbus, wayland-client, x11rb: sendmsg and recvmsg of their
own. Bun: epoll_pwait2 of its own. Deno and tokio use libc for all; tokio has to be accelerated.
"""
import ways
from harness import Skip, app_test, expect_success
from lab import fetched, packages, paths
from lab.daemons import MessageBus
from lab.event_loops import Echo
from lab.past_libc import Compositor, RustEcho, Scripted, Xvfb, runtime_command
from lab.preload import loaded

ALL = (*ways.ALL, *ways.ASKED)
USUAL = (ways.NEITHER, ways.ONLY_SERVER, ways.ONLY_CLIENT, ways.BOTH, ways.EAGERLY, ways.CHAOS, *ways.ASKED)


def _client(program, *words):
    return [packages.PYTHON, paths.CLIENTS / f"{program}.py", *words]


def _have(make, *words):
    """What has to be fetched, or a skipped test."""
    try:
        return make(*words)
    except fetched.CannotHave as reason:
        raise Skip(str(reason)) from None


def _expect_behaved(way, server, silent_server=False, silent_client=False):
    """Silent: ends without running what libc runs at exit, so it reports nothing."""
    assert loaded(server.process.pid) == (way.server is not None)
    server.stop()
    ways.check_behaved(way, None if silent_server else server.report(), None if silent_client else server.client_report())


def _rust_server(session, way, kind):
    """It serves others while one client says nothing, one says nothing more, and one does not read what fills both buffers; and its own kind."""
    with _have(RustEcho, session, way.server, kind) as server:
        expect_success(server.client(_client("silent_check", server.socket), way.client))
        expect_success(server.client([fetched.rust(f"echo_{kind}"), "ask", server.socket], way.client))
        _expect_behaved(way, server)
        return server


def _rust_client(session, way, kind):
    program = _have(fetched.rust, f"echo_{kind}")
    with Echo(session, way.server, "epoll") as server:
        expect_success(server.client([program, "ask", server.socket], way.client))
        _expect_behaved(way, server)
        return server


@app_test(*ALL)
def smol_server(session, way):
    _rust_server(session, way, "smol")


@app_test(*USUAL)
def smol_client(session, way):
    _rust_client(session, way, "smol")


@app_test(*ALL)
def async_io_server(session, way):
    _rust_server(session, way, "async_io")


@app_test(*USUAL)
def async_io_client(session, way):
    _rust_client(session, way, "async_io")


@app_test(*ALL)
def async_std_server(session, way):
    _rust_server(session, way, "async_std")


@app_test(*USUAL)
def async_std_client(session, way):
    _rust_client(session, way, "async_std")


@app_test(*ALL)
def tokio_server(session, way):
    """mio uses libc: accelerated."""
    server = _rust_server(session, way, "tokio")
    ways.check_reports(way, server.report(), server.client_report())


@app_test(*USUAL)
def tokio_client(session, way):
    server = _rust_client(session, way, "tokio")
    ways.check_reports(way, server.report(), server.client_report())


@app_test(*ALL)
def zbus(session, way):
    """Calls between two zbus programs through dbus-daemon: bytes in a loop, and descriptors in both directions; no descriptor stays behind."""
    program = _have(fetched.rust, "bus_zbus")
    with MessageBus(session, way.server) as bus:
        service = bus.start_client([program, "serve", bus.address], way.client)
        assert service.stdout.readline() == b"ready\n", str(session.finish(service, 5))
        expect_success(bus.client([program, "ask", bus.address], way.client))
        expect_success(session.finish(service, 10))
        _expect_behaved(way, bus)


@app_test(*ALL)
def wayland_keymaps(session, way):
    """Each keymap comes as a descriptor behind many messages; what the client maps is what the compositor sent. Three clients, one after the other and at once."""
    program = _have(fetched.rust, "keymaps")
    with Compositor(session, way.server) as compositor:
        expect_success(compositor.client([program, compositor.socket], way.client))
        at_once = [compositor.start_client([program, compositor.socket], way.client) for _ in range(2)]
        for client in at_once:
            expect_success(session.finish(client, 30))
        _expect_behaved(way, compositor)


@app_test(*USUAL)
def x11rb(session, way):
    """Atoms, properties and pictures of an Xvfb."""
    program = _have(fetched.rust, "x11")
    with Xvfb(session, way.server) as server:
        for _ in range(2):
            expect_success(server.client([program, server.display], way.client))
        _expect_behaved(way, server)


@app_test(*USUAL)
def bun_http_server(session, way):
    """node:http with keep-alive: asked by Python, which uses libc, and by Bun."""
    bun = _have(runtime_command, "bun")
    with Scripted(session, way.server, "bun", "http_echo.js", "serve") as server:
        expect_success(server.client(_client("http_check", server.socket, "/echo", "--threads", "4", "--requests", "25"), way.client))
        expect_success(server.client([*bun, paths.CLIENTS / "http_echo.js", "ask", server.socket], way.client))
        _expect_behaved(way, server, silent_server=True)


@app_test(*USUAL)
def bun_http_client(session, way):
    """Of a server that runs on Node."""
    bun = _have(runtime_command, "bun")
    with Scripted(session, way.server, "node", "http_echo.js", "serve") as server:
        expect_success(server.client([*bun, paths.CLIENTS / "http_echo.js", "ask", server.socket], way.client))
        _expect_behaved(way, server, silent_client=True)


@app_test(*USUAL)
def bun_net_server(session, way):
    bun = _have(runtime_command, "bun")
    with Scripted(session, way.server, "bun", "echo_server.js") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket, "--rounds", "30"), way.client))
        expect_success(server.client([*bun, paths.CLIENTS / "net_check.js", server.socket], way.client))
        _expect_behaved(way, server, silent_server=True)


@app_test(*USUAL)
def bun_net_client(session, way):
    bun = _have(runtime_command, "bun")
    with Echo(session, way.server, "epoll") as server:
        expect_success(server.client([*bun, paths.CLIENTS / "net_check.js", server.socket], way.client))
        _expect_behaved(way, server, silent_client=True)


@app_test(*USUAL)
def deno_server(session, way):
    """Deno.listen, asked by Python and by Deno."""
    deno = _have(runtime_command, "deno")
    with Scripted(session, way.server, "deno", "deno_echo.js", "serve") as server:
        expect_success(server.client(_client("echo_check", "epoll", server.socket, "--rounds", "30"), way.client))
        expect_success(server.client([*deno, paths.CLIENTS / "deno_echo.js", "ask", server.socket], way.client))
        _expect_behaved(way, server)


@app_test(*USUAL)
def deno_client(session, way):
    deno = _have(runtime_command, "deno")
    with Echo(session, way.server, "epoll") as server:
        expect_success(server.client([*deno, paths.CLIENTS / "deno_echo.js", "ask", server.socket], way.client))
        _expect_behaved(way, server)
