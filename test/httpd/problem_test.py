"""Who gets problem details, and what is in them."""

import json

import pytest

from ovirt_imageio.httpd import problem
from ovirt_imageio.httpd.refusal import Refusal


@pytest.mark.parametrize(
    "accept",
    [
        "application/problem+json",
        "Application/Problem+JSON",
        "text/html,application/problem+json;q=0.9",
        "application/problem+json ; q=1.000",
        "text/plain, application/problem+json",
        "text/plain;q=0.5, application/problem+json;charset=utf-8;q=0.6",
    ],
)
def test_wanted(accept):
    assert problem.is_wanted(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/*",
        "application/json",
        "text/plain",
        "application/problem+json;q=0",
        "application/problem+json;q=0.4, text/plain;q=0.5",
        "application/problem+json;q=high",
        "application/problem+json;q=-1",
        "application/problem+json;q=1e9",
        "application/problem+jsonx",
        "x application/problem+json",
        ";;;,,,=",
    ],
)
def test_not_wanted(accept):
    assert not problem.is_wanted(accept)


def test_document():
    assert json.loads(problem.describe(Refusal(404, 'No such "ticket"\u2028'))) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": 'No such "ticket"\u2028',
    }
    assert b'"title": "Unknown"' in problem.describe(Refusal(599, "an origin made it up"))
