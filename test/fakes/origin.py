"""Origins: one that serves a disk in memory, and one that does what a script says.

with DiskOrigin(b"data") as origin:         answers like a daemon, new or old
    Image(origin.url)
with ScriptedOrigin(first, second) as origin:   each script plays one connection
    Image(origin.url)
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import socket
import socketserver
import ssl
import struct
import threading
from typing import Any, Callable, Optional

from fakes import nbdpeer
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio.net.timeouts import unsent

TICKET_ID = "2f6e8bd4-9d37-4d0f-8f0f-1c2ad6a7a9f3"
FEATURES = ("extents", "zero", "flush", "checksum")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for the DiskOrigin that `server` is."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet: two would wait for each other.
    wbufsize = -1
    server: Any

    def finish(self) -> None:
        # The client may be gone.
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> bool:
        origin = self.server.origin
        origin.requests.append((self.command, self.path, dict(self.headers)))
        refusal = origin.refusals.get((self.command, self.path.partition(TICKET_ID)[2].partition("?")[0]))
        if refusal is None:
            return True
        self.close_connection = True
        status, text, headers = refusal
        self.answer(status, text.encode(), **headers)
        return False

    def do_OPTIONS(self) -> None:
        if self.begin():
            origin = self.server.origin
            if origin.options is None:
                self.answer(405, b"Method not allowed\n")
            else:
                body = origin.options if isinstance(origin.options, bytes) else json.dumps(origin.options).encode()
                self.answer(origin.options_status, body, Allow="OPTIONS,GET,PUT,PATCH")

    def do_GET(self) -> None:
        if not self.begin():
            return
        origin = self.server.origin
        if "/extents" in self.path:
            context = re.search("context=(\\w+)", self.path)[1]
            self.send_chunked(json.dumps(origin.list_extents(context)).encode())
        elif "/checksum" in self.path:
            block_size = int(re.search("block_size=(\\d+)", self.path)[1])
            self.answer(200, json.dumps({"checksum": "abc123", "block_size": block_size}).encode())
        else:
            self.send_data()

    def send_data(self) -> None:
        data = self.server.origin.data
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not match:
            self.answer(200, bytes(data))
            return
        first, last = int(match[1]), int(match[2])
        if last >= len(data):
            self.answer(416, b"No such range\n", Content_Range=f"bytes */{len(data)}")
            return
        self.answer(206, bytes(data[first : last + 1]), Content_Range=f"bytes {first}-{last}/{len(data)}")

    def send_chunked(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def do_PUT(self) -> None:
        if not self.begin():
            return
        offset = int(re.match(r"bytes (\d+)-", self.headers.get("Content-Range", "bytes 0-"))[1])
        data = self.server.origin.data
        if "Content-Length" not in self.headers:
            body = self.read_chunks()
            self.server.origin.grow(offset + len(body))
            data[offset : offset + len(body)] = body
            self.answer(200)
            return
        length = expected = int(self.headers["Content-Length"])
        while length:
            piece = self.rfile.read1(min(length, 64 * 1024))
            if not piece:
                self.close_connection = True
                self.answer(400, f"Expected {expected} bytes, got only {expected - length}\n".encode())
                return
            self.server.origin.grow(offset)
            data[offset : offset + len(piece)] = piece
            offset += len(piece)
            length -= len(piece)
        self.answer(200)

    def read_chunks(self) -> bytes:
        """Return a body in chunks, or what came of it before the client left."""
        body = b""
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_PATCH(self) -> None:
        if not self.begin():
            return
        origin = self.server.origin
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        origin.messages.append(message)
        if message["op"] == "zero":
            end = message["offset"] + message["size"]
            origin.grow(end)
            origin.data[message["offset"] : end] = bytes(message["size"])
        self.answer(200)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Joins its threads when it is closed. `connections` are those that were accepted, and that no thread let go of."""

    daemon_threads = False
    # Otherwise it asks the name server for its own name.
    server_bind = socketserver.TCPServer.server_bind

    def __init__(self, address: Any, origin: DiskOrigin) -> None:
        self.origin = origin
        self.server_name = "origin"
        self.server_port = 0
        self.connections: set[socket.socket] = set()
        # Held to close one, and to drop one: so that a descriptor is not another connection's when it is dropped.
        self._lock = threading.Lock()
        super().__init__(address, Handler)

    def get_request(self) -> Any:
        sock, address = super().get_request()
        with self._lock:
            self.connections.add(sock)
        return sock, address or ("local", 0)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            super().shutdown_request(request)
            self.connections.discard(request)

    def drop_connections(self) -> None:
        """End every connection; return when each client could know of it, and when no thread of ours has one."""
        with self._lock:
            dropped = set(self.connections)
            # Of our own: the thread that serves a connection closes it as soon as it notices.
            sockets = [socket.socket(fileno=os.dup(connection.fileno())) for connection in dropped]
        for sock in sockets:
            with sock, contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
                if sock.family != socket.AF_UNIX:
                    # Until the system of the client has acknowledged the end.
                    wait_until(lambda sock=sock: not unsent(sock))
        wait_until(lambda: self.connections.isdisjoint(dropped), lambda: "a thread does not let go of its connection")


