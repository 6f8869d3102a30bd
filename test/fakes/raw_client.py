"""An HTTP client that sends exactly the bytes it is told, and reads answers by the letter."""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import NamedTuple, Optional

from fakes.waiting import DEADLINE

__all__ = ["Answer", "RawClient", "connect"]


class Answer(NamedTuple):
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class RawClient:
    """A connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        self.sock = sock
        self.buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self) -> None:
        """Tell the server that nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)

    def ask(self, request: bytes, method: str = "GET") -> Answer:
        """Send a request, read its answer."""
        self.send(request)
        return self.answer(method)

    def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        fields = "".join(f"{header}\r\n" for header in headers)
        return self.ask(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode(), method)

    def put(self, path: str, body: bytes, *headers: str, method: str = "PUT") -> Answer:
        fields = "".join(f"{header}\r\n" for header in headers)
        head = f"{method} {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n{fields}\r\n".encode()
        return self.ask(head + body, method)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; what may follow it stays."""
        head = self.read_until(b"\r\n\r\n")
        status_line, *lines = head[:-4].decode().split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) .+", status_line)
        assert match, status_line
        headers = dict(line.split(": ", 1) for line in lines)
        status = int(match.group(1))
        if method == "HEAD" or status < 200 or status == 204:
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = self.read_chunks()
        elif "content-length" in headers:
            body = self.read_exactly(int(headers["content-length"]))
        else:
            body = self.read_to_end()
        return Answer(status, headers, body, head)

    def read_chunks(self) -> bytes:
        body = b""
        while True:
            size = int(self.read_until(b"\r\n"), 16)
            body += self.read_exactly(size)
            assert self.read_exactly(2) == b"\r\n"
            if not size:
                return body

    def read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            self._receive(f"{end!r}")
        size = self.buffer.index(end) + len(end)
        return self._take(size)

    def read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._receive(f"{size} bytes")
        return self._take(size)

    def read_to_end(self) -> bytes:
        while True:
            data = self.sock.recv(65536)
            if not data:
                return self._take(len(self.buffer))
            self.buffer += data

    def is_closed(self) -> bool:
        """Wait for the end; return True if there was nothing before it."""
        return self.read_to_end() == b""

    def _receive(self, expected: str) -> None:
        data = self.sock.recv(65536)
        assert data, f"the server closed after {self.buffer[:500]!r} instead of {expected}"
        self.buffer += data

    def _take(self, size: int) -> bytes:
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


def connect(server, context: Optional[ssl.SSLContext] = None, host: str = "127.0.0.1") -> RawClient:
    """Connect to a Server on a TCP or Unix address."""
    if server.path:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(server.path)
    else:
        sock = socket.create_connection((host, server.port), DEADLINE)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    return RawClient(sock)
