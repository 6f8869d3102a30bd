"""Stream a range of an export: to a sink, or from a source, with a window of requests under way.

    export ──reply──> slot ──> sink           any sink; slots are of one piece each, and shared by all streams
    export ──reply──> pipe ──> socket         a plain socket: the bytes stay in the kernel
    source ──> slot ──request──> export
    socket ──> pipe ──request──> export

A reply that is next in line goes on at once. One that is early stays in its slot until its turn comes.

Knows the client, sinks and sources; knows nothing of HTTP.
"""

from __future__ import annotations

import socket as sockets
from collections import deque
from collections.abc import Iterable
from typing import Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.geometry import blocks
from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.client import PIECE, WINDOW, Client
from ovirt_imageio.nbd.errors import ConnectionDead
from ovirt_imageio.nbd.replies import Data, Done, Hole, SentCommand
from ovirt_imageio.relay import Pipe, Progress, Sink, Source, fill
from ovirt_imageio.relay.buffers import ZEROES, aligned, pool

__all__ = ["Streamer"]

# Below this one request, through a slot, costs the least: its bytes leave together with the head of the response, and
# there is nothing to overlap.
SMALL = 128 * 1024


class Streamer:
    """The small slot and the pipe with which one client streams; they are used again and again.

    Threads: one.
    """

    def __init__(self) -> None:
        self._small = memoryview(b"")
        self._pipe: Optional[Pipe] = None

    def send(self, client: Client, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send a range of the export to the sink."""
        if length < SMALL:
            view = self._small_slot()[:length]
            client.read(offset, view)
            sink.write(view)
            progress(length)
            return
        with client.settled():
            Sending(self, client, sink, progress).run(offset, length)

    def receive(self, client: Client, source: Source, offset: int, length: int, progress: Progress) -> None:
        """Write a range of the export from the source. Raises errors.PartialContent if that ends before."""
        if length < SMALL:
            self._receive_small(client, source, offset, length, progress)
            return
        with client.settled():
            Receiving(self, client, progress).run(source, offset, length)

    def _receive_small(self, client: Client, source: Source, offset: int, length: int, progress: Progress) -> None:
        slot = self._small_slot()
        count = fill(source, slot[:length])
        client.write(offset, slot[:count])
        progress(count)
        if count < length:
            raise errors.PartialContent(length, count)

    def _small_slot(self) -> memoryview:
        """Return the slot of what needs no window: hundreds of connections may have one."""
        self._small = self._small or memoryview(bytearray(SMALL))
        return self._small

    def pipe(self) -> Pipe:
        """Return the pipe."""
        if self._pipe is None:
            self._pipe = Pipe()
        return self._pipe

    def close(self) -> None:
        """Release everything; harmless when repeated."""
        self.close_pipe()
        self._small = memoryview(b"")

    def close_pipe(self) -> None:
        """Drop the pipe with what is in it."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class Sending:
    """One range on its way to a sink."""

    def __init__(self, streamer: Streamer, client: Client, sink: Sink, progress: Progress) -> None:
        self._streamer = streamer
        self._client = client
        self._sink = sink
        self._progress = progress
        # Reads that were asked for, in the order in which their bytes must leave; the slots of those whose reply came
        # too early.
        self._window: deque[SentCommand] = deque()
        self._slots: dict[SentCommand, memoryview] = {}
        self._finished: set[SentCommand] = set()
        # How much of the first command has left.
        self._sent = 0
        self._can_splice = False
        # What was not asked for yet.
        self._position = 0
        self._end = 0

    def run(self, offset: int, length: int) -> None:
        """Send the range."""
        self._position, self._end = offset, offset + length
        self._can_splice = self._client.can_splice
        try:
            while self._ask():
                step = self._client.advance(gather=not self._can_splice)
                if isinstance(step, Done):
                    self._finish(step.command)
                elif step.command is self._window[0] and step.start == self._sent:
                    self._pass(step)
                else:
                    self._keep(step)
        finally:
            for slot in self._slots.values():
                pool.give(slot)

    def _ask(self) -> bool:
        """Keep the window full; return False when there is nothing to wait for."""
        while len(self._window) < WINDOW and self._position < self._end:
            size = self._client.next_piece(self._position, self._end - self._position)
            command = SentCommand(wire.Command.READ, self._position, size)
            self._client.submit(command)
            self._window.append(command)
            self._position += size
            if size > PIECE:
                # The first piece is large, so the others would come before it, and would have to be kept.
                break
        return bool(self._window)

    def _pass(self, step: Union[Data, Hole]) -> None:
        """Send what is next in line."""
        sock = self._sink.socket if self._can_splice and isinstance(step, Data) else None
        if isinstance(step, Hole):
            for _, size in blocks.pieces(0, step.length, PIECE):
                self._write(ZEROES[:size])
        elif sock is None:
            self._can_splice = False
            self._copy(step.length)
        else:
            self._splice(sock, step.length)

    def _copy(self, length: int) -> None:
        """Receive bytes from the server, and write them to the sink."""
        left = length
        with pool.lend() as (slot,):
            try:
                for _, size in blocks.pieces(0, length, PIECE):
                    self._client.receive(slot[:size])
                    left -= size
                    self._write(slot[:size])
            except ConnectionDead:
                raise
            except Exception:
                self._client.discard(left)
                raise

    def _splice(self, sock: sockets.socket, length: int) -> None:
        """Move bytes from the server to the sink without looking at them."""
        pipe = self._streamer.pipe()
        left = length
        try:
            while left:
                left -= self._client.receive_pipe(pipe, left)
                pipe.drain(sock, self._advance)
        except ConnectionDead:
            self._streamer.close_pipe()
            raise
        except Exception:
            self._streamer.close_pipe()
            self._client.discard(left)
            raise

    def _advance(self, count: int) -> None:
        """Note what the sink has."""
        self._sink.advance(count)
        self._sent += count
        self._progress(count)

    def _write(self, view: memoryview) -> None:
        """Write to the sink."""
        self._sink.write(view)
        self._sent += len(view)
        self._progress(len(view))

    def _keep(self, step: Union[Data, Hole]) -> None:
        """Put what is not next in line, or must pass through us, into its slot."""
        command = step.command
        if command.view is None:
            if command.length <= PIECE:
                self._slots[command] = pool.take()
                command.view = self._slots[command][: command.length]
            else:
                command.view = aligned(command.length)
        self._client.store(step)

    def _stored(self, command: SentCommand, start: int, length: int) -> memoryview:
        assert command.view is not None
        return command.view[start : start + length]

    def _finish(self, command: SentCommand) -> None:
        """Note that a command has ended, and send what it held up."""
        if command.error is not None:
            raise command.error
        self._finished.add(command)
        while self._window and self._window[0] in self._finished:
            first = self._window[0]
            if self._sent < first.length:
                self._write(self._stored(first, self._sent, first.length - self._sent))
            self._window.popleft()
            self._finished.remove(first)
            self._sent = 0
            if first in self._slots:
                pool.give(self._slots.pop(first))


class Receiving:
    """One range on its way from a source."""

    def __init__(self, streamer: Streamer, client: Client, progress: Progress) -> None:
        self._streamer = streamer
        self._client = client
        self._progress = progress
        # The writes under way, in order; those that have ended before an earlier one.
        self._window: deque[SentCommand] = deque()
        self._finished: set[SentCommand] = set()
        self._done = 0
        self._can_splice = False

    def run(self, source: Source, offset: int, length: int) -> None:
        """Write the range."""
        self._can_splice = self._client.can_splice
        position, end = offset, offset + length
        while position < end:
            size = self._client.next_piece(position, end - position)
            self._make_room(size)
            count = self._splice(source, position, size) or self._copy(source, position, size)
            if count == 0:
                break
            position += count
        self._wait()
        if self._done < length:
            raise errors.PartialContent(length, self._done)

    def _copy(self, source: Source, offset: int, size: int) -> int:
        """Write what the source has, through slots; return how much that is, 0 at its end.

        A slot is free again once the request has left.
        """
        with pool.lend(-(-size // PIECE)) as slots:
            try:
                parts = filled(source, slots, size)
            except Exception:
                self._wait()
                raise
            count = sum(map(len, parts))
            if count:
                command = SentCommand(wire.Command.WRITE, offset, count)
                self._window.append(command)
                self._client.submit_parts(command, parts)
        return count

    def _splice(self, source: Source, offset: int, size: int) -> int:
        """Write what a plain socket has without looking at it; return how much that is, 0 if it has nothing for us.

        The pipe is filled first: a client that goes away amid its body leaves no write half sent. So a piece that is
        larger than a pipe has to be copied.
        """
        sock = source.socket if self._can_splice and size <= PIECE else None
        if sock is None:
            return 0
        pipe = self._streamer.pipe()
        try:
            count = pipe.gather(sock, size, source.advance)
        except Exception:
            self._streamer.close_pipe()
            self._wait()
            raise
        # The end of the stream: the source knows better what that means.
        self._can_splice = count > 0
        if count:
            command = SentCommand(wire.Command.WRITE, offset, count)
            self._window.append(command)
            try:
                self._client.submit_pipe(command, pipe)
            except ConnectionDead:
                self._streamer.close_pipe()
                raise
        return count

    def _make_room(self, size: int) -> None:
        """Note the writes that have ended; if the window has no room for one of `size`, wait for the first ones."""
        while self._window and (not self._has_room(size) or self._client.has_reply()):
            self._finish()

    def _has_room(self, size: int) -> bool:
        """True if the server needs no more memory with one more write than for a window of pieces."""
        under_way = sum(command.length for command in self._window)
        return len(self._window) < WINDOW and under_way + size <= WINDOW * PIECE

    def _wait(self) -> None:
        """Wait until all writes have ended."""
        while self._window:
            self._finish()

    def _finish(self) -> None:
        """Wait until one write has ended, and report those that have no earlier one under way."""
        self._finished.add(self._client.finish())
        while self._window and self._window[0] in self._finished:
            command = self._window.popleft()
            self._finished.remove(command)
            for _, size in blocks.pieces(0, command.length, PIECE):
                self._done += size
                self._progress(size)


def filled(source: Source, slots: Iterable[memoryview], size: int) -> list[memoryview]:
    """Fill slots with up to `size` bytes from the source; return the parts of them that hold what came."""
    parts = []
    for slot in slots:
        view = slot[: min(PIECE, size)]
        count = fill(source, view)
        size -= count
        if count:
            parts.append(view[:count])
        if count < len(view):
            break
    return parts
