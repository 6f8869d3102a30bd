"""The state machines of docs/architecture.md are those of the code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import pytest
from fakes import raw_client, toy
from fakes.raw_client import RawClient
from fakes.waiting import DEADLINE

from docs import pages
from ovirt_imageio.auth.lease import TRANSITIONS
from ovirt_imageio.client.copy.queue import Closed, Queue
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.nbd import handshake, wire
from ovirt_imageio.nbd.wire import Info, Option, Reply

PAGE = "docs/architecture.md"
DRAWINGS = [block for block in pages.blocks(PAGE, pages.read(PAGE)) if block.language == "mermaid"]
ARROW = re.compile(r" *(\S+) --> (\S+?)(?:: (.+))?")

END = "[*]"


def drawing(name: str) -> list[tuple[str, str, str]]:
    """Return the arrows of a drawing: from, to, and what stands beside."""
    found = [
        block for block in pages.blocks(PAGE, pages.read(PAGE)) if (block.note, block.argument) == ("drawing", name)
    ]
    assert len(found) == 1, name
    arrows = [match.groups("") for match in map(ARROW.fullmatch, found[0].text.splitlines()) if match]
    assert arrows
    return [(start, end, text) for start, end, text in arrows]


def edges(name: str) -> set[tuple[str, str]]:
    """Return the arrows of a drawing without their text."""
    return {(start, end) for start, end, _ in drawing(name)}


def test_every_drawing_is_compared():
    assert {block.argument for block in DRAWINGS} == {"transfer", "connection", "handshake", "queue"}


def test_transfer():
    table = {(start.name, end.name, event.name) for (start, event), end in TRANSITIONS.items()}
    assert {arrow for arrow in drawing("transfer") if arrow[0] != END} == table


# --- The handshake: every path of the generator, walked with a server that offers or refuses --------------------------


def walk(refused: set[Option], *, secure: bool, dirty: bool, wants_sizes: bool) -> Iterator[str]:
    """Yield what is asked for, one after the other, until the export is there."""
    steps = handshake.negotiate("", dirty=dirty, secure=secure)
    pending = bytearray(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 3))
    step = next(steps)
    yield "GREETING"
    try:
        while True:
            data = b""
            if isinstance(step, handshake.Receive):
                data, pending[: step.size] = bytes(pending[: step.size]), b""
            elif isinstance(step, handshake.Send) and len(step.data) > wire.CLIENT_FLAGS.size:
                option = Option(int.from_bytes(step.data[8:12], "big"))
                yield option.name
                pending += answer(option, refused, wants_sizes)
                wants_sizes = wants_sizes and option != Option.GO
            step = steps.send(data)
    except StopIteration:
        yield END


def answer(option: Option, refused: set[Option], wants_sizes: bool) -> bytes:
    """Return what a server says to an option."""

    def reply(kind: Reply, payload: bytes = b"") -> bytes:
        return wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload

    if option == Option.EXPORT_NAME:
        return wire.EXPORT.pack(4096, 1)
    if option in refused:
        return reply(Reply.ERR_UNSUP)
    if option != Option.GO:
        return reply(Reply.ACK)
    if wants_sizes:
        return reply(Reply.ERR_BLOCK_SIZE_REQD)
    return reply(Reply.INFO, wire.INFO_TYPE.pack(Info.EXPORT) + wire.EXPORT.pack(4096, 1)) + reply(Reply.ACK)


def test_handshake():
    optional = [Option.EXTENDED_HEADERS, Option.STRUCTURED_REPLY, Option.GO]
    found = set()
    for bits in itertools.product([False, True], repeat=6):
        refused = {option for option, is_refused in zip(optional, bits) if is_refused}
        found |= pairs([END, *walk(refused, secure=bits[3], dirty=bits[4], wants_sizes=bits[5])])
    assert found == edges("handshake")


# --- The queue: each arrow, tried ------------------------------------------------------------------------------------


def reach(state: str) -> Queue[str]:
    """Return a queue in a state."""
    queue: Queue[str] = Queue()
    if state == "COMPLETE":
        queue.put("left over")
        queue.complete()
    return queue


def is_in(queue: Queue[str], state: str) -> bool:
    """Look at a queue by what it does."""
    try:
        if state == "OPEN":
            queue.put("new")
            return queue.get() == "new"
        return queue.get() is None
    except Closed:
        return state == "CLOSED"


QUEUE_EVENTS: dict[str, Callable[[Queue[str]], object]] = {
    "put": lambda queue: (queue.put("a"), queue.get()),
    "get": lambda queue: queue.get(block=False),
    "complete": lambda queue: queue.complete(),
    "close": lambda queue: queue.close(),
}


@pytest.mark.parametrize("arrow", [arrow for arrow in drawing("queue") if arrow[0] != END], ids=" ".join)
def test_queue(arrow):
    start, end, event = arrow
    queue = reach(start)
    QUEUE_EVENTS[event](queue)
    assert is_in(queue, end)


# --- A connection: ways through the drawing, taken by a client --------------------------------------------------------


def is_idle(client: RawClient) -> None:
    assert client.is_closed()


def leaves(client: RawClient) -> None:
    client.send(b"GET /echo/a")
    client.end()
    assert client.is_closed()


def is_through(client: RawClient) -> None:
    assert client.get("/echo/a").status == 200
    assert client.get("/echo/a", "connection: close").closes
    assert client.is_closed()


def talks_nonsense(client: RawClient) -> None:
    assert client.ask(b"nonsense\r\n\r\n").status == 400
    go_on(client)


def sends_too_much(client: RawClient) -> None:
    assert client.ask(b"PATCH /echo/a HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n").status == 200
    go_on(client)


def go_on(client: RawClient) -> None:
    """Send more than the buffers of the sockets hold: it must be read."""
    client.send(bytes(8 * 1024**2))
    client.end()
    assert client.is_closed()


def meets_a_failure(client: RawClient) -> None:
    client.send(b"GET /stream?size=10&stop=5 HTTP/1.1\r\n\r\n")
    assert client.read_to_end().endswith(b"\r\n\r\nxxxxx")


WAYS: dict[Callable[[RawClient], None], str] = {
    is_idle: "WAIT CLOSED",
    leaves: "WAIT HEAD CLOSED",
    is_through: "WAIT HEAD APPLICATION WAIT HEAD APPLICATION GOODBYE CLOSED",
    talks_nonsense: "WAIT HEAD REFUSED LINGER CLOSED",
    sends_too_much: "WAIT HEAD APPLICATION LINGER CLOSED",
    meets_a_failure: "WAIT HEAD APPLICATION CLOSED",
}


@pytest.mark.parametrize("way", WAYS)
def test_connection(way):
    limits = Limits(idle_timeout=0.1) if way is is_idle else Limits(linger_timeout=DEADLINE)
    with toy.serving(limits=limits) as server, raw_client.connect(server) as client:
        way(client)


def test_every_arrow_of_a_connection_is_walked():
    walked = {pair for states in WAYS.values() for pair in pairs(states.split())}
    assert walked | {(END, "WAIT")} == edges("connection")


def pairs(states: Sequence[str]) -> set[tuple[str, str]]:
    """Return each state with the next one."""
    return set(zip(states, states[1:]))
