"""The traceparent header: what is passed on, and what is ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.httpd import trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PART = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PART}-01"


def test_good():
    assert trace.parse(GOOD) == GOOD
    assert trace.parse(f"00-{TRACE}-{PART}-00") == f"00-{TRACE}-{PART}-00"
    assert trace.trace_of(GOOD) == TRACE


def test_newer_version():
    assert trace.parse(f"cc-{TRACE}-{PART}-ff-what-the-future-brings") == f"00-{TRACE}-{PART}-01"
    assert trace.parse(f"01-{TRACE}-{PART}-02") == f"00-{TRACE}-{PART}-00"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        GOOD.upper(),
        GOOD + "-more",
        GOOD + " ",
        GOOD + "\n",
        f"{GOOD}, {GOOD}",
        f"ff-{TRACE}-{PART}-01",
        f"01-{TRACE}-{PART}-01more",
        f"00-{'0' * 32}-{PART}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PART}-01",
        f"00-{TRACE}-{PART[:-1]}g-01",
        f"00-{TRACE}-{PART}-1",
        f"00-{TRACE}{PART}-01",
        f"0\u0660-{TRACE}-{PART}-01",
        "00-" + "a" * 60000,
    ],
)
def test_malformed(text):
    assert trace.parse(text) is None


@given(st.text())
def test_what_is_passed_on_is_safe(text):
    """Whatever comes: what goes into the log and to other hosts has one form."""
    for value in (text, f"00-{TRACE}-{PART}-{text}", f"{text}-{TRACE}-{PART}-01", f"02-{TRACE}-{PART}-01-{text}"):
        parsed = trace.parse(value)
        assert parsed is None or (len(parsed) == len(GOOD) and parsed.startswith(f"00-{TRACE}-{PART}-"))
