"""Continue a transfer that was interrupted: a small file tells what is safely in the destination.

    version, direction         what was going on
    source, size               what was copied: if that changed, nothing is of use any more
    done                       ranges that were flushed, as [start, end]

It holds no URL: a ticket is a secret, and the next transfer has another one anyway. That the other end is the same disk
as before is proved by comparing samples, before anything is trusted.

State is pure; Journal knows one file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client.copy.plan import Task
from ovirt_imageio.geometry.blocks import MAX_SIZE
from ovirt_imageio.geometry.ranges import Ranges

__all__ = ["Journal", "State", "decode", "encode", "is_same", "samples"]

log = logging.getLogger(__name__)

VERSION = 1

# The largest offset that the system can have.
MAX_OFFSET = 2**63 - 1

# How much is compared before a state is trusted: pieces that are spread over what is done, and the bytes of each.
SAMPLES = 16
SAMPLE_SIZE = 64 * 1024

# More than any state has; a larger file is something else.
MAX_FILE = 256 * 1024**2


@dataclass
class State:
    """What a transfer was about, as plain values that JSON keeps, and what is done."""

    transfer: dict[str, Any]
    done: Ranges = field(default_factory=lambda: Ranges(limit=sys.maxsize))


def encode(state: State) -> bytes:
    """Return the content of a state file."""
    document = {"version": VERSION, "transfer": state.transfer, "done": [list(item) for item in state.done]}
    return json.dumps(document).encode("ascii")


def decode(data: bytes) -> State:
    """Return the state that a file holds. Raises errors.InvalidValue."""
    try:
        document = json.loads(data)
        version, transfer, done = document["version"], document["transfer"], document["done"]
        if version != VERSION or not isinstance(transfer, dict):
            raise ValueError("another version")
        state = State(transfer)
        end = 0
        for first, last in done:
            if not (type(first) is int and type(last) is int and end <= first < last <= MAX_OFFSET):
                raise ValueError("ranges out of order")
            state.done.add(first, last)
            end = last
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.InvalidValue("resume file", data[:40], f"a state of version {VERSION}: {error}") from None
    return state


def samples(
    done: Iterable[tuple[int, int]], count: int = SAMPLES, size: int = SAMPLE_SIZE
) -> Iterator[tuple[int, int]]:
    """Yield up to `count` ranges, as (offset, length), evenly spread over what is done, both its ends among them."""
    ranges = list(done)
    total = sum(end - start for start, end in ranges)
    if total == 0:
        return
    wanted = sorted({(total - 1) * number // max(1, count - 1) for number in range(count)})
    position = 0
    for start, end in ranges:
        while wanted and wanted[0] < position + end - start:
            offset = min(start + wanted.pop(0) - position, max(start, end - size))
            yield offset, min(size, end - offset)
        position += end - start


def is_same(done: Iterable[tuple[int, int]], here: Backend, there: Backend) -> bool:
    """Are samples of what is done the same on both sides?"""
    for offset, length in samples(done):
        pieces = []
        for backend in (here, there):
            view = memoryview(bytearray(length))
            count = backend.readinto(offset, view)
            # What is beyond the smaller end reads as zero.
            pieces.append(bytes(view[:count]) + bytes(length - count))
        if pieces[0] != pieces[1]:
            return False
    return True


class Journal:
    """The state file of one transfer. It is replaced as a whole, so it is never half written.

    Threads: any.
    """

    def __init__(self, path: str, transfer: dict[str, Any]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._state = State(transfer)

    @property
    def done(self) -> list[tuple[int, int]]:
        """The ranges that are done, in order, as (start, end)."""
        with self._lock:
            return list(self._state.done)

    def load(self) -> None:
        """Read what is done, if the file is there and is about this very transfer; otherwise nothing is done."""
        state = self._read()
        if state is None:
            return
        if state.transfer != self._state.transfer:
            log.warning("Starting over: %s is about another transfer, or the image changed", self.path)
            return
        end = max((end for _, end in state.done), default=0)
        if end > state.transfer.get("size", MAX_SIZE):
            log.warning("Starting over: %s tells of more than the image has", self.path)
            return
        self._state = state

    def trust_or_forget(self, here: Backend, there: Backend) -> None:
        """Compare samples of what is done; nothing is if they differ."""
        done = self.done
        if done and not is_same(done, here, there):
            log.warning("Starting over: what %s says is done is not there", self.path)
            self.forget()

    def forget(self) -> None:
        """Start over."""
        self._state = State(self._state.transfer)
        self.remove()

    def begin(self) -> None:
        """Write the file, which tells that the image beside it is not complete."""
        with self._lock:
            self._save()

    def record(self, tasks: Iterable[Task]) -> None:
        """Note that tasks are done and flushed."""
        with self._lock:
            for task in tasks:
                for start, length in task.parts:
                    self._state.done.add(start, start + length)
            self._save()

    def remove(self) -> None:
        """Delete the file: the transfer is complete, or of no use."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            sync_folder(self.path)

    def _read(self) -> Optional[State]:
        try:
            if os.path.getsize(self.path) > MAX_FILE:
                raise errors.InvalidValue("resume file", self.path, f"at most {MAX_FILE} bytes")
            with open(self.path, "rb") as file:
                return decode(file.read())
        except FileNotFoundError:
            return None
        except (OSError, errors.InvalidValue) as error:
            log.warning("Starting over, as %s cannot be used: %s", self.path, error)
            return None

    def _save(self) -> None:
        assert self._lock.locked()
        fresh = f"{self.path}.new"
        try:
            with contextlib.ExitStack() as undo:
                with open(fresh, "wb") as file:
                    undo.callback(os.unlink, fresh)
                    file.write(encode(self._state))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(fresh, self.path)
                undo.pop_all()
            sync_folder(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise errors.storage_error(f"write {self.path}", error) from error


def sync_folder(path: str) -> None:
    """Make it safe that the name stands for what it stands for. Raises OSError.

    Otherwise the system may come back from a crash with an older file of that name, which tells of ranges that were
    done in an image that is gone.
    """
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    except OSError as error:
        # Some file systems of networks do not know that; their servers keep the order.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(folder)
