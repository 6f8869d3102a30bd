"""Errors say what happened, in words that are fit for a log."""

from __future__ import annotations

import errno

import pytest

from ovirt_imageio.nbd import errors


@pytest.mark.parametrize(
    "code,number",
    [
        (1, errno.EPERM),
        (5, errno.EIO),
        (12, errno.ENOMEM),
        (22, errno.EINVAL),
        (28, errno.ENOSPC),
        (75, errno.EOVERFLOW),
        (95, errno.ENOTSUP),
        (108, errno.ESHUTDOWN),
        (4711, errno.EINVAL),
    ],
)
def test_errno(code, number):
    assert errors.RequestFailed("read", code).errno == number


def test_request_failed():
    assert str(errors.RequestFailed("write", 28)) == "NBD write failed: No space left on device"
    assert str(errors.RequestFailed("read", 5, "bad disk")) == "NBD read failed: bad disk (Input/output error)"
    assert str(errors.RequestFailed("read", 22)) == "NBD read failed: Invalid argument"
    assert str(errors.RequestFailed("read", 4711)) == "NBD read failed: unknown error 4711"


def test_unsupported():
    error = errors.Unsupported("block status")
    assert error.errno == errno.ENOTSUP
    assert isinstance(error, errors.RequestFailed)


def test_refused():
    assert str(errors.Refused("TLS", "it is not allowed")) == "NBD server refused TLS: it is not allowed"


@pytest.mark.parametrize("kind", [errors.ProtocolError, errors.Refused, errors.Disconnected, errors.TimedOut])
def test_what_kills_a_connection(kind):
    assert issubclass(kind, errors.ConnectionDead)
    assert not issubclass(kind, errors.RequestFailed)


def test_printable():
    assert errors.printable(b"plain") == "plain"
    assert errors.printable(b"two\r\nlines\x1b[31m\0") == "two  lines [31m"
    assert errors.printable(b"\xff\xfe") == "��"
    assert errors.printable(b"x" * 200) == "x" * 200
    assert errors.printable(b"x" * 10000) == "x" * 200 + "..."
