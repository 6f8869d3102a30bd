"""Clients that use a few blocks of one disk at random, all at once, and note when each operation began and ended.

    recorder = Recorder(blocks=32)
    drive(recorder, [lambda: HttpClient(recorder, connect, path), ...], seed=1, count=50)
    assert not list(recorder.history.faults())

A client whose connection breaks connects again; what it had asked for may have been done, or not.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

from fakes import nbdclient
from fakes.waiting import DEADLINE
from history.checker import BLOCK, NEVER, History, decode, encode

from ovirt_imageio.nbd.wire import Command

__all__ = ["Client", "HttpClient", "NbdClient", "Recorder", "drive"]

# Requests cover at most so many blocks: more than a page, so that they meet in it.
MAX_BLOCKS = 12

# How often a client leaves within an upload.
CUT_CHANCE = 0.03

# A broken client tries so often to come back.
PAUSE = 0.02


# How a reply begins that has no chunks.
SIMPLE = bytes.fromhex("67446698")


class Refused(Exception):
    """The server did not do it, or not all of it."""


# What ends an operation without an answer.
BROKEN = (OSError, EOFError, http.client.HTTPException, Refused)


class Recorder:
    """The history of one disk.

    Threads: any.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.history = History()
        self.counts: Counter[str] = Counter()
        self.is_over = threading.Event()
        # When each client last got something done, by its number.
        self.well: dict[int, float] = {}
        self._lock = threading.Lock()
        self._values = itertools.count(1)
        # Writes without an answer, as arguments of History.attempt.
        self._open: list[tuple[Sequence[int], int, float, str]] = []

    def next_value(self) -> int:
        return next(self._values)

    @contextlib.contextmanager
    def writing(self, kind: str, blocks: Sequence[int], value: int, is_flushed: bool = False) -> Iterator[None]:
        """Note what the body writes; when it fails that is unknown."""
        begin = time.monotonic()
        try:
            yield
        except BROKEN:
            with self._lock:
                self.counts[f"{kind}, unknown"] += 1
                self._open.append((blocks, value, begin, kind))
            raise
        end = time.monotonic()
        with self._lock:
            self.counts[kind] += 1
            self.history.write(blocks, value, begin, end, kind)
            if is_flushed:
                # Also of itself.
                self.history.flush(end, end)
                self.history.flush(begin, end)

    def flushing(self, begin: float) -> None:
        with self._lock:
            self.counts["flush"] += 1
            self.history.flush(begin, time.monotonic())

    def found(self, kind: str, first: int, values: Sequence[int], begin: float) -> None:
        """Note the values of blocks, from one on."""
        end = time.monotonic()
        with self._lock:
            self.counts[kind] += 1
            for block, value in enumerate(values, first):
                self.history.read(block, value, begin, end, kind)

    def crashed(self) -> None:
        """Note that what was not flushed may be lost."""
        with self._lock:
            self.history.crash(time.monotonic())

    def settle(self) -> None:
        """Note that nothing of what got no answer goes on: what it did is done."""
        with self._lock:
            self._close(time.monotonic())

    def finish(self) -> None:
        """Note what got no answer, and may be done at any time."""
        with self._lock:
            self._close(NEVER)

    def _close(self, end: float) -> None:
        for blocks, value, begin, kind in self._open:
            self.history.attempt(blocks, value, begin, end, f"{kind}, unknown,")
        self._open.clear()


class Client:
    """One connection to a disk.

    Threads: one.
    """

    def __init__(self, recorder: Recorder, dice: random.Random) -> None:
        self.recorder = recorder
        self.dice = dice

    def act(self) -> None:
        """Do something. Raises what is in BROKEN."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave."""

    def range(self) -> tuple[int, int]:
        """Draw the first block, and how many."""
        first = self.dice.randrange(self.recorder.blocks)
        return first, self.dice.randrange(1, min(MAX_BLOCKS, self.recorder.blocks - first) + 1)


