"""Let a client and an NBD server talk, and check every request and reply on the way.

    client ──> from_client ──> ledger ──> server         requests that may pass, with their payloads, in large steps
    client <── ledger <── from_server <── server         replies as they are; our own answers to what was refused
                  └──────────> watch                     what succeeded

The bytes pass as they are, but for what the ledger changes in headers, through two buffers of a fixed size, whatever
both sides do: what one side does not take is not taken from the other one.

Knows streams and the ledger; knows nothing of HTTP and tickets.
"""

from __future__ import annotations

import math
import select
import socket
from typing import Callable, Optional

from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ClientFault, Disconnected
from ovirt_imageio.nbd.export import ExportedDisk, Watch, answer, negotiate
from ovirt_imageio.nbd.handshake import Agreement, Export
from ovirt_imageio.nbd.inbox import Channel, Inbox
from ovirt_imageio.nbd.ledger import Ledger, refusal, renumber
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.requests import Rules
from ovirt_imageio.nbd.wire import ExportFlag, Mode
from ovirt_imageio.net.stream import Data, Stream

__all__ = ["Gate", "attach", "can_serve", "speaks_like"]

# Many small requests, or one of 256 KiB, as nbdcopy makes them, with its header: that stays in the processor's cache.
BUFFER = 288 * 1024


# What a server must be able to do where it was offered.
ABILITIES = ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_WRITE_ZEROES

# Returns a connection to the server on which it speaks as was agreed with the client; closing it is up to the caller.
Connect = Callable[[Agreement], Optional[Client]]


def attach(channel: Channel, disk: ExportedDisk, offer: Offer, watch: Watch, connect: Connect) -> None:
    """Serve a disk to a client: by the server behind the disk if `connect` finds one, else by the disk itself.

    Raises nbd.errors.ClientFault if the client breaks the protocol, nbd.errors.ConnectionDead if the server does, and
    what `connect`, the disk, the watch and the channel raise.
    """
    inbox = Inbox(channel)
    agreement = negotiate(inbox, channel, offer)
    if agreement is None:
        return
    server = connect(agreement)
    if server is None:
        answer(inbox, channel, disk, offer, agreement, watch)
        return
    numbers = renumber(server.export.contexts, agreement.contexts)
    assert numbers is not None
    with server.lending() as stream:
        ledger = Ledger(Rules(offer, agreement), agreement.mode, numbers)
        Gate(inbox, channel, stream, ledger, agreement.mode, watch).run()


def speaks_like(export: Export, agreement: Agreement) -> bool:
    """Return True if what a server says can pass to the client with whom this was agreed."""
    return export.mode is agreement.mode and renumber(export.contexts, agreement.contexts) is not None


def can_serve(export: Export, offer: Offer) -> bool:
    """Return True if a server that has this export can do everything that was offered to a client."""
    has_blocks = export.minimum_block == 1 and export.maximum_block >= offer.maximum_block
    return has_blocks and export.size >= offer.size and not offer.flags & ABILITIES & ~export.flags


