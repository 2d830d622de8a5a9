#!/usr/bin/env python3
"""Sends a long stream to something that echoes it, and expects exactly the same bytes back, and then the end."""
import argparse
import random
import socket
import sys
import threading


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket")
    parser.add_argument("--mebibytes", type=int, default=64)
    options = parser.parse_args()
    data = random.Random(64).randbytes(options.mebibytes << 20)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(options.socket)
        for number in range(10):  # nothing is moved to shared memory while another thread writes: that comes first
            connection.sendall(data[:1000])
            if connection.recv(1000, socket.MSG_WAITALL) != data[:1000]:
                return f"the short answer {number} is another one"

        def send():
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received = 0
        while piece := connection.recv(256 << 10):
            if data[received:received + len(piece)] != piece:
                return f"{len(piece)} bytes at {received} are others"
            received += len(piece)
        sender.join()
    return 0 if received == len(data) else f"the end came after {received} of {len(data)} bytes"


if __name__ == "__main__":
    sys.exit(main())
