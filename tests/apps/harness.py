"""Registers tests, runs them one by one with a line each, and counts. A test is a function of (session, way)."""
import fnmatch
import sys
import time
import traceback
from collections import namedtuple

Test = namedtuple("Test", "name function way")
TESTS = []


class Skip(Exception):
    """The test cannot be run here; the text says why."""


def app_test(*ways):
    """Register a function once for each way, or once if it knows of none."""
    def register(function):
        base = f"{function.__module__.removesuffix('_tests')}.{function.__name__}"
        TESTS.extend(Test(f"{base} [{way.name}]", function, way) for way in ways)
        if not ways:
            TESTS.append(Test(base, function, None))
        return function
    return register


def expect_success(result):
    assert result.status == 0, str(result)
    return result


def chosen(patterns):
    return [test for test in TESTS
            if not patterns or any(fnmatch.fnmatchcase(test.name, f"*{pattern}*") for pattern in patterns)]


def run(tests, session, times=1):
    """Each test, `times` times. Returns (passed, failed, skipped)."""
    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    for test in (test for test in tests for _ in range(times)):
        started = time.monotonic()
        verdict, detail = "ok", ""
        try:
            test.function(session, test.way) if test.way else test.function(session)
        except Skip as reason:
            verdict, detail = "skipped", str(reason)
        except Exception as problem:  # an assertion or a server's trouble: both fail the test, the next one goes on
            verdict, detail = "FAILED", _explain(problem)
        counts[verdict] += 1
        print(f"{verdict:8} {time.monotonic() - started:5.1f} s  {test.name}", flush=True)
        if detail:
            print("".join(f"    {line}\n" for line in detail.splitlines()), end="", flush=True)
    return tuple(counts.values())


def _explain(problem):
    where = [frame for frame in traceback.extract_tb(sys.exc_info()[2]) if frame.filename.endswith("_tests.py")]
    place = f"{where[-1].filename.rpartition('/')[2]}:{where[-1].lineno}: " if where else ""
    return f"{place}{type(problem).__name__}: {problem}"
