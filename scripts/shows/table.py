"""Figures of kernel and Shunt runs in pairs, their medians, and the table at the end."""
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """One operation: what each run measured, in the order of the runs. A latency of 0 means: there is none."""

    what: str
    kernel: list = field(default_factory=list)  # (operations each second, latency in µs)
    shunt: list = field(default_factory=list)

    def medians(self):
        return [median(run[i] for run in runs) for i in (0, 1) for runs in (self.kernel, self.shunt)]


@dataclass
class Shown:
    """What a show found out. `wrong` is empty, or says what makes the figures worthless."""

    title: str
    rows: list
    proof: list  # lines
    wrong: list = field(default_factory=list)


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _columns(before, after, ratio):
    return f"{_number(before):>11} {_number(after):>11} {ratio:>6.1f} x" if before and after else " " * 32


def render(shown):
    width = max(len(row.what) for each in shown for row in each.rows) + 4
    lines = [" " * width + f"{'rate: kernel':>13} {'Shunt':>9} {'gain':>8}  {'µs: kernel':>12} {'Shunt':>9} {'gain':>8}"]
    for each in shown:
        lines += ["", each.title]
        for row in each.rows:
            rate, shunt_rate, latency, shunt_latency = row.medians()
            lines.append(f"  {row.what:{width - 2}}  {_columns(rate, shunt_rate, shunt_rate / rate if rate else 0)} "
                         f" {_columns(latency, shunt_latency, latency / shunt_latency if shunt_latency else 0)}".rstrip())
        lines += [f"    {line}" for line in each.proof]
        lines += [f"    WRONG: {line}" for line in each.wrong]
    return "\n".join(lines)


def ends(server, client):
    """(proof lines, complaints) from the reports of both ends."""
    lines, wrong = [], []
    for end, report in (("server", server), ("client", client)):
        lines.append(f"{end}: {report.upgraded:,} connections upgraded, through rings "
                     f"{report.ring_in / 1e6:,.1f} MB in, {report.ring_out / 1e6:,.1f} MB out")
        if not report.upgraded or not report.ring_bytes:
            wrong.append(f"the {end} was not accelerated; plain connections: {report.plain or 'none'}")
    return lines, wrong


def progress(name, pair, pairs, row):
    kernel, shunt = row.kernel[-1], row.shunt[-1]
    latency = f"   {kernel[1]:.1f} µs / {shunt[1]:.1f} µs" if kernel[1] and shunt[1] else ""
    print(f"{name:9} pair {pair} of {pairs}   {row.what:34} {kernel[0]:>12,.0f} / {shunt[0]:>12,.0f}{latency}", flush=True)
