"""Shunt before a command, and what the processes reported of it afterwards."""
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Preload:
    """How `shunt run` is called for one end. None instead of a Preload means: without Shunt."""
    settings: tuple = ()  # ("upgrade=eager", ...)
    only: str = ""


KERNEL = None
AUTO = Preload()
EAGER = Preload(("upgrade=eager",))


def chaos(seed):
    return Preload((f"upgrade=chaos:{seed}",))


def wrap(shunt, argv, how, report):
    if how is KERNEL:
        return argv
    words = [str(shunt), "run"]
    for setting in how.settings:
        words += ["--set", setting]
    if how.only:
        words += ["--only", how.only]
    if report:
        words += ["--report", str(report)]
    return [*words, "--", *argv]


class Report:
    """The sum of the lines that processes appended to one report file; no file means that none was aware."""

    def __init__(self, path, program=""):
        text = Path(path).read_text() if Path(path).exists() else ""
        # A line without its end is being written, by a process that nobody waits for: a write over two pages of a file shows one before the other.
        # One that was killed there (SIGKILL) leaves the beginning of a line in front of the next one.
        lines = [line[max(line.rfind('{"program":'), 0):] for line in text[:text.rfind("\n") + 1].splitlines()]
        self.lines = [line for line in map(self._parsed, lines) if program in Path(line["program"]).name]

    @staticmethod
    def _parsed(line):
        try:
            return json.loads(line)
        except json.JSONDecodeError as problem:
            raise ValueError(f"{problem}: {line!r}") from None

    @property
    def upgraded(self):
        return sum(line["connections"]["upgraded"] for line in self.lines)

    @property
    def demoted(self):
        return sum(line["connections"]["demoted"] for line in self.lines)

    @property
    def ring_bytes(self):
        return sum(line["ring"]["bytes_in"] + line["ring"]["bytes_out"] for line in self.lines)

    @property
    def ring_in(self):
        return sum(line["ring"]["bytes_in"] for line in self.lines)

    @property
    def ring_out(self):
        return sum(line["ring"]["bytes_out"] for line in self.lines)

    @property
    def plain(self):
        """Connections that stayed on the kernel, by reason."""
        total = {}
        for line in self.lines:
            for reason, count in line["connections"]["plain"].items():
                total[reason] = total.get(reason, 0) + count
        return total

    def __str__(self):
        return (f"{len(self.lines)} processes, {self.upgraded} upgraded, {self.demoted} demoted, plain {self.plain}, "
                f"ring bytes in {self.ring_in} out {self.ring_out}")


def loaded(pid):
    """Whether a process has the library: for programs that end without a report."""
    return "/libshunt.so" in Path(f"/proc/{pid}/maps").read_text()
