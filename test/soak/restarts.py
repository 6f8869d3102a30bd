"""Restarts of the service under load: restarts.py [--restarts N] [--clients N]

Each client writes and reads a disk of its own all the time. In each life of the daemon each of them gets an answer. No
connection may be refused, no ticket lost, no byte wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

from fakes.manager import Manager
from fakes.persistent import PersistentClient
from fakes.waiting import DEADLINE, wait_until
from real import daemon as real_daemon
from real.certificates import certificate

MIB = 1024**2


def main(arguments: list[str]) -> int:
    """Restart; return an exit status."""
    parser = argparse.ArgumentParser(prog="restarts")
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--size", type=int, default=MIB, help="of each disk")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="restarts-") as name:
        folder = Path(name)
        # Short, so that some requests are cut.
        real_daemon.write_config(folder, "[daemon]\ndrain_timeout = 0.05\n")
        (folder / "daemon.log").touch()
        with Manager(folder) as manager:
            faults = restart(manager, folder, options.restarts, options.clients, options.size)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def restart(manager: Manager, folder: Path, restarts: int, clients: int, size: int) -> list[str]:
    """Restart the daemon again and again under its clients; return what went wrong."""
    manager.start()
    assert manager.process is not None
    addresses = dict(real_daemon.LISTENING.findall((folder / "daemon.log").read_text()))
    daemon = real_daemon.Daemon(manager.process, folder, addresses, certificate().ca_file)
    is_over = threading.Event()
    workers = [PersistentClient(daemon, folder / f"disk-{number}", size, is_over) for number in range(clients)]
    for worker in workers:
        worker.start()
    try:
        for number in range(restarts):
            seen = [worker.rounds for worker in workers]
            wait_until(lambda seen=seen: all(w.rounds > r or w.faults for w, r in zip(workers, seen)))  # type: ignore[misc]
            manager.restart()
            if number % 10 == 9:
                rounds, cuts = (sum(getattr(w, name) for w in workers) for name in ("rounds", "cuts"))
                print(f"{number + 1} restarts, {rounds} disks written and read, {cuts} requests cut", flush=True)
    finally:
        is_over.set()
        for worker in workers:
            worker.join(DEADLINE)
    return [f"{worker.name}: {fault}" for worker in workers for fault in worker.faults]
