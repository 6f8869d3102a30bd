"""Every error has a status, and refusals say what clients need."""

from __future__ import annotations

import inspect

import pytest

from ovirt_imageio import errors
from ovirt_imageio.handlers.status import translate

EXAMPLES = {
    400: [
        errors.InvalidValue("size", -1, "more"),
        errors.InvalidTicket("size", -1, "more"),
        errors.PartialContent(2, 1),
        errors.BrokenProtocol("it is not NBD"),
    ],
    401: [errors.NotAuthenticated("the token is expired")],
    403: [errors.NoSuchTicket(), errors.NotPermitted("write"), errors.OperationCanceled()],
    404: [errors.NotFound("ticket"), errors.UnsupportedContext("dirty")],
    409: [errors.TransferBusy("t", ["read"])],
    416: [errors.InvalidRange("Range", "x", "y"), errors.RangeNotSatisfiable(2, 3, 1)],
    # An unsafe image is an error of the client library: no request meets it.
    500: [errors.StorageError("read", "EIO"), errors.ClosedBackend("file"), errors.UnsafeImage("x", "it lies")],
    502: [errors.BackendUntrusted("open", "the certificate is of another host")],
    503: [errors.BackendUnavailable("open", "gone"), errors.TooManyConnections(128), errors.ServiceStops()],
    504: [errors.BackendTimeout("read", "slow")],
    507: [errors.NoSpace("write", "full")],
}


@pytest.mark.parametrize(("status", "error"), [(s, e) for s, group in EXAMPLES.items() for e in group])
def test_the_status(status, error):
    refusal = translate(error)
    assert refusal.status == status
    assert refusal.text == str(error)


def test_every_kind_of_error_has_an_example_here_or_a_parent_that_has():
    known = tuple(type(error) for group in EXAMPLES.values() for error in group)
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.Error) and cls is not errors.Error:
            assert issubclass(cls, known) or any(issubclass(example, cls) for example in known), cls


def test_what_nobody_foresaw_is_left_to_the_server():
    assert translate(ValueError("x")) is None


@pytest.mark.parametrize("error", EXAMPLES[401] + EXAMPLES[403])
def test_who_may_not_is_sent_away(error):
    assert translate(error).close


@pytest.mark.parametrize("error", [e for s, group in EXAMPLES.items() if s not in (401, 403) for e in group])
def test_others_may_try_again(error):
    assert not translate(error).close


def test_too_many_connections_tell_when_to_come_back():
    assert translate(errors.TooManyConnections(128)).headers == {"retry-after": "10"}


def test_a_stop_may_be_a_restart():
    assert translate(errors.ServiceStops()).headers == {"retry-after": "1"}


def test_a_range_error_tells_the_size():
    assert translate(errors.RangeNotSatisfiable(2, 3, 1)).headers == {"content-range": "bytes */1"}


def test_what_the_origin_said_is_passed_on():
    refusal = translate(errors.OriginError("read", "no such range", status=416, content_range="bytes */7"))
    assert (refusal.status, refusal.text, refusal.headers) == (416, "no such range", {"content-range": "bytes */7"})


def test_who_showed_nothing_is_told_what_to_show():
    assert translate(errors.NotAuthenticated("no token")).headers == {"www-authenticate": "Signed-Token"}
