"""The processes and the directory of one run, and their end: whatever happens, nothing that was started here stays.

Orphans of what we start become our children (subreaper), so the last sweep finds them by their parentage and
ends them by pid: never by name.
"""
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from . import paths, preload

PR_SET_CHILD_SUBREAPER = 36


class Result:
    """How a program ended. `status` is negative for a signal, None when it had to be ended for lateness."""

    def __init__(self, argv, status, out, err, note=""):
        self.argv, self.status, self.out, self.err, self.note = argv, status, out, err, note

    @property
    def text(self):
        return self.out.decode(errors="replace")

    @property
    def errors(self):
        return self.err.decode(errors="replace")

    def __str__(self):
        how = "was ended: too late" if self.status is None else f"status {self.status}"
        return f"{' '.join(map(str, self.argv))[:300]}\n{how} {self.note}\n{self.text[-1500:]}{self.errors[-1500:]}"


class Session:
    def __init__(self):
        adopt_orphans()
        self.account = _service_account() if os.geteuid() == 0 else None
        base = tempfile.gettempdir()
        self.dir = Path(tempfile.mkdtemp(prefix="shunt-", dir=base if len(base) < 40 else "/tmp"))
        self.give(self.dir)
        self.templates = {}  # data directories made once and copied
        self.shunt = self._reachable_shunt()
        self._serial = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        previous = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        end_descendants(os.getpid())
        shutil.rmtree(self.dir, ignore_errors=True)
        for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), previous):
            signal.signal(number, handler)

    def directory(self, name):
        """A new directory that the servers' account owns."""
        self._serial += 1
        path = self.dir / f"{name}{self._serial}"
        path.mkdir()
        self.give(path)
        return path

    def give(self, path):
        if self.account:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def start(self, argv, log=None, as_server=False, how=preload.KERNEL, report=None, stdin=subprocess.DEVNULL,
              cwd=None, pipe=False):
        """Start a program. With `pipe` its output can be collected by `finish`; else it goes to the file `log`."""
        who = {}
        environment = {key: value for key, value in os.environ.items()
                       if key != "LD_PRELOAD" and not key.startswith("SHUNT_")}
        environment.update(TMPDIR=str(self.dir), LC_ALL="C.UTF-8", PGCONNECT_TIMEOUT="20", PSQL_HISTORY="/dev/null",
                           PYTHONDONTWRITEBYTECODE="1")
        if as_server and self.account:
            who = dict(user=self.account.pw_uid, group=self.account.pw_gid, extra_groups=[])
            environment.update(HOME=str(self.dir), USER=self.account.pw_name, LOGNAME=self.account.pw_name)
        argv = preload.wrap(self.shunt, [str(word) for word in argv], how, report)
        out = subprocess.PIPE if pipe else open(log, "ab") if log else subprocess.DEVNULL
        try:
            return subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=subprocess.PIPE if pipe else subprocess.STDOUT,
                                    env=environment, cwd=cwd or self.dir, start_new_session=True, **who)
        finally:
            if out not in (subprocess.PIPE, subprocess.DEVNULL):
                out.close()

    def finish(self, process, timeout, input=None):
        """Wait for a program started with `pipe`; one that is late is ended, and what it was doing is noted."""
        try:
            out, err = process.communicate(input=input, timeout=timeout)
            return Result(process.args, process.returncode, out, err)
        except subprocess.TimeoutExpired:
            note = f"after {timeout:g} s; {_state(process.pid)}"
            end_descendants(process.pid)
            process.kill()
            out, err = process.communicate()
            return Result(process.args, None, out, err, note)
        except BaseException:
            end_descendants(process.pid)
            process.kill()
            raise

    def run(self, argv, timeout=60, input=None, **options):
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        return self.finish(self.start(argv, pipe=True, stdin=stdin, **options), timeout, input)

    def _reachable_shunt(self):
        """The command, copied if the servers' account could not reach the build directory (a clone in /root)."""
        if not self.account or not paths.SHUNT.exists() or _open_to_all(paths.SHUNT):
            return paths.SHUNT
        for source, folder in ((paths.SHUNT, "bin"), (paths.LIBRARY, "lib")):
            target = self.dir / "shunt" / folder
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        for path in (self.dir / "shunt").rglob("*"):
            path.chmod(0o755)
        return self.dir / "shunt" / "bin" / "shunt"


def adopt_orphans():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _service_account():
    """PostgreSQL and MariaDB refuse to serve as root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SystemExit("running as root needs an account named postgres or nobody for the servers")


def _open_to_all(path):
    return all(parent.stat().st_mode & 0o001 for parent in path.parents) and bool(path.stat().st_mode & 0o001)


def _parents():
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            table[int(entry)] = (int(fields[1]), fields[0])
    return table


def descendants(ancestor):
    """Pids of the living processes below `ancestor`, nearest first."""
    table, found, front = _parents(), [], {ancestor}
    while front:
        front = {pid for pid, (parent, state) in table.items() if parent in front and state != "Z"}
        found += sorted(front)
    return found


def title(pid):
    """Its command line, which some programs write themselves; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def end_descendants(ancestor):
    for _ in range(100):
        living = descendants(ancestor)
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if ancestor == os.getpid():
            _reap()
        if not living:
            return
        time.sleep(0.02)


def _reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _state(pid):
    """What a process that does not end is doing, for the report of a hang."""
    words = []
    for each in [pid, *descendants(pid)]:
        for task in sorted(Path(f"/proc/{each}/task").glob("*")):
            try:
                words.append(f"{each}/{task.name} {(task / 'comm').read_text().strip()} {(task / 'wchan').read_text()} "
                             f"syscall {(task / 'syscall').read_text().split()[0]}")
            except OSError:
                continue
    return "; ".join(words[:20])


def interruptible():
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that sessions close; Ctrl-C does so in background jobs too."""
    def stop(number, _):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
