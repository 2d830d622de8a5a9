"""./check: every step in order, a line for each, logs in build/check-logs, and one line with the sum of all tests."""
import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

from lab import packages, paths, session

LOGS = paths.BUILD / "check-logs"
JOBS = str(2 * (os.cpu_count() or 2))  # of tests: most of them wait most of the time


class Failed(Exception):
    """A step that failed before it could count."""


class Steps:
    """Each public method is a step; it returns (passed, failed, skipped) and writes to the log it is given."""

    @staticmethod
    def build(log):
        """configure and build the release preset"""
        _cmake(log, "--preset", "release")
        _cmake(log, "--build", "--preset", "release")
        return 1, 0, 0

    @staticmethod
    def unit(log):
        """unit tests, by floor, and whatever carries none of the labels below"""
        return _ctest(log, "release", "-LE", "^(model|behaviour|differential|stress)$")

    @staticmethod
    def model(log):
        """the fence and sleep protocol, explored"""
        return _ctest(log, "release", "-L", "^model$")

    @staticmethod
    def behaviour(log):
        """small programs on the kernel, both ends aware, only one aware, and in chaos"""
        return _ctest(log, "release", "-L", "^behaviour$")

    @staticmethod
    def differential(log):
        """random operations against a kernel socket pair"""
        return _ctest(log, "release", "-L", "^differential$")

    @staticmethod
    def stress(log):
        """threads that open, duplicate, fork, execute, pass and close connections, all at once"""
        return _ctest(log, "release", "-L", "^stress$")

    @staticmethod
    def floors(log):
        """each file includes only from the floors below"""
        _run(log, [paths.ROOT / "tools" / "check_floors"])
        return 1, 0, 0

    @staticmethod
    def symbols(log):
        """what the library needs and exports; no call of libc's, of the kernel's or of our own that no table knows"""
        _run(log, [paths.ROOT / "tools" / "check_symbols", paths.LIBRARY])
        _run(log, [paths.ROOT / "tools" / "check_calls"])
        _run(log, [paths.ROOT / "tools" / "own_calls", "--check"])
        return 3, 0, 0

    @staticmethod
    def docs(log):
        """generated tables are up to date, links and names in the documentation lead somewhere"""
        _run(log, [paths.ROOT / "docs" / "generate", "--check"])
        return 1, 0, 0

    @staticmethod
    def clang(log):
        """the library and the command through clang++, warnings as errors; not run, so not optimised"""
        _cmake(log, "-G", "Ninja", "-S", ".", "-B", paths.BUILD / "clang", "-DCMAKE_BUILD_TYPE=", "-DCMAKE_C_COMPILER=clang",
               "-DCMAKE_CXX_COMPILER=clang++")
        _cmake(log, "--build", paths.BUILD / "clang", "--target", "shunt", "shunt_cli")
        return 1, 0, 0

    @staticmethod
    def apps(log):
        """real Redis, PostgreSQL, MariaDB and HyPer, event loops and runtimes"""
        _run(log, [sys.executable, paths.ROOT / "tests" / "apps" / "run", "--jobs", JOBS], may_fail=True)
        counted = re.search(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", log.read_text(errors="replace"), re.M)
        if not counted:
            raise Failed
        return tuple(int(number or 0) for number in counted.groups())

    @staticmethod
    def asan(log):
        """with AddressSanitizer and UndefinedBehaviorSanitizer, the library: unit, differential, and the behaviours with both ends aware and in chaos"""
        _cmake(log, "--preset", "asan")
        _cmake(log, "--build", "--preset", "asan", "--target", "sanitized")
        return _ctest(log, "asan", "-LE", "^(model|stress|behaviour-(kernel|mixed|cold))$", "-E", "^(cli[.]|unit_cli)")

    @staticmethod
    def tsan(log):
        """a short stress with ThreadSanitizer: the library's own memory, with all threads of a process"""
        _cmake(log, "--preset", "tsan")
        _cmake(log, "--build", "--preset", "tsan", "--target", "stress", "shunt")
        return _ctest(log, "tsan", "-L", "^stress$")


NAMES = [name for name in vars(Steps) if not name.startswith("_")]
NEEDS_BUILD = {"unit", "model", "behaviour", "differential", "stress", "symbols", "apps"}
NOT_QUICK = {"apps", "asan", "tsan"}


def _run(log, command, may_fail=False):
    with open(log, "ab") as out:
        out.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        status = subprocess.run([str(word) for word in command], cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=out,
                                stderr=subprocess.STDOUT).returncode
    if status != 0 and not may_fail:
        raise Failed
    return status


def _cmake(log, *words):
    _run(log, ["cmake", *words])


def _ctest(log, preset, *selection):
    results = log.with_suffix(".xml")
    status = _run(log, ["ctest", "--test-dir", paths.BUILD / preset, *selection, "-j", JOBS, "--timeout", "300",
                        "--output-on-failure", "--output-junit", results, "--no-tests=error"],
                  may_fail=True)
    if not results.exists():
        raise Failed
    suite = xml.etree.ElementTree.parse(results).getroot().attrib
    total, failed, skipped = (int(suite.get(key, 0)) for key in ("tests", "failures", "skipped"))
    disabled = int(suite.get("disabled", 0))
    if status != 0 and not failed:
        raise Failed
    return total - failed - skipped - disabled, failed, skipped + disabled


def _groups(names):
    """What the steps need installed. The applications of HyPer come from Python's own index, and are optional."""
    groups = ["build"]
    groups += ["clang"] if "clang" in names else []
    groups += ["redis", "loops", "runtimes", "postgres", "mariadb", "daemons", "reloads", "traced", "dbus", "selftests", "past_libc",
               "sandbox"] if "apps" in names else []
    return groups


def _install(names):
    packages.ensure(_groups(names))
    if "apps" in names and packages.missing(["hyper"]):
        try:
            packages.ensure(["hyper"])
        except packages.CannotInstall:
            pass  # its tests are then skipped, visibly


def _failures(log):
    """What failed and why: of a run of ctest each failed test with the beginning of what it wrote; of all else the lines that name a failing test or a
    compiler's error, each with the reason that an application test gives below it."""
    results = log.with_suffix(".xml")
    if results.exists():
        cases = xml.etree.ElementTree.parse(results).getroot().iter("testcase")
        return [line for case in cases if case.get("status") == "fail" for line in _failed_case(case)]
    found, inside = [], False
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        inside = line.startswith("FAILED ") or inside and line.startswith("    ")
        if inside or "error:" in line:
            found.append(line[:300])
    return found


def _failed_case(case):
    said = (case.findtext("system-out") or "").splitlines()
    return [f"{case.get('name')} failed", *(f"    {line[:300]}" for line in said[:15])]


def _show_failure(log):
    """What failed, then the end of the log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in [*_failures(log)[:40], "...", *lines[-40:]]:
        print(f"      | {line}")
    print(f"      | the whole log: {log.relative_to(paths.ROOT)}")


def _show_again(failed):
    """The failures of all steps once more, short: who sees only the end of the output learns what to look for."""
    for name in failed:
        print(f"failed in {name}:")
        for line in _failures(LOGS / f"{name}.log")[:20] or [f"see {(LOGS / f'{name}.log').relative_to(paths.ROOT)}"]:
            print(f"  {line}")


def _parse():
    listing = "\n".join(f"  {name:13} {getattr(Steps, name).__doc__}" for name in NAMES)
    parser = argparse.ArgumentParser(prog="./check", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description="Install what is missing, build, and run every test.", epilog=f"steps:\n{listing}")
    parser.add_argument("--quick", action="store_true", help=f"leave out {' and '.join(sorted(NOT_QUICK))}")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these, after the build where they need it")
    options = parser.parse_args()
    unknown = set(options.steps) - set(NAMES)
    if unknown:
        parser.error(f"no step named {', '.join(sorted(unknown))}; the steps are: {' '.join(NAMES)}")
    wanted = set(options.steps or NAMES) - (NOT_QUICK if options.quick else set())
    if wanted & NEEDS_BUILD:
        wanted.add("build")
    return [name for name in NAMES if name in wanted]


def main():
    names = _parse()
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        _install(names)
    except packages.CannotInstall as problem:
        print(problem)
        return 1
    session.interruptible()
    session.adopt_orphans()
    sums, built, failures = [0, 0, 0], True, []
    begun = time.monotonic()
    for index, name in enumerate(names, 1):
        head, started = f"[{index:2}/{len(names)}] {name:13}", time.monotonic()
        if not built and name in NEEDS_BUILD:
            print(f"{head} not run: there is no build", flush=True)
            sums[2] += 1
            continue
        if sys.stdout.isatty():
            print(f"{head} ...", end="\r", flush=True)
        log = LOGS / f"{name}.log"
        log.unlink(missing_ok=True)
        log.with_suffix(".xml").unlink(missing_ok=True)
        try:
            counts = getattr(Steps, name)(log)
        except Failed:
            counts = (0, 1, 0)
            built = built and name != "build"
        sums = [a + b for a, b in zip(sums, counts)]
        passed, failed, skipped = counts
        words = f"{passed} passed" + (f", {failed} FAILED" if failed else "") + (f", {skipped} skipped" if skipped else "")
        print(f"{head} {words:38} {time.monotonic() - started:6.1f} s", flush=True)
        if failed:
            failures.append(name)
            _show_failure(log)
    _show_again(failures)
    print(f"all steps took {time.monotonic() - begun:.0f} s\n")
    print(f"{sums[0]} passed, {sums[1]} failed" + (f", {sums[2]} skipped" if sums[2] else ""))
    return 1 if sums[1] or not sums[0] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped")
        sys.exit(130)
    finally:
        session.end_descendants(os.getpid())
