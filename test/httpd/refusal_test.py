from __future__ import annotations

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal


def test_refusal():
    refusal = Refusal(404, "No such thing")
    assert str(refusal) == "404 Not Found: No such thing"
    assert (dict(refusal.headers), refusal.close) == ({}, False)
    assert isinstance(refusal, errors.Error)


def test_client_gone():
    assert str(ClientGone("reset")) == "The client is gone: reset"
    assert isinstance(ClientGone(""), errors.Error)
