"""What an origin answers: what is believed, and how it is quoted."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Iterator

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.origin import answers
from ovirt_imageio.origin.connection import Peer
from ovirt_imageio.origin.reply import Reply


@contextlib.contextmanager
def answered(body: bytes = b"", status: int = 200, **headers: str) -> Iterator[Reply]:
    """Give the reply to a request that was answered so."""
    ours, theirs = socket.socketpair()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with ours, theirs:
        theirs.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        yield Reply(Peer(ours, DEADLINE), "GET", lambda peer, is_reusable: None)


@pytest.mark.parametrize(
    ("content_range", "expected"),
    [
        (None, True),
        ("bytes 5-14/100", True),
        ("bytes 5-14/*", True),
        ("bytes 6-15/100", False),
        ("bytes 5-14", False),
        ("bytes */100", False),
        ("lines 5-14/100", False),
    ],
)
def test_range(content_range, expected):
    headers = {} if content_range is None else {"content_range": content_range}
    with answered(bytes(10), 206, **headers) as reply:
        assert answers.holds_range(reply, 5, 10) is expected
        # Whatever it says: so many bytes cannot be another number of them.
        assert not answers.holds_range(reply, 5, 9)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[1]", {}),
        (b"", {}),
        (b"{", {}),
        (b"\xff", {}),
        (b"[" * 10_000, {}),
        (b'{"a": ' * 10_000, {}),
    ],
)
def test_object(body, expected):
    with answered(body) as reply:
        assert answers.read_object(reply) == expected


def test_checksum():
    with answered(json.dumps({"checksum": "0aff", "block_size": 4096}).encode()) as reply:
        assert answers.read_checksum(reply, 4096) == "0aff"


@pytest.mark.parametrize(
    "answer",
    [{}, {"checksum": "0aff"}, {"checksum": "0aff", "block_size": 1}, {"checksum": "?", "block_size": 4096}],
)
def test_no_checksum(answer):
    with answered(json.dumps(answer).encode()) as reply, pytest.raises(errors.StorageError, match="no checksum"):
        answers.read_checksum(reply, 4096)


def test_refusal():
    with answered(b"No such\r\n ticket: SECRET\n", 403) as reply:
        error = answers.read_refusal(reply, "read", "SECRET")
    assert isinstance(error, errors.OriginError)
    assert (str(error), error.status, error.content_range) == ("No such ticket: (ticket)", 403, None)


def test_refusal_without_words():
    with answered(b"", 500) as reply:
        assert str(answers.read_refusal(reply, "read", "")) == "The image server answered with status 500"


def test_refusal_with_too_many_words():
    with answered(b"x" * 10_000, 500) as reply:
        assert len(str(answers.read_refusal(reply, "read", ""))) == answers.TEXT_LIMIT


@pytest.mark.parametrize(("told", "expected"), [("bytes */100", "bytes */100"), ("bytes 0-1/100", None), ("x", None)])
def test_refused_range(told, expected):
    with answered(b"beyond", 416, content_range=told) as reply:
        error = answers.read_refusal(reply, "read", "")
    assert isinstance(error, errors.OriginError)
    assert error.content_range == expected


@pytest.mark.parametrize("status", [204, 302])
def test_what_is_neither_wanted_nor_a_refusal(status):
    with answered(b"", status) as reply:
        error = answers.read_refusal(reply, "read", "")
    assert type(error) is errors.StorageError
    assert f"unexpected status {status}" in str(error)


@pytest.mark.parametrize(
    "status,text,stored",
    [
        (400, b"Expected 10 bytes, got only 7\n", 7),
        (400, b"Expected 11 bytes, got only 7\n", 0),
        (400, b"Expected 10 bytes, got only -7\n", 0),
        (400, b"No such ticket\n", 0),
        (400, b"", 0),
        (500, b"Expected 10 bytes, got only 7\n", 0),
    ],
)
def test_stored(status, text, stored):
    with answered(text, status) as reply:
        assert answers.read_stored(reply, 10) == stored


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (errors.BackendUnavailable("read", "lost"), True),
        (errors.BackendTimeout("read", "late"), True),
        (errors.OriginError("read", "busy", status=503), True),
        (errors.OriginError("read", "bad gateway", status=502), True),
        (errors.OriginError("read", "broken", status=500), False),
        (errors.OriginError("read", "forbidden", status=403), False),
        (errors.OriginError("read", "full", status=507), False),
        (errors.StorageError("write", "broken"), False),
        (errors.OperationCanceled(), False),
        (errors.BackendUntrusted("open", "untrusted"), False),
    ],
)
def test_is_passing(error, passing):
    assert answers.is_passing(error) == passing


@pytest.mark.parametrize("status,code", [(507, errno.ENOSPC), (403, errno.EPERM), (504, errno.ETIMEDOUT), (500, None)])
def test_refusal_in_the_language_of_the_system(status, code):
    """A client of NBD, behind which an origin knows HTTP only, must tell a full disk from a broken one."""
    with answered(b"no", status) as reply:
        error = answers.read_refusal(reply, "write", "")
    assert error.code == code
