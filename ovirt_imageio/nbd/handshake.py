"""Negotiate: from the first byte of a server to an export that can be used.

The negotiation is a generator. It yields what to do next, one of

    Send(data)      send these bytes; resume with b""
    Receive(size)   receive exactly this many; resume with them
    StartTLS()      wrap the connection; resume with b""

and returns the Export. It raises errors.ProtocolError when the server breaks the rules and errors.Refused when it says
no; either way the connection must be closed. It remembers a bounded number of bytes, whatever the server sends.

Pure: knows neither sockets nor addresses.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, Optional, Union

from ovirt_imageio.geometry.blocks import MAX_SIZE
from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ProtocolError, Refused, printable
from ovirt_imageio.nbd.wire import ExportFlag, HandshakeFlag, Info, Mode, Option, Reply

__all__ = ["Agreement", "Export", "Receive", "Send", "StartTLS", "Step", "negotiate"]

# "If NBD_INFO_BLOCK_SIZE was not sent": what every server can take.
DEFAULT_MINIMUM_BLOCK = 1
DEFAULT_PREFERRED_BLOCK = 4096
DEFAULT_MAXIMUM_BLOCK = 32 * 1024 * 1024
# "The minimum block size ... no larger than the preferred": and no storage has larger blocks than this.
LARGEST_MINIMUM_BLOCK = 64 * 1024

# How many answers one option may have before ACK. A list of bitmaps is the longest that exists.
MAX_REPLIES = 256

# How to ask for each kind of replies; simple ones need no question.
MODES = ((Option.EXTENDED_HEADERS, Mode.EXTENDED), (Option.STRUCTURED_REPLY, Mode.STRUCTURED))
BEST_FIRST = (Mode.EXTENDED, Mode.STRUCTURED, Mode.SIMPLE)

# What says that a server cannot do something, rather than that it will not talk to us.
NOT_OFFERED = (Reply.ERR_UNSUP, Reply.ERR_POLICY, Reply.ERR_PLATFORM)


class Send(NamedTuple):
    """Send these bytes."""

    data: bytes


class Receive(NamedTuple):
    """Receive exactly this many bytes."""

    size: int


class StartTLS(NamedTuple):
    """Wrap the connection in TLS."""


Step = Union[Send, Receive, StartTLS]


@dataclass(frozen=True)
class Agreement:
    """How to go on: the kind of replies, and the meta contexts that were selected, by number."""

    mode: Mode = Mode.SIMPLE
    contexts: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """What was negotiated: the disk, and how to speak about it."""

    name: str
    size: int
    flags: ExportFlag
    mode: Mode
    # Meta contexts by the number that replies use for them.
    contexts: dict[int, str] = field(default_factory=dict)
    minimum_block: int = DEFAULT_MINIMUM_BLOCK
    preferred_block: int = DEFAULT_PREFERRED_BLOCK
    maximum_block: int = DEFAULT_MAXIMUM_BLOCK

    @property
    def is_read_only(self) -> bool:
        """True if nothing can be written."""
        return ExportFlag.READ_ONLY in self.flags

    @property
    def can_flush(self) -> bool:
        """True if FLUSH is offered."""
        return ExportFlag.SEND_FLUSH in self.flags

    @property
    def can_fua(self) -> bool:
        """True if one write can be asked to reach the storage before its reply."""
        return ExportFlag.SEND_FUA in self.flags

    @property
    def can_zero(self) -> bool:
        """True if WRITE_ZEROES is offered."""
        return ExportFlag.SEND_WRITE_ZEROES in self.flags

    @property
    def can_multi_conn(self) -> bool:
        """True if a flush on one connection covers the finished writes of all."""
        return ExportFlag.CAN_MULTI_CONN in self.flags

    @property
    def bitmaps(self) -> list[str]:
        """The dirty bitmaps among the contexts, by the name of their context."""
        return sorted(name for name in self.contexts.values() if name.startswith(wire.DIRTY_BITMAP))


def negotiate(
    name: str,
    *,
    dirty: bool = False,
    secure: bool = False,
    like: Optional[Agreement] = None,
    asks_maximum: bool = True,
) -> Generator[Step, bytes, Export]:
    """Negotiate the export `name`: with all its dirty bitmaps if `dirty`, over TLS if `secure`.

    `like`: as it was agreed with a client of ours, with no better mode and no other contexts. The one dirty bitmap of
    the export stands for one that has another name there. Without `asks_maximum` the server is not asked for the
    longest request that it takes: it tells that unasked, and the question costs the way there and back.
    """
    flags = yield from greet()
    if secure:
        yield from start_tls()
    mode = yield from choose_mode(Mode.EXTENDED if like is None else like.mode)
    contexts: dict[int, str] = {}
    if mode is not Mode.SIMPLE:
        if like is None:
            contexts = yield from choose_contexts(name, dirty)
        elif like.contexts:
            contexts = yield from find_contexts(name, list(like.contexts.values()))
    maximum = (yield from ask_maximum(name)) if asks_maximum else DEFAULT_MAXIMUM_BLOCK
    export = yield from go(name, mode, contexts, HandshakeFlag.NO_ZEROES in flags, maximum)
    return export


def greet() -> Generator[Step, bytes, HandshakeFlag]:
    """Exchange the magic words; return the flags that both sides know."""
    data = yield Receive(wire.GREETING.size)
    init, option, bits = wire.GREETING.unpack(data)
    if init != wire.INIT_MAGIC:
        raise ProtocolError(f"not an NBD server: it greets with {printable(data[:8])!r}")
    if option != wire.OPTION_MAGIC:
        raise ProtocolError("the NBD server speaks the old style of the protocol, which has no options")
    if not bits & HandshakeFlag.FIXED_NEWSTYLE:
        raise ProtocolError("the NBD server does not speak the fixed new style of the protocol")
    flags = HandshakeFlag(bits & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES))
    yield Send(wire.CLIENT_FLAGS.pack(flags))
    return flags


def start_tls() -> Generator[Step, bytes, None]:
    """Ask for TLS; without it nothing else is said."""
    kind, payload = yield from ask_simply(Option.STARTTLS)
    if kind != Reply.ACK:
        refuse("TLS", kind, payload)
    yield StartTLS()


def choose_mode(best: Mode = Mode.EXTENDED) -> Generator[Step, bytes, Mode]:
    """Return the best kind of replies that the server offers, none better than `best`."""
    for option, mode in MODES[BEST_FIRST.index(best) :]:
        kind, payload = yield from ask_simply(option)
        if kind == Reply.ACK:
            return mode
        if kind not in NOT_OFFERED:
            refuse(option.name.lower().replace("_", " "), kind, payload)
    return Mode.SIMPLE


def choose_contexts(name: str, dirty: bool) -> Generator[Step, bytes, dict[int, str]]:
    """Select what block status will tell: allocation, depth, and each bitmap of the export if `dirty`."""
    wanted = [wire.BASE_ALLOCATION, wire.ALLOCATION_DEPTH]
    if dirty:
        listed = yield from ask_contexts(Option.LIST_META_CONTEXT, name, (wire.DIRTY_BITMAP,))
        wanted.extend(context for _, context in listed if context.startswith(wire.DIRTY_BITMAP))
    return (yield from select_contexts(name, wanted))


def find_contexts(name: str, wanted: list[str]) -> Generator[Step, bytes, dict[int, str]]:
    """Select these contexts; for a dirty bitmap the only one of the export, whatever its name is."""
    if any(context.startswith(wire.DIRTY_BITMAP) for context in wanted):
        listed = yield from ask_contexts(Option.LIST_META_CONTEXT, name, (wire.DIRTY_BITMAP,))
        bitmaps = [context for _, context in listed if context.startswith(wire.DIRTY_BITMAP)]
        if len(bitmaps) == 1:
            wanted = [context for context in wanted if not context.startswith(wire.DIRTY_BITMAP)] + bitmaps
    return (yield from select_contexts(name, wanted))


def select_contexts(name: str, wanted: list[str]) -> Generator[Step, bytes, dict[int, str]]:
    """Select these contexts, as far as the server has them."""
    selected = yield from ask_contexts(Option.SET_META_CONTEXT, name, tuple(wanted))
    contexts = dict(selected)
    if len(contexts) != len(selected) or len(set(contexts.values())) != len(selected):
        raise ProtocolError("the NBD server selected one meta context twice")
    if not set(wanted).issuperset(contexts.values()):
        raise ProtocolError("the NBD server selected a meta context that was not asked for")
    return contexts


def ask_contexts(option: Option, name: str, queries: tuple[str, ...]) -> Generator[Step, bytes, list[tuple[int, str]]]:
    """Return the contexts that the server lists or selects: number and name."""
    yield Send(wire.encode_option(option, wire.encode_meta_query(name, queries)))
    found: list[tuple[int, str]] = []
    for _ in range(MAX_REPLIES):
        kind, payload = yield from receive_reply(option)
        if kind == Reply.ACK:
            return found
        if kind in NOT_OFFERED:
            return []
        if wire.is_error(kind):
            refuse(f"the export {name!r}", kind, payload)
        if kind != Reply.META_CONTEXT or not wire.CONTEXT_ID.size < len(payload):
            raise ProtocolError(f"unexpected answer of type {kind} and {len(payload)} bytes to {option.name}")
        (number,) = wire.CONTEXT_ID.unpack_from(payload)
        found.append((number, decode(payload[wire.CONTEXT_ID.size :])))
    raise ProtocolError(f"the NBD server does not stop answering {option.name}")


def ask_maximum(name: str) -> Generator[Step, bytes, int]:
    """Return the longest request that the server takes. What else is wrong with the export, GO tells."""
    kind, payload, told = yield from ask_export(Option.INFO, name, (Info.BLOCK_SIZE,))
    if kind == Reply.ACK:
        return block_sizes(told).maximum
    if not wire.is_error(kind):
        refuse(f"the export {name!r}", kind, payload)
    return DEFAULT_MAXIMUM_BLOCK


def go(name: str, mode: Mode, contexts: dict[int, str], short: bool, maximum: int) -> Generator[Step, bytes, Export]:
    """Enter the transmission phase.

    We do not ask for the block sizes now: qemu then reports a minimum of one, and does the read-modify-write of odd
    requests itself, where it can serialize them among all connections. A server that insists gets asked.
    """
    kind, payload, told = yield from ask_export(Option.GO, name, ())
    if kind == Reply.ERR_BLOCK_SIZE_REQD:
        kind, payload, told = yield from ask_export(Option.GO, name, (Info.BLOCK_SIZE,))
    if kind == Reply.ERR_UNSUP:
        data = yield from ask_export_name(name, short)
        told = {Info.EXPORT: data}
    elif kind != Reply.ACK:
        refuse(f"the export {name!r}", kind, payload)
    if Info.EXPORT not in told:
        raise ProtocolError("the NBD server did not tell the size of the export")
    size, bits = wire.EXPORT.unpack(told[Info.EXPORT])
    if size > MAX_SIZE:
        raise ProtocolError(f"the NBD server reports an impossible size: {size}")
    flags = ExportFlag(bits & sum(ExportFlag))
    minimum, preferred, limit = block_sizes(told)
    return Export(name, size, flags, mode, contexts, minimum, preferred, min(maximum, limit))


def ask_export(
    option: Option, name: str, infos: tuple[Info, ...]
) -> Generator[Step, bytes, tuple[int, bytes, dict[int, bytes]]]:
    """Ask about the export, or for it; return type and payload of the last answer, and what others told, by Info."""
    sizes = {Info.EXPORT: wire.EXPORT.size, Info.BLOCK_SIZE: wire.BLOCK_SIZES.size}
    yield Send(wire.encode_option(option, wire.encode_go(name, infos)))
    told: dict[int, bytes] = {}
    for _ in range(MAX_REPLIES):
        kind, payload = yield from receive_reply(option)
        if kind != Reply.INFO:
            return kind, payload, told
        if len(payload) < wire.INFO_TYPE.size:
            raise ProtocolError("the NBD server sent an information without a type")
        (info,) = wire.INFO_TYPE.unpack_from(payload)
        if info in sizes:
            told[info] = payload[wire.INFO_TYPE.size :]
            if len(told[info]) != sizes[info]:
                raise ProtocolError(f"the NBD server sent an information of type {info} of {len(payload)} bytes")
    raise ProtocolError(f"the NBD server does not stop answering {option.name}")


def ask_export_name(name: str, short: bool) -> Generator[Step, bytes, bytes]:
    """Enter the transmission phase the old way, of servers without GO. One that does not like it hangs up."""
    yield Send(wire.encode_option(Option.EXPORT_NAME, name.encode("utf-8")))
    data = yield Receive(wire.EXPORT.size)
    if not short:
        yield Receive(wire.EXPORT_NAME_PADDING)
    return data


def ask_simply(option: Option) -> Generator[Step, bytes, tuple[int, bytes]]:
    """Ask for an option that has neither payload nor more than one answer; return its type and payload."""
    yield Send(wire.encode_option(option))
    kind, payload = yield from receive_reply(option)
    if not wire.is_error(kind) and (kind != Reply.ACK or payload):
        raise ProtocolError(f"unexpected answer of type {kind} and {len(payload)} bytes to {option.name}")
    return kind, payload


def receive_reply(option: Option) -> Generator[Step, bytes, tuple[int, bytes]]:
    """Receive one answer to `option`: its type and payload."""
    magic, answered, kind, length = wire.OPTION_REPLY.unpack((yield Receive(wire.OPTION_REPLY.size)))
    if magic != wire.REPLY_MAGIC:
        raise ProtocolError(f"an answer to {option.name} begins with {magic:#x}")
    if answered != option:
        raise ProtocolError(f"the NBD server answered option {answered} instead of {option.name}")
    if length > wire.MAX_OPTION_REPLY:
        raise ProtocolError(f"an answer to {option.name} is {length} bytes long")
    payload = (yield Receive(length)) if length else b""
    return kind, payload


class BlockSizes(NamedTuple):
    """What the server wants requests to be like."""

    minimum: int = DEFAULT_MINIMUM_BLOCK
    preferred: int = DEFAULT_PREFERRED_BLOCK
    maximum: int = DEFAULT_MAXIMUM_BLOCK


def block_sizes(told: dict[int, bytes]) -> BlockSizes:
    """Return the block sizes that the server reported, the defaults if it did not."""
    if Info.BLOCK_SIZE not in told:
        return BlockSizes()
    minimum, preferred, maximum = wire.BLOCK_SIZES.unpack(told[Info.BLOCK_SIZE])
    is_power = minimum & (minimum - 1) == 0
    if not 0 < minimum <= LARGEST_MINIMUM_BLOCK or not is_power or maximum < minimum:
        raise ProtocolError(f"impossible block sizes: minimum {minimum}, preferred {preferred}, maximum {maximum}")
    return BlockSizes(minimum, preferred, maximum // minimum * minimum)


def refuse(what: str, kind: int, payload: bytes) -> NoReturn:
    """Raise the error that the server answered."""
    if not wire.is_error(kind):
        raise ProtocolError(f"unexpected answer of type {kind}, when asking for {what}")
    reasons = {
        Reply.ERR_TLS_REQD: "it requires TLS: use an nbds:// URL",
        Reply.ERR_UNKNOWN: "there is no such export",
        Reply.ERR_UNSUP: "it does not support it",
        Reply.ERR_POLICY: "it is not allowed",
        Reply.ERR_SHUTDOWN: "it is shutting down",
    }
    reason = next((text for code, text in reasons.items() if code == kind), f"error {kind:#x}")
    words = printable(payload)
    raise Refused(what, f"{reason} ({words})" if words else reason)


def decode(data: bytes) -> str:
    """Return the text of the server, which must be UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(f"the NBD server sent a name that is not UTF-8: {printable(data)!r}") from None
