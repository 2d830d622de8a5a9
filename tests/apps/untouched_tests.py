"""Programs that use no unix socket: with Shunt they print the same, end the same and start as fast."""
import resource
import sys

from harness import app_test
from lab.preload import AUTO, Report


def _same(session, argv, *files):
    """Run twice; output, errors, status and the files made must be equal."""
    seen = []
    for how in (None, AUTO):
        result = session.run(argv, how=how)
        seen.append((result.status, result.out, result.err, [path.read_bytes() for path in files]))
        for path in files:
            path.unlink()
    assert seen[0] == seen[1], f"{argv}: differs: {seen[0][:3]} {seen[1][:3]}"
    return seen[0]


@app_test()
def ls(session):
    assert _same(session, ["ls", "-l", "/usr/bin"])[0] == 0
    assert _same(session, ["ls", "/no/such/directory"])[0] == 2


@app_test()
def python(session):
    assert _same(session, [sys.executable, "-c", "pass"])[:3] == (0, b"", b"")
    _same(session, [sys.executable, "-c", "import sys; print(sys.version); sys.exit(7)"])
    _same(session, [sys.executable, "-c", "import subprocess; print(subprocess.check_output(['echo', 'child']))"])


@app_test()
def compiler(session):
    """gcc starts children of its own: cc1, as, ld."""
    work = session.directory("gcc")
    source, program = work / "a.c", work / "a"
    source.write_text('#include <stdio.h>\nint main(void) { int unused; return puts("hello") < 0; }\n')
    assert _same(session, ["gcc", "-Wall", "-O2", "-o", program, source], program)[0] == 0
    source.write_text("int main(void) { return nothing; }\n")
    assert _same(session, ["gcc", "-c", "-o", program, source])[0] == 1


@app_test()
def shell_pipeline(session):
    _same(session, ["sh", "-c", "seq 1 20000 | sort -r | tail -n 3; exit 3"])
    _same(session, ["sh", "-c", "kill -TERM $$"])


@app_test()
def socketpair_is_plain_with_its_reason(session):
    program = "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(9) == b'x'; c = socket.socketpair(type=socket.SOCK_DGRAM)"
    report = session.directory("socketpair") / "report"
    assert session.run([sys.executable, "-c", program], how=AUTO, report=report).status == 0
    assert Report(report).plain == {"socketpair": 1}, f"{Report(report)}"


@app_test()
def start_up_within_two_milliseconds(session):
    """Of a CPU: the least of many starts of `true`. The command `shunt run` itself is not counted, so the library is preloaded by hand."""
    library = session.shunt.parent.parent / "lib" / "libshunt.so"
    least = {}
    for _ in range(60):
        for words in (["env", "true"], ["env", f"LD_PRELOAD={library}", "true"]):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert session.run(words).status == 0
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            least[len(words)] = min(took, least.get(len(words), took))
    added = (least[3] - least[2]) * 1000
    assert added < 2, f"start-up takes {added:.2f} ms longer"
