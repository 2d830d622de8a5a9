#!/usr/bin/env python3
"""Talks to processes_server.py, in one process and in children of its own; every answer is known beforehand."""
import argparse
import multiprocessing
import sys
from multiprocessing.connection import Client
from multiprocessing.managers import SyncManager

import processes

ROUNDS = 30


def connect(path, where):
    connection = Client(path, "AF_UNIX", authkey=processes.KEY)
    connection.send(where)
    processes.exchange(connection, where, processes.BEFORE)
    return connection


def check_places(path, places):
    """All of the connections are open at once, except those that the server serves itself."""
    open_ones = []
    for place in places:
        connection = connect(path, place)
        processes.exchange(connection, place, ROUNDS * 2)  # more than what `stay_beside_programs` counts
        if place.startswith("stay"):
            connection.close()
        else:
            open_ones.append((place, connection))
    for place, connection in open_ones:
        processes.exchange(connection, f"{place} again", ROUNDS)
    for _, connection in open_ones:
        connection.close()


def check_own_child(context, path):
    """A connection used by this process, then by a child, then by this process again."""
    with connect(path, "stay") as connection:
        for turn in range(2):
            child = context.Process(target=processes.exchange, args=(connection, f"child {turn}", ROUNDS))
            child.start()
            child.join()
            if child.exitcode != 0:
                raise SystemExit(f"a child ended with status {child.exitcode}")
            processes.exchange(connection, f"parent {turn}", ROUNDS)


class Manager(SyncManager):
    pass


Manager.register("table")
Manager.register("entries")


def managed(path, number, count):
    processes.use_key()
    manager = Manager(path, processes.KEY)
    manager.connect()
    table, entries = manager.table(), manager.entries()
    for turn in range(count):
        key, value = f"{number} {turn}", "x" * (number * turn * 50)
        table[key] = value
        if table.get(key) != value:
            raise SystemExit(f"process {number}: {key} is another")
        entries.append((number, turn))


def check_manager(context, path, children=3, count=40):
    """Children and this process change a dictionary and a list of the server's manager."""
    running = [context.Process(target=managed, args=(path, number, count)) for number in range(1, children + 1)]
    for child in running:
        child.start()
    managed(path, 0, count)
    for child in running:
        child.join()
    manager = Manager(path, processes.KEY)
    manager.connect()
    wanted = {(number, turn) for number in range(children + 1) for turn in range(count)}
    entries = manager.entries()
    found = [entries[at] for at in range(len(entries))]
    if set(found) != wanted or len(found) != len(wanted) or len(manager.table()) != len(wanted):
        raise SystemExit(f"{len(found)} entries, {len(manager.table())} in the table, instead of {len(wanted)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=processes.METHODS)
    parser.add_argument("socket")
    parser.add_argument("places", nargs="+", help="methods of processes_server.py's Server")
    parser.add_argument("--children", action="store_true", help="and with children, and the manager")
    options = parser.parse_args()
    processes.use_key()
    check_places(options.socket, options.places)
    if options.children:
        context = multiprocessing.get_context(options.method)
        check_own_child(context, options.socket)
        check_manager(context, options.socket + ".manager")


if __name__ == "__main__":
    sys.exit(main())
