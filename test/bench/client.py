"""A client that costs little, in a process of its own: client.py JOBS

JOBS is a JSON list, and each job one connection:

    {"address": "/path" or ["localhost", 54322], "ca_file": "...", "head": "GET ...", "download": SIZE, "upload": SIZE}

It connects them all, prints "ready", waits for a line, moves the bytes, and prints "done". Data is neither read from a
disk nor written to one. It imports little, so it starts at once.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading

MIB = 1024**2


class Job:
    """One request on one connection."""

    def __init__(self, description: dict[str, object]) -> None:
        self._head = str(description["head"]).encode()
        self._download = int(description.get("download", 0))  # type: ignore[call-overload]
        self._upload = int(description.get("upload", 0))  # type: ignore[call-overload]
        self._sock = connect(description["address"], description.get("ca_file"))
        # No zeroes, which storage may find and treat in another way.
        self._buffer = memoryview(bytearray(os.urandom(MIB).replace(b"\0", b"\1")))
        self.done = False

    def run(self) -> None:
        """Send the request and read the response; self.done tells that it was complete."""
        try:
            self._send()
        except OSError:
            # The server closed; it may have said why.
            self._read_head()
            raise
        left = self._download - len(self._read_head())
        while left > 0:
            count = self._sock.recv_into(self._buffer)
            if not count:
                raise ConnectionError(f"{left} bytes are missing")
            left -= count
        self.done = True

    def close(self) -> None:
        """Leave."""
        self._sock.close()

    def _send(self) -> None:
        self._sock.sendall(self._head)
        for start in range(0, self._upload, MIB):
            self._sock.sendall(self._buffer[: min(MIB, self._upload - start)])

    def _read_head(self) -> bytes:
        """Return what came of the body together with the head."""
        head = b""
        while b"\r\n\r\n" not in head:
            received = self._sock.recv(4096)
            if not received:
                raise ConnectionError(f"closed after {head!r}")
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        if head.split()[1] not in (b"200", b"206"):
            raise ValueError(f"{head!r} {body!r}")
        return body


def connect(address: object, ca_file: object) -> socket.socket:
    """Connect to a path, or to host and port with TLS."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
        return sock
    host, port = address  # type: ignore[misc]
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return ssl.create_default_context(cafile=str(ca_file)).wrap_socket(sock, server_hostname=host)


def main(jobs: list[Job]) -> int:
    """Run all jobs at once; return an exit status."""
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=job.run) for job in jobs[1:]]
    for thread in threads:
        thread.start()
    jobs[0].run()
    for thread in threads:
        thread.join()
    print("done", flush=True)
    return 0 if all(job.done for job in jobs) else 1


if __name__ == "__main__":
    sys.exit(main([Job(description) for description in json.loads(sys.argv[1])]))
