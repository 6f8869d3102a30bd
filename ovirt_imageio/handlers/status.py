"""The one table that turns what went wrong into an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import Refusal

__all__ = ["STATUS", "translate"]

# The nearest class in an error's ancestry decides.
STATUS: Mapping[type[errors.Error], HTTPStatus] = {
    errors.InvalidValue: HTTPStatus.BAD_REQUEST,
    errors.InvalidRange: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.PartialContent: HTTPStatus.BAD_REQUEST,
    errors.BrokenProtocol: HTTPStatus.BAD_REQUEST,
    errors.NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    errors.AuthorizationError: HTTPStatus.FORBIDDEN,
    errors.OperationCanceled: HTTPStatus.FORBIDDEN,
    errors.ServiceStops: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.TransferBusy: HTTPStatus.CONFLICT,
    errors.TooManyConnections: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.NoSpace: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.BackendUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BackendUntrusted: HTTPStatus.BAD_GATEWAY,
    errors.BackendTimeout: HTTPStatus.GATEWAY_TIMEOUT,
}

# Seconds after which a ticket may have a connection to spare: one that stands still gives way by then.
RETRY_AFTER = 10

# A restart takes a second or two.
RETRY_SOON = 1

# After these nothing that follows on the connection could succeed either.
CLOSING = (errors.NotAuthenticated, errors.AuthorizationError, errors.OperationCanceled)


def translate(error: Exception) -> Optional[Refusal]:
    """Return how to refuse a request that ended in error, or None if that is not one that we foresaw."""
    if not isinstance(error, errors.Error):
        return None
    headers = {}
    if isinstance(error, errors.RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.available}"
    elif isinstance(error, errors.OriginError) and error.content_range is not None:
        headers["content-range"] = error.content_range
    elif isinstance(error, errors.NotAuthenticated):
        # RFC 9110, 15.5.2, wants a scheme; one that no browser knows opens no dialog.
        headers["www-authenticate"] = "Signed-Token"
    elif isinstance(error, errors.TooManyConnections):
        headers["retry-after"] = str(RETRY_AFTER)
    elif isinstance(error, errors.ServiceStops):
        headers["retry-after"] = str(RETRY_SOON)
    return Refusal(_status(error), str(error), headers, close=isinstance(error, CLOSING))


def _status(error: errors.Error) -> int:
    if isinstance(error, errors.OriginError):
        return error.status
    for ancestor in type(error).__mro__:
        if ancestor in STATUS:
            return STATUS[ancestor]
    return HTTPStatus.INTERNAL_SERVER_ERROR
