"""Negotiate as a server: from our greeting to a client that may send requests.

The mirror of `handshake`, with the same steps: a generator that yields Send(data) and Receive(size), and returns what
was agreed, None when the client said good-bye. It raises errors.ClientFault when the client breaks the rules; then
the connection must be closed. It remembers a bounded number of bytes, whatever the client sends.

    greeting ──> option ──> answer ──┐          options in any order, at most MAX_OPTIONS
                   ^                 │
                   └─────────────────┴──> GO, EXPORT_NAME: transmission      ABORT: the end

Pure: knows neither sockets nor disks.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Optional

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ClientFault, printable
from ovirt_imageio.nbd.handshake import Agreement, Receive, Send, Step
from ovirt_imageio.nbd.wire import ExportFlag, HandshakeFlag, Info, Mode, Option, Reply

__all__ = ["Offer", "welcome"]

# "Clients SHOULD NOT send options ... without end": no client needs more than ten.
MAX_OPTIONS = 64

# A name of 4096 bytes, and some queries. What is longer, up to the second number, is dropped and refused; beyond it
# the client is not worth its bytes.
MAX_OPTION = 16 * 1024
MAX_DROPPED = 64 * 1024

# The longest request that a client may rely on, and the longest that it may send here.
MAXIMUM_BLOCK = 32 * 1024 * 1024

# A page: what every storage does at once.
PREFERRED_BLOCK = 4096


# What both sides may say first.
KNOWN = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


@dataclass(frozen=True)
class Offer:
    """What a client can get: one export, under any of its names."""

    size: int
    flags: ExportFlag
    # They may hold the id of a ticket, which no log may show.
    names: frozenset[str] = field(default=frozenset({""}), repr=False)
    # The meta contexts, by their numbers.
    contexts: Mapping[int, str] = field(default_factory=dict)
    minimum_block: int = 1
    preferred_block: int = PREFERRED_BLOCK
    maximum_block: int = MAXIMUM_BLOCK
    # May requests and replies have extended headers?
    can_extend: bool = True
    # May zeroing give space back? If not, it keeps what is allocated, whatever the client asks for.
    can_punch: bool = True


Steps = Generator[Step, bytes, None]


def welcome(offer: Offer) -> Generator[Step, bytes, Optional[Agreement]]:
    """Negotiate with a client that just connected; return None if it leaves without a disk."""
    yield Send(
        wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
    )
    (bits,) = wire.CLIENT_FLAGS.unpack((yield Receive(wire.CLIENT_FLAGS.size)))
    if bits & ~KNOWN:
        raise ClientFault(f"the NBD client greets with the unknown flags {bits:#x}")
    talk = Talk(offer)
    for _ in range(MAX_OPTIONS):
        option, payload = yield from receive_option()
        if option == Option.EXPORT_NAME:
            yield from talk.export_name(payload, bool(bits & HandshakeFlag.NO_ZEROES))
            return talk.agreement
        if payload is None:
            yield answer(option, Reply.ERR_TOO_BIG, b"the option is too long")
        elif option == Option.ABORT:
            yield answer(option, Reply.ACK)
            return None
        elif (yield from talk.take(option, payload)):
            return talk.agreement
    raise ClientFault("the NBD client does not stop negotiating")


def receive_option() -> Generator[Step, bytes, tuple[int, Optional[bytes]]]:
    """Return the next option and its payload, None for one that is too long to be looked at."""
    magic, option, length = wire.OPTION.unpack((yield Receive(wire.OPTION.size)))
    if magic != wire.OPTION_MAGIC:
        raise ClientFault(f"an option of the NBD client begins with {printable(magic)!r}")
    if length > MAX_DROPPED:
        raise ClientFault(f"option {option} of the NBD client has {length} bytes")
    payload = (yield Receive(length)) if length else b""
    return option, payload if length <= MAX_OPTION else None


class Invalid(Exception):
    """The payload of an option makes no sense; the text tells the client why."""


class Talk:
    """What was agreed so far with one client."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._mode = Mode.SIMPLE
        self._selected: dict[int, str] = {}

    @property
    def agreement(self) -> Agreement:
        """What holds from now on."""
        return Agreement(self._mode, self._selected)

    @property
    def _flags(self) -> ExportFlag:
        """What the client is told: the protocol demands that DF is left clear without structured replies."""
        flags = self._offer.flags
        return flags & ~ExportFlag.SEND_DF if self._mode is Mode.SIMPLE else flags

    def take(self, option: int, payload: bytes) -> Generator[Step, bytes, bool]:
        """Answer an option; return True if it was the last one."""
        try:
            if option in (Option.GO, Option.INFO):
                return (yield from self._go(option, payload))
            if option in (Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT):
                yield from self._contexts(option, payload)
            elif option == Option.LIST:
                yield from self._list(payload)
            elif option in (Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS):
                yield from self._choose_mode(option, payload)
            elif option == Option.STARTTLS:
                yield answer(option, Reply.ERR_POLICY, b"the connection decided about TLS already")
            else:
                yield answer(option, Reply.ERR_UNSUP)
        except Invalid as error:
            yield answer(option, Reply.ERR_INVALID, str(error).encode())
        return False

    def export_name(self, payload: Optional[bytes], is_short: bool) -> Steps:
        """Enter the transmission phase the old way, in which nothing can be refused but by closing."""
        try:
            name = text_of(payload or b"")
        except Invalid as error:
            raise ClientFault(f"the NBD client names an export in a wrong way: {error}") from None
        if payload is None or name not in self._offer.names:
            raise ClientFault("the NBD client asked for an export that does not exist")
        padding = b"" if is_short else bytes(wire.EXPORT_NAME_PADDING)
        yield Send(wire.EXPORT.pack(self._offer.size, self._flags) + padding)

    def _go(self, option: int, payload: bytes) -> Generator[Step, bytes, bool]:
        reader = Reader(payload)
        name = reader.text()
        wanted = [reader.number(">H") for _ in range(reader.number(">H"))]
        reader.end()
        offer = self._offer
        if name not in offer.names:
            yield answer(option, Reply.ERR_UNKNOWN, b"there is no such export")
            return False
        yield inform(option, Info.EXPORT, wire.EXPORT.pack(offer.size, self._flags))
        if Info.NAME in wanted:
            yield inform(option, Info.NAME, name.encode())
        # Told to each client: one that did not ask ignores it, and one that could not know asks for less.
        sizes = (offer.minimum_block, offer.preferred_block, offer.maximum_block)
        yield inform(option, Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(*sizes))
        yield answer(option, Reply.ACK)
        return option == Option.GO

    def _list(self, payload: bytes) -> Steps:
        Reader(payload).end()
        yield answer(Option.LIST, Reply.SERVER, wire.encode_string(""))
        yield answer(Option.LIST, Reply.ACK)

    def _choose_mode(self, option: int, payload: bytes) -> Steps:
        Reader(payload).end()
        if option == Option.EXTENDED_HEADERS and not self._offer.can_extend:
            yield answer(option, Reply.ERR_UNSUP)
        elif option == Option.STRUCTURED_REPLY and self._mode is Mode.EXTENDED:
            yield answer(option, Reply.ERR_EXT_HEADER_REQD)
        else:
            self._mode = Mode.EXTENDED if option == Option.EXTENDED_HEADERS else Mode.STRUCTURED
            # Numbers of contexts belong to the headers with which they were agreed.
            self._selected = {}
            yield answer(option, Reply.ACK)

    def _contexts(self, option: int, payload: bytes) -> Steps:
        if self._mode is Mode.SIMPLE:
            raise Invalid("negotiate structured replies first")
        reader = Reader(payload)
        name = reader.text()
        queries = [reader.text() for _ in range(reader.number(">I"))]
        reader.end()
        if option == Option.SET_META_CONTEXT:
            self._selected = {}
        if name not in self._offer.names:
            yield answer(option, Reply.ERR_UNKNOWN, b"there is no such export")
            return
        is_list = option == Option.LIST_META_CONTEXT
        chosen = dict(self._matching(queries, is_list))
        if not is_list:
            self._selected = chosen
        for number, context in chosen.items():
            yield answer(option, Reply.META_CONTEXT, wire.CONTEXT_ID.pack(number) + context.encode())
        yield answer(option, Reply.ACK)

    def _matching(self, queries: list[str], is_list: bool) -> Iterator[tuple[int, str]]:
        """Yield the contexts that a query names; when listing, one that ends with a colon names all that begin so."""
        for number, context in self._offer.contexts.items():
            if (is_list and not queries) or any(
                context == query or (is_list and query.endswith(":") and context.startswith(query)) for query in queries
            ):
                yield number, context


class Reader:
    """Takes the payload of an option apart; raises Invalid where it ends too early."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0

    def number(self, layout: str) -> int:
        """Return the next number."""
        return int(struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0])

    def text(self) -> str:
        """Return the next string, which has its length before it."""
        return text_of(self._bytes(self.number(">I")))

    def end(self) -> None:
        """Check that nothing is left."""
        if self._position != len(self._payload):
            raise Invalid("the payload is longer than what it says")

    def _bytes(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._payload):
            raise Invalid("the payload is shorter than what it says")
        data = self._payload[self._position : end]
        self._position = end
        return data


def text_of(data: bytes) -> str:
    """Return what a string says; raises Invalid."""
    if len(data) > wire.MAX_STRING:
        raise Invalid(f"a string has {len(data)} bytes, more than {wire.MAX_STRING}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("a string is not UTF-8") from None


def answer(option: int, kind: int, payload: bytes = b"") -> Send:
    """Return an answer to an option; errors may tell people why."""
    return Send(wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload)


def inform(option: int, info: Info, payload: bytes) -> Send:
    """Return one information about the export."""
    return answer(option, Reply.INFO, wire.INFO_TYPE.pack(info) + payload)
