"""Runtimes that Debian does not have in the versions that we want: Node from npm, Python packages from pip. Kept below the build directory."""
import functools
import shutil
import subprocess

from . import packages, paths
from .fetched import CannotHave


def node(session, version):
    """The program of that major version."""
    home = _kept(f"node-{version}", _install_node, version)
    return _reachable(session, home) / "node_modules" / "node" / "bin" / "node"


def python(session, *names):
    """A Python that has the packages of these names."""
    home = _kept("-".join(("python", *names)), _install_python, *names)
    return _reachable(session, home) / "bin" / "python3"


@functools.cache
def _kept(name, install, *words):
    """Its directory; installed once, tried once a run."""
    home = paths.BUILD / name
    if not (home / "complete").exists():
        trouble = install(home, *words)
        if trouble:
            raise CannotHave(f"{name}: {trouble}")
        (home / "complete").touch()
    return home


def _install_node(home, version):
    if not shutil.which("npm"):
        return "there is no npm"
    home.mkdir(parents=True, exist_ok=True)
    return _run(["npm", "install", "--prefix", home, "--no-audit", "--no-fund", f"node@{version}"]) or \
        _run([home / "node_modules" / "node" / "bin" / "node", "--version"])


def _install_python(home, *names):
    program = home / "bin" / "python3"
    return _run([packages.PYTHON, "-m", "venv", "--clear", home]) or _run([program, "-m", "pip", "install", "--quiet", *names]) or \
        _run([program, "-c", "; ".join(f"import {name}" for name in names)])


def _run(command):
    """What went wrong, in a line."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return (done.stdout.strip().splitlines()[-1:] or [f"status {done.returncode}"])[0] if done.returncode else ""


def _reachable(session, home):
    """A copy where the servers' account cannot reach it: a clone in /root."""
    if not session.account or all(parent.stat().st_mode & 0o001 for parent in (home, *home.parents)):
        return home
    copy = session.dir / home.name
    if not copy.exists():
        shutil.copytree(home, copy, symlinks=True)
    return copy
