"""Which Debian package brings what we need, and how to install it without starting or leaving a service behind.

Server programs are taken from packages that hold programs only (redis-tools, mariadb-server-core), so that the
machine does not get a Redis or MariaDB of its own. PostgreSQL has no such package: while it is installed, service
starts are refused and its default cluster is not made.
"""
import glob
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from . import paths


def _command(*names):
    return lambda: all(shutil.which(name) for name in names)


def _program(name):
    """One that Debian may keep in /usr/sbin."""
    return lambda: bool(shutil.which(name, path=program_path()))


def _file(pattern):
    return lambda: bool(glob.glob(pattern))


# Debian's own: the servers' account may not reach another one, and it has the modules of Debian's packages.
PYTHON = "/usr/bin/python3"
JEMALLOC = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
DBUS_TESTS = "/usr/lib/dbus-1.0/installed-tests/dbus"
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"

# group -> (package, is it there?)
NEEDS = {
    "build": [
        ("g++", _command("g++", "gcc", "readelf")),
        ("cmake", _command("cmake")),
        ("ninja-build", _command("ninja")),
        ("libgtest-dev", _file("/usr/include/gtest/gtest.h")),
        ("libfmt-dev", _file("/usr/include/fmt/format.h")),
        ("liburing-dev", _file("/usr/include/liburing.h")),
        ("libcli11-dev", _file("/usr/include/CLI/CLI.hpp")),
        ("nlohmann-json3-dev", _file("/usr/include/nlohmann/json.hpp")),
        ("spin", _command("spin")),  # configuring the model tests asks for it
    ],
    "clang": [("clang", _command("clang++"))],
    "redis": [("redis-tools", _command("redis-check-rdb", "redis-cli", "redis-benchmark"))],
    "postgres": [("postgresql-15", _file("/usr/lib/postgresql/*/bin/postgres"))],
    "mariadb": [
        ("mariadb-server-core", _program("mariadbd")),
        ("mariadb-client", _command("mariadb", "mariadb-dump", "mariadb-slap")),
        ("sysbench", _command("sysbench")),
    ],
    "loops": [
        ("nginx-light", _program("nginx")),
        ("php-fpm", lambda: php_fpm() is not None),
        ("haproxy", _program("haproxy")),
        ("memcached", _program("memcached")),
        ("nodejs", _command("node")),
        ("socat", _command("socat")),
        ("python3-gi", _file("/usr/lib/python3/dist-packages/gi/__init__.py")),
        ("libevent-dev", _file("/usr/include/event2/event.h")),
        ("openjdk-17-jdk-headless", _command("java", "javac")),
    ],
    "runtimes": [
        ("openjdk-17-jdk-headless", _command("java", "javac")),
        ("memcached", _program("memcached")),
        ("nodejs", _command("node")),
        ("postgresql-15", _file("/usr/lib/postgresql/*/bin/postgres")),
        ("redis-tools", _command("redis-check-rdb", "redis-cli", "redis-benchmark")),
        ("socat", _command("socat")),
        ("libjemalloc2", _file(JEMALLOC)),
        ("libtcmalloc-minimal4", _file(TCMALLOC)),
    ],
    "daemons": [
        ("postgresql-15", _file("/usr/lib/postgresql/*/bin/postgres")),  # for its account, which may log in
        ("openssh-client", _command("ssh", "ssh-keygen")),
        ("openssh-server", lambda: sshd() is not None),
        ("libwrap0", _file("/usr/lib/*/libwrap.so.0")),  # sshd's, which is only unpacked
        ("dbus-daemon", _command("dbus-daemon")),
        ("python3-gi", _file("/usr/lib/python3/dist-packages/gi/__init__.py")),
        ("socat", _command("socat")),
    ],
    "reloads": [("nginx-light", _program("nginx")), ("php-fpm", lambda: php_fpm() is not None)],
    "traced": [
        ("redis-tools", _command("redis-check-rdb", "redis-cli", "redis-benchmark")),
        ("strace", _command("strace")),
        ("gdb-minimal", _command("gdb")),
    ],
    "dbus": [("dbus-tests", _file(f"{DBUS_TESTS}/test-dbus-daemon")), ("dbus-daemon", _command("dbus-daemon"))],
    "selftests": [("g++", _command("gcc"))],  # the package of the kernel's source is only unpacked: fetched.py
    "past_libc": [
        ("nodejs", _command("node")),
        ("dbus-daemon", _command("dbus-daemon")),
        ("libwayland-dev", _file("/usr/include/wayland-server.h")),
        ("xvfb", _command("Xvfb")),
    ],
    "sandbox": [
        ("g++", _command("gcc")),
        ("libseccomp2", _file("/usr/lib/*/libseccomp.so.2")),
        ("libevent-dev", _file("/usr/include/event2/event.h")),  # brings the library that tor uses
        ("tor", lambda: tor() is not None),
    ],
    "hyper": [("python3-venv", _file("/usr/lib/python3*/ensurepip/__init__.py"))],
}

