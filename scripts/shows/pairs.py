"""Kernel and Shunt in turns, so that a change of the machine's mood meets both."""
from lab.preload import AUTO, KERNEL

from .table import Shown, ends, progress


def run(session, make_server, rows, measure, check, pairs, operation):
    """Show one server.

    make_server(how)           a started server, one for the kernel runs and one under Shunt
    measure(server, how)       one (rate, latency in µs) for each row
    check(server, how)         raises, or says how many answers were right
    """
    with make_server(KERNEL) as kernel, make_server(AUTO) as shunt:
        for pair in range(1, pairs + 1):
            figures = measure(kernel, KERNEL), measure(shunt, AUTO)
            for row, before, after in zip(rows, *figures):
                row.kernel.append(before)
                row.shunt.append(after)
                progress(shunt.name, pair, pairs, row)
        answers = check(shunt, AUTO)
        title = f"{shunt.title()}, {operation}"
        shunt.stop()
        proof, wrong = ends(shunt.report(), shunt.client_report())
    return Shown(title, rows, [*proof, f"answers compared under Shunt: {answers}"], wrong)
