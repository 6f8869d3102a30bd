"""Tickets at the border."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.auth.ticket import (
    MAX_SECONDS,
    OPERATIONS,
    Changes,
    Fields,
    parse,
    parse_changes,
    short,
)
from ovirt_imageio.geometry.blocks import MAX_SIZE

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


def document(**changes):
    return {"uuid": UUID, "size": 2**30, "url": "file:///disk", "ops": ["read"], "timeout": 300, **changes}


def test_smallest_document():
    ticket = parse(document())
    assert ticket.uuid == UUID
    assert ticket.size == 2**30
    assert ticket.url == "file:///disk"
    assert ticket.ops == ("read",)
    assert ticket.timeout == 300
    assert ticket.inactivity_timeout == 60
    assert ticket.transfer_id == f"(ticket/{UUID[:18]})"
    assert ticket.filename is None
    assert not ticket.sparse
    assert not ticket.dirty


def test_full_document():
    ticket = parse(
        document(
            ops=["write", "read"],
            inactivity_timeout=120,
            transfer_id="transfer-1",
            filename="\u05d0 disk.qcow2",
            sparse=True,
            dirty=True,
        )
    )
    assert ticket.ops == ("write", "read")
    assert ticket.inactivity_timeout == 120
    assert ticket.transfer_id == "transfer-1"
    assert ticket.filename == "\u05d0 disk.qcow2"
    assert ticket.sparse
    assert ticket.dirty


def test_unknown_keys_are_ignored():
    assert parse(document(from_the_future={"a": 1})) == parse(document())


@pytest.mark.parametrize("value", [0, 1, MAX_SIZE])
def test_good_sizes(value):
    assert parse(document(size=value)).size == value


@pytest.mark.parametrize(
    "key, longest",
    [("uuid", "u" * 255), ("transfer_id", "t" * 255), ("filename", "f" * 1024), ("url", "file:/" + "x" * 8186)],
)
def test_longest_texts(key, longest):
    assert len(str(getattr(parse(document(**{key: longest})), key))) >= len(longest)
    with pytest.raises(errors.InvalidTicket, match=f"^Invalid {key} "):
        parse(document(**{key: longest + "x"}))


@pytest.mark.parametrize("key", ["timeout", "inactivity_timeout"])
def test_longest_times(key):
    """The engine reads them as 32-bit integers with a sign."""
    assert getattr(parse(document(**{key: 2147483647})), key) == 2147483647
    assert getattr(parse_changes({key: 2147483647}), key) == 2147483647
    for read in (lambda: parse(document(**{key: 2147483648})), lambda: parse_changes({key: 2147483648})):
        with pytest.raises(errors.InvalidTicket, match=f"^Invalid {key} "):
            read()


@pytest.mark.parametrize("value", [0, 1.5, -1.5, 2147483647, -2147483647])
def test_seconds(value):
    found = Fields({"left": value}).seconds("left")
    assert found == value and type(found) is float


@pytest.mark.parametrize(
    "value", [2147483648, -2147483648, 2147483647.5, True, None, "1", [], float("nan"), float("inf")]
)
def test_bad_seconds(value):
    with pytest.raises(errors.InvalidTicket, match=r"^Invalid left .*expected a number from -2147483647 to 2147483647"):
        Fields({"left": value}).seconds("left")


@pytest.mark.parametrize("value", [0, 0.5, 7])
def test_number(value):
    found = Fields({"until": value}).number("until", 7)
    assert (found, type(found)) == (value, float)


@pytest.mark.parametrize("value", [-1, 7.5, "1", True, None, float("nan")])
def test_bad_number(value):
    with pytest.raises(errors.InvalidTicket, match="a number from 0 to 7"):
        Fields({"until": value}).number("until", 7)


def test_names_of_fields():
    assert list(Fields({"a": 1, "b": None})) == ["a", "b"]


def test_default_inactivity_timeout():
    assert parse(document(), inactivity_timeout=17).inactivity_timeout == 17
    assert parse(document(inactivity_timeout=0), inactivity_timeout=17).inactivity_timeout == 17


@pytest.mark.parametrize("key", ["uuid", "size", "ops", "timeout", "url"])
def test_missing(key):
    bad = document()
    del bad[key]
    with pytest.raises(errors.InvalidTicket, match=rf"^Invalid {key} \(missing\): expected ") as e:
        parse(bad)
    assert e.value.name == key


@pytest.mark.parametrize(
    "key, value",
    [
        *itertools.product(
            ["size", "timeout", "inactivity_timeout"], [True, False, None, "1", 1.0, [], {}, -1, float("nan")]
        ),
        ("size", MAX_SIZE + 1),
        ("size", 10**400),
        ("timeout", MAX_SECONDS + 1),
        ("inactivity_timeout", MAX_SECONDS + 1),
        *itertools.product(
            ["ops"],
            [None, "read", {"read": 1}, 1, [], ["READ"], ["read", "delete"], [None], [["read"]], [True], [{}], ["put"]],
        ),
        *itertools.product(["uuid", "url", "transfer_id", "filename"], [None, 1, True, [], {}]),
        *itertools.product(["sparse", "dirty"], [None, 0, 1, "true", "", []]),
        *itertools.product(
            ["uuid", "url", "transfer_id", "filename"],
            ["a\nb", "a\rb", "a\0b", "a\x7fb", "a\x85b", "a\u2028b", "a\ud800b", "a" * 10_000],
        ),
        ("uuid", ""),
        ("uuid", "a/b"),
        ("uuid", "a" * 256),
        ("url", ""),
        ("url", "/disk"),
        ("url", "http://[::1/disk"),
    ],
)
def test_bad_value(key, value):
    with pytest.raises(errors.InvalidTicket, match=f"^Invalid {key} ") as e:
        parse(document(**{key: value}))
    assert e.value.name == key
    assert e.value.expected
    # It can be sent and logged: one line, encodable.
    assert "\n" not in str(e.value)
    str(e.value).encode()


@pytest.mark.parametrize("value", [None, [], "ticket", 1, 1.5, True, [{"uuid": UUID}]])
def test_no_object(value):
    with pytest.raises(errors.InvalidTicket, match="expected a JSON object"):
        parse(value)


def test_id_of_the_url_must_match():
    assert parse(document(), url_id=UUID).uuid == UUID
    with pytest.raises(errors.InvalidTicket, match="expected the id in the URL"):
        parse(document(), url_id="other")


@pytest.mark.parametrize(
    "changes",
    [
        {"url": f"https://{UUID}"},
        {"url": f"gopher://host/{UUID}"},
        {"ops": [UUID]},
        {"size": UUID},
        {"timeout": {"a": [UUID]}},
        {"filename": f"{UUID}\n"},
        {"uuid": f"{UUID}\n"},
        {"uuid": f"{UUID}{UUID}" * 10},
    ],
)
def test_errors_do_not_tell_the_id(changes):
    def refuse(url):
        raise errors.InvalidValue("url", url, "a better one")

    with pytest.raises(errors.InvalidTicket) as e:
        parse(document(**changes), url_id=None, check_url=refuse)
    assert UUID not in str(e.value)
    assert e.value.__cause__ is None or UUID not in str(e.value.__cause__)


def test_repr_does_not_tell_the_id():
    assert UUID not in repr(parse(document(url=f"https://host/images/{UUID}")))


@pytest.mark.parametrize(
    "url, normal",
    [
        ("file:/disk", "file:///disk"),
        ("file:///a%20b", "file:///a%20b"),
        ("nbd:unix:/sock", "nbd:unix:/sock"),
        ("nbd:unix:/sock:exportname=a", "nbd:unix:/sock:exportname=a"),
        ("nbd://host:10809/name", "nbd://host:10809/name"),
        ("nbd+unix:///?socket=/sock", "nbd+unix:///?socket=/sock"),
        ("nbds+unix:///name?socket=/sock", "nbds+unix:///name?socket=/sock"),
        # The engine's own tests send this: the port is not looked at here.
        ("https://server:port/images/1", "https://server:port/images/1"),
    ],
)
def test_url(url, normal):
    seen = []
    assert parse(document(url=url), check_url=seen.append).url == normal
    assert seen == [url], "The URL is judged as it came: file:relative would become an absolute path."


def test_checked_url_is_refused():
    def refuse(url):
        raise errors.InvalidValue("port", "x", "a number")

    with pytest.raises(errors.InvalidTicket, match=r"^Invalid url .* expected a number"):
        parse(document(url="nbd://h:x"), check_url=refuse)


@pytest.mark.parametrize(
    "ops, can_read, can_write",
    [(["read"], True, False), (["write"], True, True), (["read", "write"], True, True), (["read"] * 3, True, False)],
)
def test_rights(ops, can_read, can_write):
    ticket = parse(document(ops=ops))
    assert ticket.can("read") is can_read
    assert ticket.can("write") is can_write
    assert not ticket.can("delete")
    assert len(ticket.ops) == len(set(ops))


@pytest.mark.parametrize(
    "uuid, prefix", [(UUID, UUID[:18]), ("test", "te"), ("a", ""), ("x" * 20, "x" * 10), ("x" * 200, "x" * 18)]
)
def test_short(uuid, prefix):
    assert short(uuid) == prefix


def test_changes():
    assert parse_changes({"timeout": 600}) == Changes(timeout=600)
    assert parse_changes({"inactivity_timeout": 5, "size": "ignored"}) == Changes(inactivity_timeout=5)
    assert parse_changes({"timeout": 0, "inactivity_timeout": 5}) == Changes(0, 5)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"size": 1},
        {"timeout": None},
        {"timeout": -1},
        {"timeout": True},
        {"timeout": "1"},
        {"timeout": 1.0},
        {"timeout": 10, "inactivity_timeout": None},
        {"timeout": MAX_SECONDS + 1},
        [],
        None,
        1,
    ],
)
def test_bad_changes(bad):
    with pytest.raises(errors.InvalidTicket):
        parse_changes(bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*document(), "filename", "transfer_id", "sparse", "dirty"]), json_values))
def test_any_document_is_parsed_or_refused(changes):
    try:
        ticket = parse(document(**changes))
    except errors.InvalidTicket as e:
        str(e).encode()
    else:
        assert 0 <= ticket.size <= MAX_SIZE
        assert 0 <= ticket.timeout <= MAX_SECONDS
        assert 0 < ticket.inactivity_timeout <= MAX_SECONDS
        assert ticket.ops and set(ticket.ops) <= set(OPERATIONS)
        assert "\n" not in ticket.transfer_id
        json.dumps(ticket.url).encode()


def test_describe():
    document = {"uuid": "id", "size": 1, "url": "file:///disk", "ops": ["read"], "timeout": 300}
    defaults = {"inactivity_timeout": 60, "transfer_id": parse(document).transfer_id, "sparse": False, "dirty": False}
    assert parse(document).describe() == {**document, **defaults}
    assert parse({**document, "filename": "disk.raw"}).describe() == {**document, **defaults, "filename": "disk.raw"}
