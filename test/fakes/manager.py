"""A service manager, as a daemon sees it: listens to sd_notify(3), keeps descriptors, and starts the daemon again.

    with Manager(folder) as manager:
        manager.start()
        manager.restart()

Speaks the protocols as systemd does: what it keeps is gone after stop(), and survives restart() and crash().
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Optional

from fakes.waiting import DEADLINE, wait_until

__all__ = ["Manager"]

ROOT = Path(__file__).resolve().parents[2]

# Becomes the daemon, with the descriptors whose numbers are its arguments as 3, 4 and so on. First out of the way, as
# one may have the number that another one gets.
BECOME = """\
import os, sys
count = int(sys.argv[1])
for index, text in enumerate(sys.argv[2:2 + count]):
    os.dup2(int(text), 500 + index)
for index in range(count):
    os.dup2(500 + index, 3 + index)
os.closerange(3 + count, 1000)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count:]])
"""


class Manager:
    """Runs the daemon whose configuration is in `folder`.

    limit: how many descriptors it keeps. opened: sockets of its own, by the name that a socket unit gives them.

    Threads: the methods by one; what the daemon says is read by another.
    """

    def __init__(self, folder: Path, limit: int = 64, opened: Optional[dict[str, list[socket.socket]]] = None) -> None:
        self.folder = folder
        self.limit = limit
        self.opened = opened or {}
        # What it keeps, by name, and what it was told.
        self.kept: dict[str, list[int]] = {}
        self.told: list[str] = []
        self.process: Optional[subprocess.Popen[bytes]] = None
        self._address = f"@imageio-manager-{os.getpid()}-{id(self)}"
        self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inbox.bind("\0" + self._address[1:])
        self._is_ending = threading.Event()
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="manager")

    def __enter__(self) -> Manager:
        self._reader.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._is_ending.set()
        self._reader.join()
        self._inbox.close()
        self.drop()

    def start(self) -> None:
        """Start the daemon with everything that is kept, and wait until it is ready."""
        self.launch()
        self.wait_told("READY=1")

    def launch(self) -> None:
        """Start the daemon, and wait for nothing."""
        with self._lock:
            self.told.clear()
            given = [(name, sock.fileno()) for name, socks in self.opened.items() for sock in socks]
            given += [(name, descriptor) for name, descriptors in self.kept.items() for descriptor in descriptors]
        numbers = [str(descriptor) for _, descriptor in given]
        arguments = ["-m", "ovirt_imageio.service.cli", "-c", str(self.folder / "etc")]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "NOTIFY_SOCKET": self._address}
        if given:
            environ.update(LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=":".join(name for name, _ in given))
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", BECOME, str(len(given)), *numbers, *arguments],
            env=environ,
            pass_fds=[descriptor for _, descriptor in given],
            cwd=ROOT,
        )

    def restart(self) -> None:
        """What `systemctl restart` does."""
        assert self.end(signal.SIGTERM) == 0
        self.start()

    def stop(self) -> None:
        """What `systemctl stop` does."""
        assert self.end(signal.SIGTERM) == 0
        self.drop()

    def end(self, number: signal.Signals) -> int:
        """End the daemon with a signal; return its status when everything that it has said was read."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        wait_until(lambda: not select.select([self._inbox], [], [], 0)[0])
        with self._lock:
            return status

    def drop(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            for descriptor in (descriptor for kept in self.kept.values() for descriptor in kept):
                os.close(descriptor)
            self.kept.clear()

    def wait_told(self, text: str) -> None:
        """Wait until the daemon says something."""
        assert self.process is not None
        process = self.process

        def is_told() -> bool:
            assert process.poll() is None, f"The daemon ended with {process.returncode}: {self.told}"
            return text in self.told

        wait_until(is_told, lambda: f"Only {self.told}")

    def _read(self) -> None:
        while not self._is_ending.is_set():
            if not select.select([self._inbox], [], [], 0.05)[0]:
                continue
            with self._lock:
                message, descriptors, _, _ = socket.recv_fds(self._inbox, 4096, 64)
                self._hear(message.decode(), descriptors)

    def _hear(self, message: str, descriptors: list[int]) -> None:
        self.told.append(message)
        fields = dict(line.split("=", 1) for line in message.splitlines())
        name = fields.get("FDNAME", "stored")
        with contextlib.ExitStack() as unused:
            for descriptor in descriptors:
                if "FDSTORE" in fields and sum(map(len, self.kept.values())) < self.limit:
                    self.kept.setdefault(name, []).append(descriptor)
                else:
                    # As for BARRIER=1, whose sender waits for that.
                    unused.callback(os.close, descriptor)
            if "FDSTOREREMOVE" in fields:
                for descriptor in self.kept.pop(name, []):
                    unused.callback(os.close, descriptor)
