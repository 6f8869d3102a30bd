"""Sealed memory: a document comes back as it was, and what is not one is refused without being shown."""

import fcntl
import json
import os

import pytest

from ovirt_imageio import errors
from ovirt_imageio.service import handover

SECRET = "f00dfeed-0000-4000-8000-c0ffeec0ffee"


@pytest.fixture
def unseal():
    """Return a function that reads a descriptor and closes it."""
    used = []

    def unseal(descriptor, now=None):
        used.append(descriptor)
        return handover.unseal(descriptor, now)

    yield unseal
    for descriptor in used:
        os.close(descriptor)


def sealed(data, seals=handover.SEALS):
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def test_there_and_back(unseal):
    document = {"tickets": [{"uuid": SECRET, "filename": "\u05d0"}], "sessions": []}
    assert unseal(handover.seal(document, 7.0), 8.0) == {"format": 1, "left": 7.0, **document}


def test_nobody_can_change_it(unseal):
    descriptor = handover.seal({})
    assert unseal(descriptor)
    for change in (lambda: os.write(descriptor, b"x"), lambda: os.ftruncate(descriptor, 0)):
        with pytest.raises(PermissionError):
            change()
    assert not os.get_inheritable(descriptor)


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "expected JSON"),
        (b"\xff", "expected JSON"),
        (b"[" * 200_000, "expected JSON"),
        (f'{{"format": 1, "uuid": "{SECRET}"'.encode(), "expected JSON"),
        (json.dumps([SECRET]).encode(), "'list': expected a JSON object"),
        (json.dumps({"uuid": SECRET}).encode(), "'no format': expected format 1"),
        (json.dumps({"format": SECRET}).encode(), "'no format': expected format 1"),
        (b'{"format": true}', "'no format': expected format 1"),
        (b'{"format": 2}', "'format 2': expected format 1"),
        (b'{"format": 1}', "'left -1 seconds ago': expected at most 600"),
        (b'{"format": 1, "left": "x"}', "expected at most 600"),
        (b'{"format": 1, "left": NaN}', "expected at most 600"),
    ],
)
def test_garbage(unseal, data, told):
    with pytest.raises(errors.InvalidValue) as caught:
        unseal(sealed(data))
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("now", [99.0, 701.0])
def test_left_too_long_ago_or_in_the_future(unseal, now):
    with pytest.raises(errors.InvalidValue, match="seconds ago"):
        unseal(handover.seal({}, 100.0), now)


def test_not_sealed(unseal):
    """Some other program could still write to it."""
    with pytest.raises(errors.InvalidValue, match="'not sealed'"):
        unseal(sealed(b'{"format": 1}', fcntl.F_SEAL_SHRINK))


def test_too_large(unseal):
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    # Only its size is large.
    os.ftruncate(descriptor, handover.LIMIT + 1)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, handover.SEALS)
    with pytest.raises(errors.InvalidValue, match="at most"):
        unseal(descriptor)


@pytest.mark.parametrize("path", ["/dev/zero", "/", __file__])
def test_no_memory(unseal, path):
    with pytest.raises(errors.InvalidValue, match="sealed memory that can be read"):
        unseal(os.open(path, os.O_RDONLY))


def test_no_descriptor():
    with pytest.raises(errors.InvalidValue, match="Bad file descriptor"):
        handover.unseal(999)
