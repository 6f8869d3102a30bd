"""Errors of the library: what they say, and which old names catch them."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors as base
from ovirt_imageio.client import errors


def test_refusal_of_a_server_has_its_status_and_words():
    with pytest.raises(errors.ServerError) as error, errors.translated():
        raise base.OriginError("read", "Out of range", status=416)
    assert (error.value.code, error.value.message) == (416, "Out of range")
    assert str(error.value) == "The server answered 416: Out of range"


def test_others_stay_what_they_are():
    with pytest.raises(base.NoSpace), errors.translated():
        raise base.NoSpace("write", "full")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (errors.SizeMismatch(10, 5), errors.Error, "10 bytes"),
        (errors.ImageExists("/a"), FileExistsError, "/a exists"),
        (errors.MemberNotFound("member 'x'"), KeyError, "No such member 'x'"),
        (errors.InvalidArgument("fmt", "raw", "qcow2"), ValueError, "'raw'"),
        (errors.VerificationFailed("sha1", "aa", "bb"), errors.Error, "aa here, but bb"),
        (errors.OutOfBounds(5, 6, 7), RuntimeError, "out of bounds"),
        (errors.UnexpectedEnd(5, 3), RuntimeError, "only 3"),
    ],
)
def test_old_names_and_texts(error, kind, text):
    assert isinstance(error, errors.Error)
    assert isinstance(error, kind)
    assert text in str(error)
