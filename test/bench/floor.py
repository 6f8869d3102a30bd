"""The floor under a transfer over HTTPS: what encrypting 1 GiB costs alone, and what the kernel's copies cost alone.

    .venv/bin/python test/bench/floor.py

Prints CPU seconds for 1 GiB, the median of five. No server that moves bytes between an NBD server and TLS, in one
process and without the kernel's help, takes less.
"""

from __future__ import annotations

import multiprocessing
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[depth]) for depth in (1, 2)]

from bench.arena import GIB, MIB  # noqa: E402  (the path comes first)
from bench.peers import need  # noqa: E402

__all__ = ["copy", "cost_of_aes", "tcp_pair"]

ROUNDS = 5
# What our sockets send, and receive, at once.
STEP = 256 * 1024
# The cipher that TLS 1.3 prefers, in records of this size.
CIPHER = "aes-256-gcm"
RECORD = 16 * 1024

SECONDS = struct.Struct("d")


def cost_of_aes(seconds: int = 1) -> float:
    """Return the CPU seconds that encrypting 1 GiB takes. Raises Missing."""
    command = [need("openssl"), "speed", "-seconds", str(seconds), "-bytes", str(RECORD), "-evp", CIPHER]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"([0-9.]+)k\s*$", output)
    assert found is not None, output
    return GIB / (float(found.group(1)) * 1000)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def copy(connect: Callable[[], tuple[socket.socket, socket.socket]], size: int = GIB) -> tuple[float, float]:
    """Return the CPU seconds that sending 1 GiB takes, and receiving it, in two processes; move only `size`."""
    ours, theirs = connect()
    receiver = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,))
    receiver.start()
    theirs.close()
    view = memoryview(bytearray(b"\1" * STEP))
    with ours:
        # The receiver is there when it says so: its start does not count.
        ours.recv(1)
        started = time.process_time()
        for _ in range(size // STEP):
            ours.sendall(view)
        sent = time.process_time() - started
        ours.shutdown(socket.SHUT_WR)
        (received,) = SECONDS.unpack(ours.recv(SECONDS.size, socket.MSG_WAITALL))
    receiver.join()
    return sent * GIB / size, received * GIB / size


def receive(sock: socket.socket) -> None:
    """Drop what comes until it ends, then tell what that cost."""
    view = memoryview(bytearray(MIB))
    sock.sendall(b"x")
    started = time.process_time()
    while sock.recv_into(view):
        pass
    with sock:
        sock.sendall(SECONDS.pack(time.process_time() - started))


def main() -> None:
    """Print the table."""
    samples = [(cost_of_aes(), *copy(tcp_pair), *copy(socket.socketpair)) for _ in range(ROUNDS)]
    aes, tcp_sent, tcp_received, unix_sent, unix_received = map(statistics.median, zip(*samples))
    print(f"AES-256-GCM {aes:.3f}")
    print(f"TCP on loopback: send {tcp_sent:.3f}, receive {tcp_received:.3f}")
    print(f"Unix socket: send {unix_sent:.3f}, receive {unix_received:.3f}")
    print(f"Download from nbd over HTTPS: {unix_received + aes + tcp_sent:.3f}")
    print(f"Upload to nbd over HTTPS: {tcp_received + aes + unix_sent:.3f}")


if __name__ == "__main__":
    main()
