"""An NBD server that does what a script says, and so can misbehave in any way.

    def script(call):
        call.negotiate(size=1024)
        request = call.request()
        call.chunk(request, 0x7777, b"what is this?", done=True)

    with Peer(script) as peer:
        connect(peer.location)

The script runs once for each connection; it ends quietly when the client hangs up.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Callable, NamedTuple, Optional

from fakes.waiting import DEADLINE

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.address import Location, UnixAddress
from ovirt_imageio.nbd.wire import Chunk, ExportFlag, Mode, Option, Reply

# What a usual server offers.
FLAGS = (
    ExportFlag.HAS_FLAGS
    | ExportFlag.SEND_FLUSH
    | ExportFlag.SEND_FUA
    | ExportFlag.SEND_WRITE_ZEROES
    | ExportFlag.CAN_MULTI_CONN
)


class HungUp(Exception):
    """The client closed the connection."""


class Request(NamedTuple):
    """What the client asked for."""

    kind: int
    flags: int
    cookie: int
    offset: int
    length: int
    payload: bytes


class Call:
    """One connection, seen from the server. `options` is what the client asked for while negotiating."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.mode = Mode.STRUCTURED
        self.contexts: list[str] = []
        self.options: list[tuple[int, bytes]] = []

    # Bytes

    def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._sock.sendall(data)
        except ConnectionError:
            raise HungUp from None

    def receive(self, size: int) -> bytes:
        """Receive exactly so many bytes."""
        data = bytearray()
        while len(data) < size:
            try:
                part = self._sock.recv(size - len(data))
            except ConnectionError:
                raise HungUp from None
            if not part:
                raise HungUp
            data += part
        return bytes(data)

    def wait_for_hangup(self) -> None:
        """Say nothing until the client has closed the connection, whatever it says."""
        with contextlib.suppress(ConnectionError):
            while self._sock.recv(1024 * 1024):
                pass
        raise HungUp

    def pause(self, seconds: float) -> None:
        """Be slow, unless the client hangs up."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if poll.poll(seconds * 1000):
            self.receive(1)

    def hang_up(self) -> None:
        """Close the connection; the script may go on, to no effect."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    # Handshake

    def greet(self, flags: int = wire.HandshakeFlag.FIXED_NEWSTYLE | wire.HandshakeFlag.NO_ZEROES) -> int:
        """Greet, and return the flags of the client."""
        self.send(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, flags))
        (answer,) = wire.CLIENT_FLAGS.unpack(self.receive(wire.CLIENT_FLAGS.size))
        return int(answer)

    def option(self) -> tuple[int, bytes]:
        """Receive an option and its payload."""
        magic, option, length = wire.OPTION.unpack(self.receive(wire.OPTION.size))
        assert magic == wire.OPTION_MAGIC
        self.options.append((option, self.receive(length)))
        return self.options[-1]

    def reply(self, option: int, kind: int, payload: bytes = b"") -> None:
        """Answer an option."""
        self.send(wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload)

    def negotiate(
        self,
        size: int = 1024 * 1024,
        flags: int = FLAGS,
        mode: Mode = Mode.STRUCTURED,
        contexts: Sequence[str] = (wire.BASE_ALLOCATION,),
        blocks: Optional[tuple[int, int, int]] = None,
    ) -> None:
        """Negotiate as a good server does, which offers replies of this mode and these contexts."""
        self.greet()
        self.mode = mode
        self.contexts = list(contexts)
        while True:
            option, _ = self.option()
            if option == Option.GO:
                break
            self.answer(option)
        if blocks:
            self.reply(option, Reply.INFO, struct.pack(">HIII", wire.Info.BLOCK_SIZE, *blocks))
        self.reply(option, Reply.INFO, struct.pack(">HQH", wire.Info.EXPORT, size, flags))
        self.reply(option, Reply.ACK)

    def answer(self, option: int) -> None:
        """Answer an option before GO as a good server does."""
        offered = {Mode.STRUCTURED: Option.STRUCTURED_REPLY, Mode.EXTENDED: Option.EXTENDED_HEADERS}.get(self.mode)
        if option == offered:
            self.reply(option, Reply.ACK)
        elif option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
            for number, name in enumerate(self.contexts):
                if option == Option.SET_META_CONTEXT or name.startswith(wire.DIRTY_BITMAP):
                    self.reply(option, Reply.META_CONTEXT, struct.pack(">I", number) + name.encode())
            self.reply(option, Reply.ACK)
        else:
            self.reply(option, Reply.ERR_UNSUP)

    # Transmission

    def request(self) -> Request:
        """Receive a request, and what it writes."""
        header = wire.EXTENDED_REQUEST if self.mode is Mode.EXTENDED else wire.REQUEST
        expected = wire.EXTENDED_REQUEST_MAGIC if self.mode is Mode.EXTENDED else wire.REQUEST_MAGIC
        magic, flags, kind, cookie, offset, length = header.unpack(self.receive(header.size))
        assert magic == expected
        payload = self.receive(length) if kind == wire.Command.WRITE else b""
        return Request(kind, flags, cookie, offset, length, payload)

    def requests(self, count: int) -> list[Request]:
        """Receive several requests."""
        return [self.request() for _ in range(count)]

    def simple(self, request: Request, error: int = 0, payload: bytes = b"") -> None:
        """Send a simple reply."""
        self.send(wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, request.cookie) + payload)

    def done(self, request: Request) -> None:
        """Reply that a request without result succeeded."""
        if self.mode is Mode.EXTENDED:
            self.chunk(request, Chunk.NONE, done=True)
        else:
            self.simple(request)

    def chunk(self, request: Request, kind: int, payload: bytes = b"", done: bool = False) -> None:
        """Send a chunk of a structured reply."""
        self.send(self.chunk_header(request, kind, len(payload), done) + payload)

    def chunk_header(self, request: Request, kind: int, length: int, done: bool = False) -> bytes:
        """Return the header of a chunk."""
        if self.mode is Mode.EXTENDED:
            magic = wire.EXTENDED_REPLY_MAGIC
            return wire.EXTENDED_REPLY.pack(magic, done, kind, request.cookie, request.offset, length)
        return wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, done, kind, request.cookie, length)

    def data(self, request: Request, offset: int, data: bytes, done: bool = False) -> None:
        """Send a part of what was asked for; `offset` is that in the export."""
        self.chunk(request, Chunk.OFFSET_DATA, struct.pack(">Q", offset) + data, done)

    def hole(self, request: Request, offset: int, length: int, done: bool = False) -> None:
        """Send that a part of what was asked for is zeroes."""
        self.chunk(request, Chunk.OFFSET_HOLE, wire.HOLE.pack(offset, length), done)

    def error(self, request: Request, code: int, message: bytes = b"", done: bool = True) -> None:
        """Send an error chunk."""
        self.chunk(request, Chunk.ERROR, wire.ERROR.pack(code, len(message)) + message, done)

    def status(self, request: Request, extents: Sequence[tuple[int, int]], context: int = 0, done: bool = True) -> None:
        """Send the extents of one context: length and flags of each."""
        flat = list(itertools.chain.from_iterable(extents))
        if self.mode is Mode.EXTENDED:
            head = wire.STATUS_EXT.pack(context, len(extents))
            self.chunk(request, Chunk.BLOCK_STATUS_EXT, head + struct.pack(f">{len(flat)}Q", *flat), done)
        else:
            self.chunk(request, Chunk.BLOCK_STATUS, struct.pack(f">I{len(flat)}I", context, *flat), done)

    def serve(self, disk: bytearray) -> None:
        """Be a good server from now on."""
        while True:
            request = self.request()
            end = request.offset + request.length
            if request.kind == wire.Command.DISCONNECT:
                return
            if request.kind == wire.Command.READ and self.mode is Mode.SIMPLE:
                self.simple(request, 0, disk[request.offset : end])
            elif request.kind == wire.Command.READ:
                self.data(request, request.offset, disk[request.offset : end], done=True)
            elif request.kind == wire.Command.BLOCK_STATUS:
                for number in range(len(self.contexts)):
                    self.status(request, [(request.length, 0)], number, done=number == len(self.contexts) - 1)
            else:
                if request.kind in (wire.Command.WRITE, wire.Command.WRITE_ZEROES):
                    disk[request.offset : end] = request.payload or bytes(request.length)
                self.done(request)


