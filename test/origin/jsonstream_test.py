"""Arrays of objects, in any pieces."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.origin.jsonstream import OBJECT_LIMIT, objects

VALUES = st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.booleans(), st.text(max_size=5)), max_size=4)


@given(st.lists(VALUES, max_size=5), st.booleans(), st.integers(1, 20), st.sampled_from([None, 2]))
def test_any_array_in_any_pieces(items, ascii_only, step, indent):
    data = json.dumps(items, ensure_ascii=ascii_only, indent=indent).encode()
    assert list(objects(data[i : i + step] for i in range(0, len(data), step))) == items


@given(st.binary(max_size=30))
def test_any_bytes_are_decoded_or_refused(data):
    try:
        result = list(objects([data]))
    except ValueError:
        return
    assert result == json.loads(data)


REFUSED = """
{}   null   [   [{   [{"a":1   [{"a":1}   [{"a":1},   [{"a":1},]   [{"a":1}{"a":2}]
[1]   [[]]   [null]   [,]   [{}]x   [{}]]   ]   [{"a":}]
"""


@pytest.mark.parametrize("text", ["", "  ", *REFUSED.split(), '[{"a": ' + "[" * 5000])
def test_refused(text):
    with pytest.raises(ValueError):
        list(objects([text.encode()]))


def test_bad_utf8():
    with pytest.raises(ValueError):
        list(objects([b'[{"\xff": 1}]']))


def test_comes_early():
    def chunks():
        yield b'[{"a": 1}, '
        raise AssertionError("too far")

    assert next(objects(chunks())) == {"a": 1}


def test_object_that_never_ends():
    def chunks():
        yield b'[{"a": "'
        for _ in range(100):
            yield b"x" * OBJECT_LIMIT
        raise AssertionError("too far")

    with pytest.raises(ValueError):
        list(objects(chunks()))


def test_memory_is_constant():
    def chunks():
        yield b'[{"start": 0}'
        for _ in range(2000):
            yield b', {"start": 1}' * 10
        yield b"]"

    tracemalloc.start()
    try:
        assert sum(1 for _ in objects(chunks())) == 20001
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", [b"", b"[", b'[{"a": 1}', b'[{"a": 1},', b'[{"a": 1}]'])
def test_endless_white_space(head):
    def chunks():
        yield head
        while True:
            yield b" " * 4096

    with pytest.raises(ValueError, match="white space"):
        list(objects(chunks()))
