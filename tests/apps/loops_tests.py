"""Event loops of other people: libuv, libevent, Java, GLib, nginx, HAProxy, socat and Python's own, each against a client that knows every byte."""
import ways
from harness import app_test, expect_success
from lab import packages, paths
from lab.event_loops import Echo, HaProxy, Memcached, Nginx, PhpFpm


def _client(program, *words):
    return [packages.PYTHON, paths.CLIENTS / f"{program}.py", *words]


def _expect_echo(session, way, kind, loop=None):
    with Echo(session, way.server, kind) as server:
        expect_success(server.client(_client("echo_check", loop or kind, server.socket), way.client))
        ways.check_server(way, server)


def _expect_libevent(session, way, method, name):
    """`name`: what libevent itself calls the method that it has chosen."""
    with Echo(session, way.server, f"libevent {method}") as server:
        expect_success(server.client(_client("echo_check", "asyncio", server.socket), way.client))
        ways.check_server(way, server)
        assert server.log_tail() == name, f"libevent uses {server.log_tail()}"


@app_test(*ways.ALL)
def asyncio(session, way):
    _expect_echo(session, way, "asyncio")


@app_test(*ways.ALL)
def selectors_select(session, way):
    _expect_echo(session, way, "select")


@app_test(*ways.ALL)
def selectors_poll(session, way):
    _expect_echo(session, way, "poll")


@app_test(*ways.ALL)
def selectors_epoll(session, way):
    _expect_echo(session, way, "epoll")


@app_test(*ways.ALL)
def selectors_default(session, way):
    _expect_echo(session, way, "default")


@app_test(*ways.ALL)
def glib(session, way):
    _expect_echo(session, way, "glib", "poll")


@app_test(*ways.ALL)
def node(session, way):
    _expect_echo(session, way, "node", "epoll")


@app_test(*ways.ALL)
def java_nio(session, way):
    _expect_echo(session, way, "java", "select")


@app_test(*ways.ALL)
def libevent_epoll(session, way):
    _expect_libevent(session, way, "epoll", "epoll")


@app_test(*ways.FEW)
def libevent_epoll_changelist(session, way):
    _expect_libevent(session, way, "epoll-changelist", "epoll (with changelist)")


@app_test(*ways.ALL)
def libevent_poll(session, way):
    _expect_libevent(session, way, "poll", "poll")


@app_test(*ways.ALL)
def libevent_select(session, way):
    _expect_libevent(session, way, "select", "select")


@app_test(*ways.ALL)
def socat(session, way):
    """A child for each connection, which sits in select() between it and a cat."""
    _expect_echo(session, way, "socat", "asyncio")


@app_test(*ways.ALL)
def memcached(session, way):
    """libevent in four threads, to which the accepting one hands the connections."""
    with Memcached(session, way.server) as server:
        expect_success(server.client(_client("memcached_check", server.socket), way.client))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def nginx(session, way):
    """Edge-triggered epoll, sendfile() to the client."""
    with Nginx(session, way.server) as server:
        expect_success(server.client(_client("http_check", server.socket, "/big", "--file", server.big), way.client))
        ways.check_server(way, server)


@app_test(*ways.ALL)
def php_fpm_behind_nginx(session, way):
    """php-fpm is the server, nginx its client: bodies of up to 200 kB there and back."""
    with PhpFpm(session, way.server) as backend, Nginx(session, way.client, backend) as server:
        expect_success(server.client(_client("http_check", server.socket, "/echo")))
        server.stop()
        backend.stop()
        ways.check_reports(way, backend.report(), server.report())


@app_test(*ways.ALL)
def haproxy_before_nginx(session, way):
    with Nginx(session, way.server) as backend, HaProxy(session, way.client, backend) as server:
        expect_success(server.client(_client("http_check", server.socket, "/big", "--file", backend.big)))
        server.stop()
        backend.stop()
        ways.check_reports(way, backend.report(), server.report())