class Gate:
    """One client and its own connection to the server.

    Threads: that of the client's connection.
    """

    def __init__(
        self, inbox: Inbox, channel: Channel, server: Stream, ledger: Ledger, mode: Mode, watch: Watch
    ) -> None:
        self._channel = channel
        self._client = channel.stream
        self._server = server
        self._mode = mode
        self._ledger = ledger
        self._watch = watch
        # What came from the client and was not shown to the ledger, in the part of the memory from start to end.
        self._requests = memoryview(bytearray(BUFFER))
        first = inbox.take_all()
        self._start, self._end = 0, len(first)
        self._requests[: self._end] = first
        self._replies = memoryview(bytearray(BUFFER))
        # What the server, and what the client must take next, one part after the other.
        self._to_server: list[Data] = []
        self._to_client: list[Data] = []
        # Answers of our own, which wait for the end of a reply, and of the payload that is refused.
        self._answers: list[Data] = []
        self._is_over = False
        # Requests were left over because the ledger was full.
        self._is_stuck = False
        # One that gave all that there was room for, or was not asked yet, may have more that the socket does not tell.
        self._client_has_more = self._server_has_more = True
        self._poll = select.poll()
        # What is polled for, by socket.
        self._polled: dict[socket.socket, int] = {}

    def run(self) -> None:
        """Let them talk until the client leaves.

        Raises what the watch and the client's stream raise, nbd.errors.ClientFault if the client breaks the
        protocol, and nbd.errors.ConnectionDead if the server does, or does not answer any more.
        """
        self._pass_requests()
        while True:
            self._push()
            if self._is_busy:
                client_has, server_has = self._wait()
                self._from_client(client_has)
                self._from_server(server_has)
            elif self._is_over or not self._await_request():
                return

    @property
    def _is_busy(self) -> bool:
        """True if something is under way."""
        return bool(len(self._ledger) or self._to_server or self._to_client or self._answers or self._is_amid_request)

    @property
    def _is_amid_request(self) -> bool:
        # What comes behind a good-bye is never looked at.
        return not self._ledger.is_over and (self._start < self._end or self._ledger.is_amid_request)

    # --- From one to the other ---------------------------------------------------------------------------------------

    def _await_request(self) -> bool:
        """Wait for the next request; return False if the client left, or should."""
        self._watch.under_way(False)
        self._start, self._end = 0, self._channel.wait(self._requests)
        self._client_has_more = self._end == BUFFER
        self._pass_requests()
        return self._end > 0

    def _from_client(self, has_more: bool) -> None:
        """Take requests, unless those before wait for the server."""
        if not self._takes_requests or not (has_more or self._is_stuck):
            return
        if self._start:
            # The beginning of a header, or what a full ledger did not take.
            left = bytes(self._requests[self._start : self._end])
            self._requests[: len(left)] = left
            self._start, self._end = 0, len(left)
        if has_more and self._end < BUFFER:
            count = self._client.receive_some(self._requests[self._end :])
            if count == 0:
                if self._is_amid_request:
                    raise ClientFault("the NBD client left amid a request")
                self._is_over = True
            self._end += count or 0
            self._client_has_more = self._end == BUFFER
        self._pass_requests()

    @property
    def _takes_requests(self) -> bool:
        """True if something may be taken from the client."""
        return not self._to_server and not self._is_over and self._has_room

    @property
    def _has_room(self) -> bool:
        """True if the ledger takes more: another request, or the payload of one."""
        return not self._ledger.is_full or self._ledger.is_amid_request

    def _pass_requests(self) -> None:
        """Show the ledger what came."""
        data = self._requests[self._start : self._end]
        for part in self._ledger.take_requests(data):
            if part.refused is None:
                self._to_server.append(data[part.start : part.end])
            else:
                self._answers.append(refusal(part.refused, part.code, self._mode))
        self._start += self._ledger.taken
        self._is_stuck = self._ledger.is_full and self._start < self._end
        self._is_over = self._is_over or self._ledger.is_over
        self._watch.under_way(self._ledger.has_changes)

    def _from_server(self, has_more: bool) -> None:
        """Take replies, unless those before wait for the client."""
        if not has_more or self._to_client or not len(self._ledger):
            return
        count = self._server.receive_some(self._replies)
        self._server_has_more = count == BUFFER
        if count is None:
            return
        if count == 0:
            raise Disconnected("the NBD server closed the connection")
        data = self._replies[:count]
        end = self._ledger.take_replies(data)
        if self._answers and end >= 0 and not self._ledger.is_dropping:
            self._to_client += (data[:end], *self._take_answers(), data[end:])
        else:
            self._to_client.append(data)
        self._note_moved()

    def _take_answers(self) -> list[Data]:
        """Return the answers of our own, which go to the client now."""
        answers, self._answers = self._answers, []
        self._ledger.note_answered()
        return answers

    def _note_moved(self) -> None:
        for moved in self._ledger.moved:
            self._watch.passed(*moved)
        self._ledger.moved.clear()
        self._watch.under_way(self._ledger.has_changes)

    def _push(self) -> None:
        """Send what there is, as far as they take it."""
        send_some(self._server, self._to_server)
        send_some(self._client, self._to_client)
        is_between = self._ledger.is_between_replies and not self._ledger.is_dropping
        if self._answers and not self._to_client and is_between:
            self._to_client = self._take_answers()
            send_some(self._client, self._to_client)

    # --- Waiting -----------------------------------------------------------------------------------------------------

    def _wait(self) -> tuple[bool, bool]:
        """Return whether the client, and whether the server may have something to receive.

        Wait until one of them gives or takes something, unless there is something to do. Raises what a stream raises,
        or TimedOut, if none does.
        """
        takes_requests = self._takes_requests
        from_client = select.POLLIN * takes_requests | select.POLLOUT * bool(self._to_client)
        takes_replies = not self._to_client and len(self._ledger) > 0
        from_server = select.POLLIN * takes_replies | select.POLLOUT * bool(self._to_server)
        self._poll_for(self._client, from_client)
        # One that left after its last reply is not a fault: the client may be taking that reply still.
        self._poll_for(self._server, from_server or None)
        client_has = takes_requests and self._client_has_more
        server_has = takes_replies and self._server_has_more
        if client_has or server_has or (takes_requests and self._is_stuck):
            ready = self._poll.poll(0)
        else:
            ready = self._poll_patiently()
        for number, events in ready:
            if number != self._client.wire.sock.fileno():
                server_has |= events & ~select.POLLOUT != 0
            elif not from_client:
                # It left, or was interrupted, while nothing was expected of it.
                raise self._client.failure(ConnectionResetError("the connection was closed"), is_sending=False)
            else:
                client_has |= events & ~select.POLLOUT != 0
        return client_has, server_has

    def _poll_for(self, stream: Stream, events: Optional[int]) -> None:
        """Let a poll tell of these events, and of the end; None: not even of that."""
        sock = stream.wire.sock
        if self._polled.get(sock) == events:
            return
        if events is None:
            self._poll.unregister(sock)
            del self._polled[sock]
        else:
            self._poll.register(sock, events)
            self._polled[sock] = events

    def _poll_patiently(self) -> list[tuple[int, int]]:
        """Return the events that came, waiting for the first one."""
        # The client is late where it must take something, or has begun a request; else the server is.
        is_begun = not len(self._ledger) or (self._ledger.is_amid_request and not self._to_server)
        late = self._client if self._to_client or is_begun else self._server
        ready = self._poll.poll(None if late.timeout is None else math.ceil(late.timeout * 1000))
        if not ready:
            raise late.failure(TimeoutError(), is_sending=late is self._client or bool(self._to_server))
        return ready


def send_some(stream: Stream, parts: list[Data]) -> None:
    """Send the parts, as far as the stream takes them without waiting."""
    while parts:
        part = memoryview(parts[0])
        count = stream.send_some(part) if part else 0
        if count < len(part):
            parts[0] = part[count:]
            return
        del parts[0]
