"""Doors: passed in order, and by all that asks for a disk."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ovirt_imageio import errors
from ovirt_imageio.handlers.doors import Guarded


class Resource:
    def get(self, request, response, ticket_id, *groups):
        response.append((ticket_id, *groups))


def request(method="GET", **headers):
    return SimpleNamespace(method=method, headers=headers)


def get(doors, ticket_id, asked=None):
    response: list = []
    Guarded(Resource(), doors).get(asked or request(), response, ticket_id, "more")
    return response


def test_one_after_the_other():
    doors = [lambda request, ticket_id: f"{ticket_id}-a", lambda request, ticket_id: f"{ticket_id}-b"]
    assert get(doors, "x") == [("x-a-b", "more")]


def test_a_door_that_stays_closed():
    def closed(request, ticket_id):
        raise errors.NoSuchTicket()

    with pytest.raises(errors.NoSuchTicket):
        get([closed, lambda request, ticket_id: ticket_id], "x")


@pytest.mark.parametrize("ticket_id", ["", "*"])
def test_what_is_no_ticket_needs_none(ticket_id):
    assert get([lambda request, ticket_id: "secret"], ticket_id) == [(ticket_id, "more")]


def test_a_preflight_passes():
    asked = request("OPTIONS", **{"origin": "x", "access-control-request-method": "GET"})
    assert get([lambda request, ticket_id: "secret"], "x", asked) == [("x", "more")]


def test_a_verb_that_the_resource_does_not_have():
    with pytest.raises(AttributeError):
        Guarded(Resource(), []).put  # noqa: B018
