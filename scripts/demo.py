"""./demo: real servers on the kernel's unix socket and on Shunt, side by side, and the proof."""
import argparse
import importlib
import os
import sys

from lab import build, hyper, packages, paths, server, session
from shows import table

NAMES = ("builtin", "redis", "postgres", "mariadb", "hyper")
DEFAULT = ("builtin", "redis")
DEMO_TARGETS = ("shunt", "shunt_cli", "shunt_bench")  # not the tests: the first figures come in half the time


def _parse():
    parser = argparse.ArgumentParser(
        prog="./demo", description="Show real servers on the kernel's unix socket and on Shunt, side by side.",
        epilog=f"Without a name: {' '.join(DEFAULT)}. Installs what is missing if it may, and says what is if not. "
               "Everything runs in a temporary directory, without network, and is gone afterwards.")
    parser.add_argument("names", nargs="*", choices=(*NAMES, "all", []), metavar="NAME", help=f"{' '.join(NAMES)} or all")
    parser.add_argument("--pairs", type=int, default=3, help="kernel and Shunt runs of each, in turns (default 3)")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs must be at least 1")
    names = options.names or DEFAULT
    return [name for name in NAMES if name in names or "all" in names], options.pairs


def _show(name, current, pairs):
    """What the show found, or None and a line why not."""
    module = importlib.import_module(f"shows.{name}")
    try:
        packages.ensure(module.NEEDS)
        return module.show(current, pairs)
    except packages.CannotInstall as reason:
        print(f"{name}: not shown\n{reason}")
    except (hyper.CannotHave, server.ServerProblem, OSError) as reason:
        print(f"{name}: FAILED: {reason}")
    return None


def main():
    names, pairs = _parse()
    session.interruptible()
    try:
        if not (os.environ.get("SHUNT_BUILD") and paths.SHUNT.exists()):
            packages.ensure(["build"])
            build.release(DEMO_TARGETS)
    except (packages.CannotInstall, build.BuildFailed) as problem:
        print(problem)
        return 1
    print("each line: kernel / Shunt", flush=True)
    with session.Session() as current:
        shown = [_show(name, current, pairs) for name in names]
    complete = [each for each in shown if each]
    if complete:
        print(f"\nmedians of {pairs} runs each, kernel and Shunt in turns\n\n{table.render(complete)}")
    return 0 if len(complete) == len(shown) and not any(each.wrong for each in complete) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; nothing is left running")
        sys.exit(130)
