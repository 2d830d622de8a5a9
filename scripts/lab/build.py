"""Build the release preset, when something changed since the last time."""
import subprocess
import sys
import time

from . import paths


class BuildFailed(Exception):
    """The tail of what the compiler said."""


def release(targets=()):
    """Configure and build. A first build takes about a minute: say so."""
    paths.BUILD.mkdir(exist_ok=True)
    started, first = time.monotonic(), not paths.LIBRARY.exists()
    if first:
        print("building (only the first time) ...", flush=True)
    log = paths.BUILD / "demo-build.log"
    with open(log, "wb") as out:
        for command in (["cmake", "--preset", "release"],
                        ["cmake", "--build", "--preset", "release", *(["--target", *targets] if targets else [])]):
            status = subprocess.run(command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT).returncode
            if status != 0:
                lines = log.read_text(errors="replace").splitlines()
                raise BuildFailed("\n".join(["the build failed:", *lines[-25:], f"all of it: {log.relative_to(paths.ROOT)}"]))
    if first:
        print(f"built in {time.monotonic() - started:.0f} s", flush=True)
    sys.stdout.flush()
