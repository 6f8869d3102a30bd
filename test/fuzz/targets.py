"""What a fuzzer may call that changes bytes itself: functions of what a stranger sends, and good bytes to begin with.

    run, seeds = TARGETS["x509"]
    for seed in seeds:
        run(seed)

Each is a property that a test of Hypothesis has too; a fuzzer that is guided by coverage gets further when nothing
stands between its bytes and ours.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Callable, NamedTuple

from auth import ticket_test
from client.backup import manifest_test
from config import files_test
from fakes.signing import key_pair
from fuzz import archive_test, http_inputs, http_test, nbd_inputs, nbd_server_test, nbd_test
from geometry import byteranges_test
from nbd import address_test
from net import x509_test
from origin import jsonstream_test, listing_test, reply_test
from real import certificates
from sessions import token_test

from ovirt_imageio import errors
from ovirt_imageio.client import resume
from ovirt_imageio.client.backup import manifest
from ovirt_imageio.nbd.wire import Mode
from ovirt_imageio.net.jws import Key, PrivateKey
from ovirt_imageio.origin.listing import read_extents

__all__ = ["TARGETS", "Target"]

MODES = list(Mode)


class Target(NamedTuple):
    """A function that raises what no input may make it raise, and good inputs."""

    run: Callable[[bytes], object]
    seeds: list[bytes]


# --- Bytes that choose something first ------------------------------------------------------------------------------


def mode_of(data: bytes) -> Mode:
    """Return the mode that the first byte chooses."""
    return MODES[data[0] % len(MODES)] if data else Mode.SIMPLE


def choosing(mode: Mode, data: bytes) -> bytes:
    """Return data behind a byte that chooses a mode."""
    return bytes([MODES.index(mode)]) + data


def in_a_mode(run: Callable[[Mode, bytes], object]) -> Callable[[bytes], object]:
    """Return a function of bytes of which the first one chooses a mode."""
    return lambda data: run(mode_of(data), data[1:])


# --- Archives -------------------------------------------------------------------------------------------------------


def look_into_archive(data: bytes) -> None:
    """As it is, and with checksums that are right: they do not hide what else is wrong."""
    archive_test.verdict(data)
    right = bytearray(data)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            header = right[start : start + 148] + b" " * 8 + right[start + 156 : start + 512]
            right[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    archive_test.verdict(bytes(right))


# --- Answers of an origin -------------------------------------------------------------------------------------------


def take_answer(data: bytes) -> None:
    """To a GET, or to a HEAD where the first byte is odd."""
    reply_test.check_pieces(data[1:], "HEAD" if data and data[0] % 2 else "GET")


def read_list(data: bytes) -> None:
    """Extents that follow one another, or an error, in whatever pieces they come."""
    outcomes = []
    for chunks in ([data], [data[start : start + 1] for start in range(len(data))]):
        end = 0
        try:
            for extent in read_extents(listing_test.FakeReply(*chunks), "zero"):
                assert extent.start == end
                end = extent.start + extent.length
        except errors.StorageError:
            # How many came before it depends on the pieces.
            end = -1
        assert end < 2**63
        outcomes.append(end)
    assert outcomes[0] == outcomes[1]


# --- NBD ------------------------------------------------------------------------------------------------------------


def pass_both_directions(data: bytes) -> None:
    """A mode, the length of what the client sends in two bytes, that, and what the server sends."""
    end = 3 + int.from_bytes(data[1:3], "big")
    nbd_server_test.check_both_directions(mode_of(data), data[3:end], data[end:])


def both_directions(mode: Mode) -> bytes:
    sent = b"".join(nbd_server_test.ask(mode, 0, cookie, 0, 40) for cookie in range(3))
    came = b"".join(nbd_server_test.reply(mode, 1, cookie, b"\0" * 48, True) for cookie in (1, 0, 2))
    return choosing(mode, len(sent).to_bytes(2, "big") + sent + came)


# --- Files of the client ---------------------------------------------------------------------------------------------


def read_manifest(data: bytes) -> None:
    with contextlib.suppress(errors.InvalidValue):
        found = manifest.parse(data.decode(errors="surrogateescape"))
        assert manifest.parse(found.to_text()) == found


def read_journal(data: bytes) -> None:
    """Ranges in their order, or an error."""
    with contextlib.suppress(errors.InvalidValue):
        end = 0
        for first, last in resume.decode(data).done:
            assert end <= first < last < 2**63
            end = last


# --- What is signed, and texts --------------------------------------------------------------------------------------

TOKEN = json.dumps(token_test.GOOD).encode()
ACCESS = token_test.make_verifier().verify(token_test.encode(token_test.GOOD), token_test.NOW)


def verify_token(data: bytes) -> None:
    """The JSON within a token, and all of it: what is accepted gives what was signed."""
    for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
        with contextlib.suppress(errors.NotAuthenticated):
            assert token_test.make_verifier().verify(text, token_test.NOW) == ACCESS


PRIVATE, PUBLIC = key_pair("ed25519")
PAYLOAD = {"jti": "x", "exp": 5}


def verify_signed(data: bytes) -> None:
    """What is accepted gives what was signed."""
    with contextlib.suppress(errors.NotAuthenticated):
        assert Key(PUBLIC).verify(data.decode("latin-1")) == PAYLOAD


def parse_ticket(data: bytes) -> None:
    """Fields of a ticket that are other than in a good one, as JSON."""
    try:
        changes = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(changes, dict):
        ticket_test.test_any_document_is_parsed_or_refused.hypothesis.inner_test(changes)


def parse_ranges(data: bytes) -> None:
    byteranges_test.test_any_text_is_a_range_or_refused.hypothesis.inner_test(data.decode("latin-1"), 4096)


def parse_address(data: bytes) -> None:
    address_test.test_any_text_is_a_location_or_refused.hypothesis.inner_test(data.decode(errors="surrogateescape"), "")


def load_configuration(data: bytes) -> None:
    files_test.test_any_text.hypothesis.inner_test(data.decode(errors="surrogateescape"))


def read_certificate(data: bytes) -> None:
    x509_test.test_any_bytes.hypothesis.inner_test(data)


def decode_list(data: bytes) -> None:
    jsonstream_test.test_any_bytes_are_decoded_or_refused.hypothesis.inner_test(data)


ADDRESSES = ["nbd:unix:/s:exportname=a", "nbd:[::1]:1:exportname=a", "nbd://h:1/a", "nbd+unix:///a?socket=/s"]
ADDRESSES += ["nbds://h/a?tls-hostname=x", "nbds+unix:///?socket=%2Fs&tls-certificates=/c", "nbds+vsock://1:2/a"]
CHANGES = {"url": "nbds://h:1/a", "ops": ["read", "write"], "size": 0, "dirty": True, "sparse": False, "timeout": 1}
CHANGES.update({"inactivity_timeout": 60, "transfer_id": "id", "filename": "a.raw"})
EXTENTS = [
    {"start": 0, "length": 4096, "zero": True, "hole": False},
    {"start": 4096, "length": 1e3, "b": [None, "\\u"]},
]
CONFIGURATIONS = [b"[remote]\nport = 1\nhost = ::\n# x\n[tls]\nenable = yes\n", b"[logger_root]"]

TARGETS = {
    "address": Target(parse_address, [text.encode() for text in ADDRESSES]),
    "archive": Target(look_into_archive, [archive_test.make(format) for format in archive_test.FORMATS]),
    "byteranges": Target(parse_ranges, [b"bytes=1-2", b"bytes=-2", b"bytes=3-", b"bytes 1-2/3", b"bytes 4-*/*"]),
    "config": Target(load_configuration, CONFIGURATIONS),
    "http": Target(http_test.compare, [data for data, *_ in http_inputs.INPUTS.values()]),
    "jsonstream": Target(decode_list, [json.dumps(EXTENTS).encode(), b"[]"]),
    "journal": Target(read_journal, [b'{"version": %d, "transfer": {}, "done": [[0, 1], [3, 4]]}' % resume.VERSION]),
    "jws": Target(verify_signed, [PrivateKey(PRIVATE).sign(PAYLOAD, "key-1").encode()]),
    "listing": Target(read_list, [listing_test.listed((0, 4096), (4096, 512)).encode()]),
    "manifest": Target(read_manifest, [manifest_test.MANIFEST.to_text().encode()]),
    "nbd-both-directions": Target(pass_both_directions, [both_directions(mode) for mode in Mode]),
    "nbd-client": Target(nbd_test.use_client, [nbd_test.good_replies(Mode.STRUCTURED)]),
    "nbd-handshake": Target(nbd_test.negotiate, [nbd_test.good_negotiation()]),
    "nbd-offer": Target(nbd_server_test.negotiate, [nbd_server_test.GOOD_NEGOTIATION]),
    "nbd-replies": Target(
        in_a_mode(nbd_test.receive),
        [choosing(mode, nbd_test.good_replies(mode)) for mode in Mode]
        + [choosing(mode, data) for mode, data, *_ in nbd_inputs.REPLIES.values()],
    ),
    "nbd-server-or-gate": Target(
        in_a_mode(nbd_server_test.compare), [choosing(mode, data) for mode, data, *_ in nbd_inputs.REQUESTS.values()]
    ),
    "reply": Target(take_answer, [bytes([0]) + answer for answer in reply_test.ANSWERS]),
    "ticket": Target(parse_ticket, [json.dumps(CHANGES).encode()]),
    "token": Target(verify_token, [TOKEN, token_test.encode(token_test.GOOD).encode()]),
    "x509": Target(read_certificate, [x509_test.der(certificates.certificate().cert_file)]),
}