class HttpClient(Client):
    """Speaks HTTP, over what `connect` returns, about the image at a path."""

    def __init__(
        self,
        recorder: Recorder,
        dice: random.Random,
        connect: Callable[[], http.client.HTTPConnection],
        path: str,
    ) -> None:
        super().__init__(recorder, dice)
        self._connection = connect()
        self._path = path

    def act(self) -> None:
        kinds = (self.put, self.get, self.zero, self.flush, self.extents, self.checksum)
        (kind,) = self.dice.choices(kinds, (10, 10, 4, 1, 2, 1))
        kind()

    def close(self) -> None:
        self._connection.close()

    def put(self) -> None:
        first, count = self.range()
        value = self.recorder.next_value()
        flush = self.dice.random() < 0.2
        data = encode(value, count)
        headers = {"Content-Range": f"bytes {first * BLOCK}-{(first + count) * BLOCK - 1}/*"}
        path = f"{self._path}?flush={'y' if flush else 'n'}"
        with self.recorder.writing("put", range(first, first + count), value, flush):
            if self.dice.random() < CUT_CHANCE:
                self._leave_within(path, headers, data)
            self._ask("PUT", path, headers, data)

    def _leave_within(self, path: str, headers: dict[str, str], data: bytes) -> None:
        """Send some blocks, or all, and leave."""
        self._connection.putrequest("PUT", path)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        self._connection.send(data[: self.dice.randrange(len(data) // BLOCK + 1) * BLOCK])
        self._connection.close()
        raise Refused("left")

    def get(self) -> None:
        first, count = self.range()
        begin = time.monotonic()
        data = self._ask("GET", self._path, {"Range": f"bytes={first * BLOCK}-{(first + count) * BLOCK - 1}"})
        self.recorder.found("get", first, decode(data), begin)

    def zero(self) -> None:
        first, count = self.range()
        flush = self.dice.random() < 0.2
        body = json.dumps({"op": "zero", "offset": first * BLOCK, "size": count * BLOCK, "flush": flush}).encode()
        with self.recorder.writing("zero", range(first, first + count), 0, flush):
            self._ask("PATCH", self._path, {}, body)

    def flush(self) -> None:
        begin = time.monotonic()
        self._ask("PATCH", self._path, {}, b'{"op": "flush"}')
        self.recorder.flushing(begin)

    def extents(self) -> None:
        """What is told to be zeroes has been zeroes meanwhile."""
        begin = time.monotonic()
        for extent in json.loads(self._ask("GET", f"{self._path}/extents")):
            if extent["zero"]:
                first = -(-extent["start"] // BLOCK)
                end = (extent["start"] + extent["length"]) // BLOCK
                self.recorder.found("extents", first, [0] * (end - first), begin)

    def checksum(self) -> None:
        """Only that it comes: it is of no moment."""
        json.loads(self._ask("GET", f"{self._path}/checksum"))
        self.recorder.counts["checksum"] += 1

    def read_all(self) -> tuple[bytes, str]:
        """Return the whole disk, and its checksum."""
        data = self._ask("GET", self._path)
        return data, json.loads(self._ask("GET", f"{self._path}/checksum"))["checksum"]

    def _ask(self, method: str, path: str, headers: Optional[dict[str, str]] = None, body: bytes = b"") -> bytes:
        self._connection.request(method, path, body or None, headers or {})
        response = self._connection.getresponse()
        data = response.read()
        if response.status not in (200, 206):
            raise Refused(f"{method}: {response.status} {data!r}")
        return data


class NbdClient(Client):
    """Speaks NBD over a connection that was HTTP."""

    def __init__(
        self,
        recorder: Recorder,
        dice: random.Random,
        connect: Callable[[], socket.socket],
        path: str,
    ) -> None:
        super().__init__(recorder, dice)
        self._cookies = itertools.count(1)
        self._sock = connect()
        with contextlib.ExitStack() as undo:
            undo.callback(self._sock.close)
            self._sock.settimeout(DEADLINE)
            self._sock.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nbd\r\n\r\n".encode()
            )
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += nbdclient.receive(self._sock, 1)
            if b" 101 " not in head.partition(b"\r\n")[0]:
                raise Refused(head.decode())
            nbdclient.handshake(self._sock)
            undo.pop_all()

    def act(self) -> None:
        first, count = self.range()
        blocks = range(first, first + count)
        kind = self.dice.choices(("write", "read", "zero", "flush"), (10, 10, 4, 1))[0]
        begin = time.monotonic()
        if kind == "write":
            value = self.recorder.next_value()
            is_fua = self.dice.random() < 0.2
            with self.recorder.writing("nbd write", blocks, value):
                self._ask(Command.WRITE, blocks, encode(value, count), flags=int(is_fua))
        elif kind == "zero":
            with self.recorder.writing("nbd zero", blocks, 0):
                self._ask(Command.WRITE_ZEROES, blocks)
        elif kind == "read":
            self.recorder.found("nbd read", first, decode(self._ask(Command.READ, blocks)), begin)
        else:
            self._ask(Command.FLUSH, range(0))
            self.recorder.flushing(begin)

    def close(self) -> None:
        self._sock.close()

    def _ask(self, command: Command, blocks: Sequence[int], payload: bytes = b"", flags: int = 0) -> bytes:
        cookie = next(self._cookies)
        offset, length = (blocks[0] * BLOCK, len(blocks) * BLOCK) if blocks else (0, 0)
        self._sock.sendall(nbdclient.request(int(command), cookie, offset, length, payload, flags))
        data = bytearray(length)
        while True:
            chunk_flags, kind, found, body = self._reply()
            assert found == cookie
            if kind & 0x8000:
                raise Refused(f"{command.name}: {body!r}")
            if kind == 1:
                (start,) = struct.unpack_from(">Q", body)
                data[start - offset : start - offset + len(body) - 8] = body[8:]
            if chunk_flags & 1:
                return bytes(data)

    def _reply(self) -> tuple[int, int, int, bytes]:
        """Return the next chunk; a server may answer with a simple reply what has no data."""
        head = self._sock.recv(16, socket.MSG_PEEK | socket.MSG_WAITALL)
        if head[:4] != SIMPLE:
            return nbdclient.chunk(self._sock)
        code, cookie = struct.unpack(">4xIQ", nbdclient.receive(self._sock, 16))
        return 1, 0x8001 if code else 0, cookie, struct.pack(">I", code)


def drive(recorder: Recorder, makers: Sequence[Callable[[random.Random], Client]], seed: int, count: int) -> None:
    """Let clients do `count` things each, or fewer when the recorder is over."""
    errors: list[BaseException] = []

    def live(number: int, make: Callable[[random.Random], Client], dice: random.Random) -> None:
        client: Optional[Client] = None
        recorder.well[number] = time.monotonic()
        try:
            done = 0
            while done < count and not recorder.is_over.is_set():
                try:
                    client = client or make(dice)
                    client.act()
                    done += 1
                    recorder.well[number] = time.monotonic()
                except BROKEN as error:
                    silence = time.monotonic() - recorder.well[number]
                    assert silence < DEADLINE, f"the disk does not come back: {error}"
                    recorder.counts["broken"] += 1
                    if client is not None:
                        client.close()
                    client = None
                    recorder.is_over.wait(PAUSE)
        except BaseException as error:
            errors.append(error)
        finally:
            if client is not None:
                client.close()

    threads = [
        threading.Thread(target=live, args=(number, make, random.Random(f"{seed} {number}")), name=f"client-{number}")
        for number, make in enumerate(makers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