# Taken from their packages without installing them: these would start a service at the next boot.
ONLY_UNPACKED = {"openssh-server", "tor"}


class CannotInstall(Exception):
    """What is missing, and the command that would bring it."""


def program_path():
    """PATH as a server's administrator has it: Debian keeps mariadbd in /usr/sbin."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


def missing(groups):
    """Each package once."""
    return list({package: None for group in groups for package, present in NEEDS[group] if not present()})


def ensure(groups, say=print):
    """Install what is missing, or raise CannotInstall."""
    wanted = missing(groups)
    if not wanted:
        return
    advice = "apt-get install --no-install-recommends " + " ".join(wanted)
    if not shutil.which("apt-get"):
        raise CannotInstall(f"missing (by their Debian names): {' '.join(wanted)}")
    become_root = _become_root()
    if become_root is None:
        raise CannotInstall(f"missing: {' '.join(wanted)}\nas root, run:  {advice}")
    say(f"installing {' '.join(wanted)}")
    with _no_services(become_root):
        _apt(become_root, ["update"])
        if "postgresql-15" in wanted:
            _apt(become_root, ["install", "postgresql-common"])
        with _no_default_cluster(become_root, "postgresql-15" in wanted):
            _apt(become_root, ["install", *(package for package in wanted if package not in ONLY_UNPACKED)])
    for package in ONLY_UNPACKED.intersection(wanted):
        _unpack(package)
    left = missing(groups)
    if left:
        raise CannotInstall(f"installed, but still not found: {' '.join(left)}")


def _become_root():
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL,
                                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
        return ["sudo", "-n"]
    return None


def _unpack(package):
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(["apt-get", "-q", "download", package], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        archives = glob.glob(f"{directory}/{package}_*.deb")
        if done.returncode != 0 or not archives:
            raise CannotInstall(f"{package} could not be had:\n" + "\n".join(done.stdout.splitlines()[-15:]))
        paths.UNPACKED.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", archives[0], paths.UNPACKED], check=True)


def _apt(become_root, arguments):
    command = [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q", "-y",
               "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise CannotInstall(f"{' '.join(command)} failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))


@contextmanager
def _own_file(become_root, path, text, mode, wanted=True):
    """A file that exists only inside the block, and only if nobody else has put one there."""
    if not wanted or os.path.lexists(path):
        yield
        return
    subprocess.run([*become_root, "sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"', "sh", path, mode],
                   input=text, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*become_root, "rm", "-f", path], check=True)


def _no_services(become_root):
    return _own_file(become_root, "/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "755")


def _no_default_cluster(become_root, wanted):
    return _own_file(become_root, "/etc/postgresql-common/createcluster.d/shunt-check.conf",
                     "create_main_cluster = false\n", "644", wanted)


def postgres_programs():
    """The directory with the newest PostgreSQL's programs; Debian keeps them out of PATH."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    return Path(max(found, key=lambda path: float(path.split("/")[4]))).parent if found else None


def php_fpm():
    """Its program has the version in its name."""
    found = sorted(glob.glob("/usr/sbin/php-fpm*"))
    return found[-1] if found else None


def sshd():
    """The program of openssh-server, installed or unpacked."""
    found = [path for path in ("/usr/sbin/sshd", paths.SSHD) if os.access(path, os.X_OK)]
    return Path(found[0]) if found else None


def tor():
    """The program of tor, installed or unpacked."""
    found = [path for path in ("/usr/bin/tor", paths.UNPACKED / "usr" / "bin" / "tor") if os.access(path, os.X_OK)]
    return Path(found[0]) if found else None
