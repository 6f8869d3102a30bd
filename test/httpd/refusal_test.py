from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal, phrase_of


def test_refusal():
    refusal = Refusal(404, "No such thing")
    assert str(refusal) == "404 Not Found: No such thing"
    assert (dict(refusal.headers), refusal.close) == ({}, False)
    assert isinstance(refusal, errors.Error)


@pytest.mark.parametrize("status", [420, 450, 499, 520, 599])
def test_status_that_is_not_registered(status):
    """A proxy passes on what the server behind it said."""
    assert str(Refusal(status, "Enhance your calm")) == f"{status} Unknown: Enhance your calm"
    assert phrase_of(status) == "Unknown"


def test_client_gone():
    assert str(ClientGone("reset")) == "The client is gone: reset"
    assert isinstance(ClientGone(""), errors.Error)