class UnixServer(Server):
    address_family = socket.AF_UNIX


class DiskOrigin:
    """Serves a disk in memory: `data`.

    `options` is the answer to OPTIONS, None for a server that does not know it; `refusals` maps (method, suffix) to
    (status, text, headers); `requests` and `messages` collect what came.
    """

    def __init__(
        self,
        data: bytes = b"",
        features: tuple[str, ...] = FEATURES,
        context: Optional[ssl.SSLContext] = None,
        unix_socket: Optional[str] = None,
    ) -> None:
        self.data = bytearray(data)
        self.options: Any = {"features": list(features), "max_readers": 8, "max_writers": 4}
        self.options_status = 200
        if unix_socket:
            self.options["unix_socket"] = unix_socket
        self.extents: dict[str, Any] = {}
        self.refusals: dict[tuple[str, str], tuple[int, str, dict[str, str]]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.messages: list[Any] = []
        self._context = context
        self._unix_socket = unix_socket

    def __enter__(self) -> DiskOrigin:
        server = Server(("127.0.0.1", 0), self)
        if self._context:
            server.socket = self._context.wrap_socket(server.socket, server_side=True)
        self.servers = [server]
        if self._unix_socket:
            self.servers.append(UnixServer(self._unix_socket, self))
        self._threads = [threading.Thread(target=item.serve_forever, args=(0.01,)) for item in self.servers]
        for thread in self._threads:
            thread.start()
        self.port = server.server_address[1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/images/{TICKET_ID}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self.servers:
            server.shutdown()
        for thread in self._threads:
            thread.join()
        self.drop_connections()
        for server in self.servers:
            server.server_close()

    def drop_connections(self) -> None:
        """Close every connection, as a server does that saw nothing on it for long."""
        for server in self.servers:
            server.drop_connections()

    def grow(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))

    def list_extents(self, context: str) -> Any:
        if context in self.extents:
            return self.extents[context]
        return [{"start": 0, "length": len(self.data), context: False, "zero": False}] if self.data else []

    def methods(self) -> list[str]:
        """Return the methods of the requests that came."""
        return [method for method, _, _ in self.requests]


class Wire:
    """One connection, as a script sees it."""

    def __init__(self, sock: socket.socket, origin: ScriptedOrigin) -> None:
        self.socket = sock
        self._file = sock.makefile("rb")
        self._origin = origin

    def read_head(self) -> str:
        """Return the head of the next request, "" if the client left."""
        lines = []
        while True:
            line = self._file.readline().decode("ascii")
            if not line or line == "\r\n":
                break
            lines.append(line)
        head = "".join(lines)
        if head:
            self._origin.heads.append(head)
        return head

    def read(self, count: int) -> bytes:
        """Return `count` bytes of a body, or what comes before the client leaves."""
        return self._file.read(count)

    def read_chunks(self) -> bytes:
        """Return a body in chunks."""
        body = b""
        while size := int(self._file.readline(), 16):
            body += self._file.read(size)
            assert self._file.readline() == b"\r\n"
        assert self._file.readline() == b"\r\n"
        return body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, status: int = 200, body: bytes = b"", headers: str = "") -> None:
        """Send a whole answer."""
        self.send(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def options(self, **answer: Any) -> None:
        """Read a request for OPTIONS and answer it."""
        assert self.read_head().startswith("OPTIONS ")
        answer.setdefault("features", list(FEATURES))
        self.answer(200, json.dumps(answer).encode())

    def upgrade(self) -> nbdpeer.Call:
        """Read a request to speak NBD and agree; return what speaks it."""
        assert "upgrade: nbd" in self.read_head().lower()
        self.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: nbd\r\n\r\n")
        return nbdpeer.Call(self.socket)

    def reset(self) -> None:
        """Leave with a reset instead of a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def stall(self) -> None:
        """Do nothing until the client leaves, or the test ends."""
        self._origin.stalled.set()
        self._origin.ending.wait(DEADLINE)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait, and return True if the test ends."""
        return self._origin.ending.wait(seconds)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


Script = Callable[[Wire], None]


class ScriptedOrigin:
    """Plays one script for each connection, in order; then no connection is accepted any more.

    `heads` holds the heads of the requests that came; `stalled` is set when a script stalls. What a script raises is
    raised at the end, but for a client that left.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.heads: list[str] = []
        self.stalled = threading.Event()
        self.ending = threading.Event()
        self.errors: list[BaseException] = []

    def __enter__(self) -> ScriptedOrigin:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/images/{TICKET_ID}"
        self._thread = threading.Thread(target=self._play_all)
        self._thread.start()
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        self.ending.set()
        # Wakes accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        if kind is None and self.errors:
            raise self.errors[0]

    def _play_all(self) -> None:
        players = []
        for script in self._scripts:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break
            player = threading.Thread(target=self._play, args=(script, sock))
            player.start()
            players.append(player)
        for player in players:
            player.join()

    def _play(self, script: Script, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        wire = Wire(sock, self)
        try:
            script(wire)
        except (OSError, nbdpeer.HungUp):
            pass  # The client left.
        except BaseException as e:
            self.errors.append(e)
        finally:
            wire.close()
