"""The document: what is taken, what is refused, and what may be asked of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.client.backup.manifest import DiskCopy, Machine, Manifest, Point, is_point_name, parse
from ovirt_imageio.errors import InvalidValue

SYSTEM, DATA, CHECKPOINT = (f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "abc")
NAMES = ["20261129T205401Z", "20261130T205401Z", "20261130T205401Z-2"]


def disk(number=SYSTEM, base=None, name="web system"):
    return DiskCopy(number, name, 4096, "qcow2", True, base, 512, "0" * 64)


def point(name, *disks, checkpoint=CHECKPOINT):
    return Point(name, checkpoint, False, disks)


# As in the drawing of the module.
MANIFEST = Manifest(
    Machine(CHECKPOINT, "web"),
    (
        point(NAMES[0], disk(), disk(DATA)),
        point(NAMES[1], disk(base=NAMES[0])),
        point(NAMES[2], disk(base=NAMES[1]), disk(DATA)),
    ),
)


def test_there_and_back():
    assert parse(MANIFEST.to_text()) == MANIFEST
    assert [entry["mode"] for entry in json.loads(MANIFEST.to_text())["points"]] == [
        "full",
        "incremental",
        "incremental",
    ]


def test_chain():
    last = MANIFEST.point()
    assert [where.name for where, _ in MANIFEST.chain(last, last.disk(SYSTEM))] == NAMES
    assert [where.name for where, _ in MANIFEST.chain(last, last.disk(DATA))] == NAMES[2:]


def test_points():
    assert MANIFEST.point(NAMES[1]) is MANIFEST.points[1]
    with pytest.raises(InvalidValue, match=f"expected one of {NAMES[0]}, "):
        MANIFEST.point("yesterday")
    with pytest.raises(InvalidValue, match="at least one backup"):
        Manifest(MANIFEST.machine).point()


def test_name_of_a_second_one_in_the_same_second():
    assert MANIFEST.name_for("20261201T000000Z") == "20261201T000000Z"
    assert MANIFEST.name_for(NAMES[0]) == f"{NAMES[0]}-2"
    assert MANIFEST.name_for(NAMES[1]) == f"{NAMES[1]}-3"
    assert is_point_name(f"{NAMES[1]}-3")


def test_choose_disks():
    both = point(NAMES[0], disk(name="a 'b'/c"), disk(DATA, name="data"))
    assert both.choose([]) == both.disks
    assert both.choose(["a 'b'/c", SYSTEM.upper(), "a 'b'/c"])[0].id == SYSTEM
    assert [found.id for found in both.choose(["data", SYSTEM])] == [DATA, SYSTEM]
    with pytest.raises(InvalidValue, match=rf"expected a disk of the backup: {SYSTEM} \(a 'b'/c\), {DATA} \(data\)"):
        both.choose(["other"])


def test_two_disks_of_one_name():
    twins = point(NAMES[0], disk(name="\x1b[2Jdata"), disk(DATA, name="\x1b[2Jdata"))
    with pytest.raises(InvalidValue, match=f"expected one disk, by its id: {SYSTEM} ") as caught:
        twins.choose(["\x1b[2Jdata"])
    assert str(caught.value).isprintable()


def broken(path, value):
    """Return the document with another value at a path."""
    document = json.loads(MANIFEST.to_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(document)


FIRST = ("points", 0, "disks", 0)

FAULTS = [
    (("version",), 2, "a newer ovirt-img"),
    (("version",), True, "version"),
    (("vm",), None, "vm"),
    (("vm", "id"), "web", "id"),
    (("points",), {}, "points"),
    (("points", 0), [], "name"),
    (("points", 0, "name"), "../../etc", "name"),
    (("points", 1, "name"), NAMES[0], "another one for each point"),
    (("points", 0, "checkpoint"), "latest", "checkpoint"),
    (("points", 0, "quiesced"), 1, "quiesced"),
    (("points", 0, "disks"), [], "at least one"),
    ((*FIRST, "id"), "../../../etc/shadow", "id"),
    ((*FIRST, "id"), DATA, "none twice"),
    ((*FIRST, "size"), -1, "size"),
    ((*FIRST, "size"), 1.5, "size"),
    ((*FIRST, "format"), "vmdk", "format"),
    ((*FIRST, "bytes"), "512", "bytes"),
    ((*FIRST, "sha256"), "0" * 63, "sha256"),
    ((*FIRST, "base"), NAMES[0], "an earlier point"),
    ((*FIRST, "base"), NAMES[1], "an earlier point"),
    (("points", 1, "disks", 0, "base"), "/etc", "an earlier point"),
]


@pytest.mark.parametrize(("path", "value", "text"), FAULTS, ids=str)
def test_refused(path, value, text):
    with pytest.raises(InvalidValue, match=text):
        parse(broken(path, value))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": 1', "[" * 100_000, '"\\ud800"'])
def test_not_a_manifest(text):
    with pytest.raises(InvalidValue, match="manifest"):
        parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["version", "vm", "points", "id", "name", "disks"]), inner)
        ),
    )
)
def test_anything_is_taken_or_refused(document):
    with pytest.raises(InvalidValue):
        parse(json.dumps(document))