Script = Callable[[Call], None]


class Peer:
    """A server at `location`. Leaving the with block raises what went wrong in a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._scope = contextlib.ExitStack()
        self._error: Optional[BaseException] = None
        self._is_stopping = False
        self.calls: list[Call] = []

    @property
    def location(self) -> Location:
        """Where it is."""
        return Location(UnixAddress(self._path))

    @property
    def url(self) -> str:
        """Where it is, as a URL."""
        return UnixAddress(self._path).url()

    def __enter__(self) -> Peer:
        with contextlib.ExitStack() as scope:
            folder = scope.enter_context(tempfile.TemporaryDirectory(prefix="nbdpeer-"))
            self._path = str(Path(folder) / "sock")
            self._listener = scope.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._listener.bind(self._path)
            self._listener.listen()
            self._thread = threading.Thread(target=self._run, name="nbdpeer")
            self._thread.start()
            scope.callback(self._thread.join)
            scope.callback(self._listener.shutdown, socket.SHUT_RDWR)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._is_stopping = True
        for call in self.calls:
            call.hang_up()
        self._scope.close()
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(DEADLINE)
                call = Call(sock)
                self.calls.append(call)
                try:
                    self._script(call)
                except HungUp:
                    pass
                except BaseException as e:  # Raised where the test looks for it.
                    self._error = e
