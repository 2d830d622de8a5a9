"""Programs that no package of Debian's release brings: fetched and built below the build directory, by the first test that needs one.

Rust programs of our own (clients/rust) and their crates by cargo, Bun and Deno by npm, a test of the kernel's own from Debian's package of its source.
Where one cannot be had, its tests are skipped, visibly.
"""
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import paths

RUST_TARGET = paths.BUILD / "rust"
NPM = paths.BUILD / "npm"
KERNEL_SOURCE = paths.BUILD / "kernel-selftests"
SELFTESTS = "tools/testing/selftests"


class CannotHave(Exception):
    """The text says what is missing, and why."""


def _run(command, timeout, what, **options):
    """Its output, or CannotHave with the last of what it said."""
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=timeout, **options)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CannotHave(f"{what} cannot be had: {problem}") from None
    if done.returncode != 0:
        raise CannotHave(f"{what} cannot be had: " + "\n".join(done.stdout.strip().splitlines()[-3:]))
    return done.stdout


def _once(function):
    """Asked once; what went wrong is told again each time."""
    @functools.cache
    def tried(*words):
        try:
            return function(*words), ""
        except CannotHave as problem:
            return None, str(problem)

    def told(*words):
        result, trouble = tried(*words)
        if trouble:
            raise CannotHave(trouble)
        return result
    return told


@_once
def _cargo_built():
    cargo = shutil.which("cargo") or shutil.which("cargo", path=Path.home() / ".cargo" / "bin")
    if not cargo:
        raise CannotHave("there is no cargo")
    paths.BUILD.mkdir(exist_ok=True)
    _run(["nice", cargo, "build", "--release", "--jobs", "2"], 2400, "the Rust programs", cwd=paths.CLIENTS / "rust",
         env=dict(os.environ, CARGO_TARGET_DIR=str(RUST_TARGET), PATH=f"{Path(cargo).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"))
    return RUST_TARGET / "release"


def rust(name):
    """The file of a program of clients/rust."""
    return _cargo_built() / name


# npm's name -> where the program itself is, without the script that some versions put before it
NODE_PROGRAMS = {"bun": ("bun/bin/bun.exe", "@oven/bun-linux-*/bin/bun"), "deno": ("@deno/linux-*-glibc/deno", "deno/deno")}


@_once
def node_program(name):
    """The file of a program that npm brings."""
    def there():
        for pattern in NODE_PROGRAMS[name]:
            for program in (NPM / "node_modules").glob(pattern):
                if os.access(program, os.X_OK) and program.stat().st_size > 1 << 20:
                    return program
        return None
    if not there():
        if not shutil.which("npm"):
            raise CannotHave("there is no npm")
        NPM.mkdir(parents=True, exist_ok=True)
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-progress", "--prefix", NPM, name], 600, f"npm's package {name}")
    program = there()
    if not program:
        raise CannotHave(f"npm's package {name} was installed, but brings no program")
    _run([program, "--version"], 60, name)
    return program


@_once
def kernel_selftest(name):
    """The file of a program of the kernel's own tests, such as net/af_unix/scm_pidfd, compiled."""
    source = KERNEL_SOURCE / SELFTESTS / f"{name}.c"
    if not source.exists():
        _extract_selftests(source)
    program = KERNEL_SOURCE / source.stem
    if not program.exists():
        # Two options that the headers of Debian's libc do not have yet.
        _run(["gcc", "-O1", "-w", "-D_GNU_SOURCE=", "-DSO_PASSPIDFD=76", "-DSO_PEERPIDFD=77", "-o", program, source], 120, f"the kernel's test {name}")
    return program


def _extract_selftests(wanted):
    """The package is 150 MB of which we keep a few files. Which version of it has the test: the newest."""
    names = _run(["apt-cache", "pkgnames", "linux-source-"], 60, "the kernel's source").split()
    versions = sorted((tuple(map(int, name.split("-")[2].split("."))), name) for name in names if name.replace("linux-source-", "").replace(".", "").isdigit())
    if not versions:
        raise CannotHave("the kernel's source cannot be had: apt knows no package linux-source-*")
    package = versions[-1][1]
    KERNEL_SOURCE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KERNEL_SOURCE) as directory:
        _run(["apt-get", "-q", "download", package], 600, package, cwd=directory)
        archive = next(Path(directory).glob("*.deb"))
        _run(["sh", "-c", f"dpkg-deb --fsys-tarfile {archive.name} | tar xO --wildcards './usr/src/{package}.tar.xz' | nice xz -dc -T2 | "
              f"nice tar x --strip-components=1 --wildcards '*/{SELFTESTS}/net/af_unix/*' '*/{SELFTESTS}/*.h'"], 600, package, cwd=directory)
        (Path(directory) / "tools").rename(KERNEL_SOURCE / "tools")
    if not wanted.exists():
        raise CannotHave(f"{package} has no {wanted.name}")
