"""What the server and the client of Python's processes agree on: objects sent back over a multiprocessing Connection."""
import multiprocessing
import random

KEY = b"shunt"
END = "end"
METHODS = ("fork", "spawn", "forkserver")
BEFORE = 12  # objects exchanged before a connection goes anywhere: it has moved to shared memory by then


def echo(connection, count=None):
    """Until the end, or `count` times."""
    try:
        while count is None or count > 0:
            connection.send_bytes(connection.recv_bytes())
            count = None if count is None else count - 1
    except EOFError:
        pass


def exchange(connection, seed, count):
    """Random objects there and back, each of which must come back as it was."""
    source = random.Random(seed)
    for number in range(count):
        sent = {"number": number, "data": source.randbytes(source.choice((1, 100, 100, 20_000, 150_000)))}
        connection.send(sent)
        if connection.recv() != sent:
            raise SystemExit(f"connection {seed}: object {number} came back otherwise")


def use_key():
    multiprocessing.current_process().authkey = KEY
