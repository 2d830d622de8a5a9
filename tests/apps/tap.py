"""Test programs of other people that speak TAP: what they say under Shunt is what they say without it."""
import re

from harness import Skip

LINE = re.compile(r"^(ok|not ok) \d+ ?-? ?(.*?)\s*(?:# ?(SKIP|TODO|XFAIL)\b.*)?$", re.M | re.I)


def results(text):
    """Of each case (verdict, name, directive), in order."""
    return [(verdict, name, directive.upper()) for verdict, name, directive in LINE.findall(text)]


def on_the_kernel(session, argv, **options):
    """The results without Shunt, found once in a session. Skip: what fails on this machine anyway says nothing."""
    key = ("tap", *map(str, argv))
    if key not in session.templates:
        session.templates[key] = session.run(argv, timeout=120, **options)
    result = session.templates[key]
    found = results(result.text)
    if result.status == 0 and not found and result.text.startswith("1..0"):
        raise Skip(f"it skips all on this machine: {result.text.strip()[:200]}")
    if result.status != 0 or not found or any(verdict != "ok" for verdict, _, _ in found):
        raise Skip(f"it does not pass on the kernel of this machine: {result}")
    return found


def expect_the_same(session, argv, how, report, **options):
    """The program under `how`, with the results that it had without."""
    known = ("tap", *map(str, argv)) in session.templates
    wanted = on_the_kernel(session, argv, **options)
    if how is None and not known:
        return
    result = session.run(argv, timeout=60, how=how, report=report, **options)
    got = results(result.text)
    differences = [f"{have} instead of {want}" for want, have in zip(wanted, got) if want != have]
    assert result.status == 0 and not differences and len(got) == len(wanted), (
        f"{len(got)} of {len(wanted)} cases; {'; '.join(differences[:5])}\n{result}")
