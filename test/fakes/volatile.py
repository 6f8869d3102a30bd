"""A disk with a write cache that a power failure empties, and an NBD server for it.

    disk = VolatileDisk(size)
    with VolatileServer(disk) as server:
        ...                                     # several connections at once
    for crash in range(len(disk.log) + 1):
        bytes_left = disk.after_crash(crash, random.Random(7))

The disk logs what began and what ended, in order. After a crash it has everything that a flush made safe, and of the
rest whatever the dice choose, sector by sector: a cache is written back in any order, and a power failure ends within
a request.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Optional

from fakes.nbdpeer import FLAGS, Call, HungUp, Request
from fakes.waiting import DEADLINE

from ovirt_imageio.nbd.address import UnixAddress
from ovirt_imageio.nbd.wire import Command, CommandFlag, Mode

__all__ = ["SECTOR", "Entry", "VolatileDisk", "VolatileServer"]

SECTOR = 512

# That many requests of a connection may be done in another order than they came.
BATCH = 8


class Entry(NamedTuple):
    """Something began, or ended: a change of the disk, or a flush. `number` is the same for both."""

    number: int
    is_end: bool
    offset: int = 0
    # None for a flush.
    data: Optional[bytes] = None
    # Safe at its end.
    is_durable: bool = False


class VolatileDisk:
    """See the module.

    Threads: any.
    """

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.log: list[Entry] = []
        self._lock = threading.Lock()
        self._first = bytes(size)

    def note(self) -> int:
        """Return how much was logged until now."""
        with self._lock:
            return len(self.log)

    def write(self, offset: int, data: bytes, is_durable: bool = False) -> None:
        """Change a range."""
        with self._lock:
            begun = Entry(len(self.log), False, offset, data, is_durable)
            self.log.append(begun)
        with self._lock:
            self.data[offset : offset + len(data)] = data
            self.log.append(begun._replace(is_end=True))

    def flush(self) -> None:
        """Make safe every change that ended before this."""
        with self.flushing():
            pass

    @contextlib.contextmanager
    def flushing(self) -> Iterator[None]:
        """Make safe, at the end of a with block, every change that ended before it began."""
        with self._lock:
            begun = Entry(len(self.log), False)
            self.log.append(begun)
        yield
        with self._lock:
            self.log.append(begun._replace(is_end=True))

    def lose(self, dice: random.Random) -> None:
        """Fail now, and come back with what is left."""
        with self._lock:
            left = self.after_crash(len(self.log), dice)
            self.data[:] = left
            self._first = bytes(left)
            self.log.clear()

    def after_crash(self, point: int, dice: random.Random) -> bytes:
        """Return what is on the disk after a crash, from as many entries of the log."""
        changes, flushed = self._split(point)
        disk = bytearray(self._first)
        for entry in changes:
            assert entry.data is not None
            if entry.number in flushed:
                disk[entry.offset : entry.offset + len(entry.data)] = entry.data
                continue
            likelihood = dice.choice((0.0, 0.5, 1.0))
            for start, end in sectors(entry.offset, len(entry.data)):
                if dice.random() < likelihood:
                    disk[start:end] = entry.data[start - entry.offset : end - entry.offset]
        return bytes(disk)

    def _split(self, point: int) -> tuple[list[Entry], set[int]]:
        """Return the changes that began, in an order in which they may have happened, and which of them are safe."""
        order: dict[int, Entry] = {}
        ended: set[int] = set()
        flushes: dict[int, frozenset[int]] = {}
        safe: set[int] = set()
        for entry in self.log[:point]:
            if entry.data is None:
                if entry.is_end:
                    safe |= flushes[entry.number]
                else:
                    flushes[entry.number] = frozenset(ended)
            elif not entry.is_end:
                order[entry.number] = entry
            else:
                # What happens at the same time takes effect where it ends.
                order[entry.number] = order.pop(entry.number)
                ended.add(entry.number)
                if entry.is_durable:
                    safe.add(entry.number)
        return list(order.values()), safe


def sectors(offset: int, length: int) -> list[tuple[int, int]]:
    """Return the parts of a range that are written as one, as (start, end)."""
    marks = [offset, *range(offset - offset % SECTOR + SECTOR, offset + length, SECTOR), offset + length]
    return list(zip(marks, marks[1:]))


class VolatileServer:
    """Serves such a disk by NBD at `url`, on any number of connections, and may do requests in another order."""

    def __init__(self, disk: VolatileDisk, seed: int = 0, flags: int = FLAGS) -> None:
        self.disk = disk
        self._dice = random.Random(seed)
        self._flags = flags
        self._scope = contextlib.ExitStack()
        self._lock = threading.Lock()
        # Held while no client is served.
        self._power = threading.Lock()
        self._threads: dict[threading.Thread, Call] = {}
        self._error: Optional[BaseException] = None
        self._path = ""

    @property
    def url(self) -> str:
        """Where it is."""
        return UnixAddress(self._path).url()

    def __enter__(self) -> VolatileServer:
        with contextlib.ExitStack() as scope:
            folder = scope.enter_context(tempfile.TemporaryDirectory(prefix="volatile-"))
            self._path = str(Path(folder) / "sock")
            listening = scope.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(self._path)
            listening.listen()
            accepting = threading.Thread(target=self._accept, args=(listening,), name="volatile")
            accepting.start()
            scope.callback(self.cut)
            scope.callback(accepting.join, DEADLINE)
            scope.callback(listening.shutdown, socket.SHUT_RDWR)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._scope.close()
        if error is None and self._error is not None:
            raise self._error

    @property
    def connections(self) -> int:
        """How many there are."""
        with self._lock:
            return len(self._threads)

    def cut(self) -> None:
        """End all connections, and wait until they have ended."""
        with self._lock:
            threads = dict(self._threads)
        for call in threads.values():
            call.hang_up()
        for thread in threads:
            thread.join(DEADLINE)

    def power_failure(self, dice: random.Random) -> None:
        """End all connections, and lose what was not flushed; those that come meanwhile are served after that."""
        with self._power:
            self.cut()
            self.disk.lose(dice)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                sock.settimeout(DEADLINE)
                thread = threading.Thread(target=self._serve, args=(sock,), name="volatile-connection")
                with self._power, self._lock:
                    self._threads[thread] = Call(sock)
                    thread.start()

    def _serve(self, sock: socket.socket) -> None:
        thread = threading.current_thread()
        try:
            with sock:
                with self._lock:
                    call = self._threads[thread]
                self._talk(call, sock)
        except (HungUp, TimeoutError):
            pass
        except BaseException as e:  # Raised where the test looks for it.
            self._error = e
        finally:
            with self._lock:
                del self._threads[thread]

    def _talk(self, call: Call, sock: socket.socket) -> None:
        call.negotiate(len(self.disk.data), self._flags)
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        while True:
            batch = [call.request()]
            while len(batch) < BATCH and batch[-1].kind != Command.DISCONNECT and readable.poll(0):
                batch.append(call.request())
            has_left = batch[-1].kind == Command.DISCONNECT
            if has_left:
                batch.pop()
            self._dice.shuffle(batch)
            for request in batch:
                self._do(call, request)
            if has_left:
                return

    def _do(self, call: Call, request: Request) -> None:
        start, end = request.offset, request.offset + request.length
        is_durable = bool(request.flags & CommandFlag.FUA)
        if request.kind == Command.READ:
            data = bytes(self.disk.data[start:end])
            if call.mode is Mode.SIMPLE:
                call.simple(request, 0, data)
            else:
                call.data(request, start, data, done=True)
            return
        if request.kind == Command.BLOCK_STATUS:
            for number in range(len(call.contexts)):
                call.status(request, [(request.length, 0)], number, done=number == len(call.contexts) - 1)
            return
        if request.kind == Command.WRITE:
            self.disk.write(start, request.payload, is_durable)
        elif request.kind == Command.WRITE_ZEROES:
            self.disk.write(start, bytes(request.length), is_durable)
        elif request.kind == Command.FLUSH:
            self.disk.flush()
        call.done(request)
