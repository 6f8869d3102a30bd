"""Whatever qemu-img tells of an image: every file that is looked at is a plain one, or the image is refused."""

from __future__ import annotations

import json

import pytest
from fuzz.qemu_inputs import INPUTS
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.qemu import img, references

NAMES = st.text(max_size=10) | st.lists(
    st.sampled_from(["/", "..", "json:", "{}", "nbd:", "file:", "a", ":", "\0", "\n", "//", "\ud800"]), max_size=5
).map("".join)
EXTENTS = st.lists(st.fixed_dictionaries({}, optional={"filename": NAMES, "format": NAMES}), max_size=3)
DATA = st.fixed_dictionaries({}, optional={"data-file": NAMES, "extents": EXTENTS})
INFO = st.fixed_dictionaries(
    {},
    optional={
        "filename": NAMES,
        "backing-filename": NAMES,
        "backing-filename-format": NAMES,
        "format-specific": st.fixed_dictionaries({}, optional={"data": DATA}),
    },
)


def check(layers, is_member, backing_chain):
    """Return the layers that were looked at; raises errors.UnsafeImage."""
    looked = []
    rest = list(layers[1:])

    def look(path, format):
        looked.append(path)
        return rest.pop(0) if rest else {}

    references.check("/images/top", layers[0], look, is_member=is_member, backing_chain=backing_chain)
    return looked


@given(st.lists(INFO, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_references(layers, is_member, backing_chain):
    try:
        looked = check(layers, is_member, backing_chain)
    except errors.UnsafeImage as error:
        assert str(error).isprintable()
        return
    for path in looked:
        assert path.startswith("/") and "\0" not in path
    assert not (looked and (is_member or not backing_chain))


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_output(data):
    """What qemu-img prints is an object, or an error that says so."""
    try:
        assert isinstance(img.parse("look at the image", data), dict)
    except errors.BackendUnavailable as error:
        assert "look at the image" in str(error)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    info, expected = INPUTS[name]
    try:
        check([info], False, True)
    except errors.UnsafeImage:
        assert expected == "unsafe"
    else:
        assert expected == "good"
