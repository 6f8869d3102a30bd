"""What servers tell, new ones, old ones, and those that talk nonsense."""

from __future__ import annotations

import pytest

from ovirt_imageio.origin.abilities import Abilities, natural, parse


def test_nothing_told():
    assert parse({}) == Abilities()


def test_new_server():
    answer = {
        "features": ["extents", "checksum", "zero", "flush"],
        "max_readers": 8,
        "max_writers": 4,
        "block_size": 4096,
        "size": 1024,
        "dirty": False,
        "sparse": True,
        "transfer_id": "x",
        "unix_socket": "\0/org/ovirt/imageio",
        "tls": "kernel-send",
        "more": [1],
    }
    assert parse(answer, "OPTIONS,GET,PUT,PATCH") == Abilities(
        features=frozenset({"extents", "checksum", "zero", "flush"}),
        is_writable=True,
        has_dirty=False,
        max_readers=8,
        max_writers=4,
        block_size=4096,
        size=1024,
        unix_socket="\0/org/ovirt/imageio",
        can_pipeline=True,
        takes_chunks=True,
        is_sparse=True,
        tls="kernel-send",
    )


def test_old_server():
    found = parse({"features": ["extents", "zero"], "max_readers": 8}, "OPTIONS,GET")
    assert found == Abilities(frozenset({"extents", "zero"}), is_writable=False, has_dirty=True, max_readers=8)


@pytest.mark.parametrize("allow,expected", [("", True), ("GET, PUT", True), ("GET", False), ("GET,PUTTY", False)])
def test_allow(allow, expected):
    assert parse({}, allow).is_writable == expected


@pytest.mark.parametrize("value", [None, "8", -1, 1.5, True, [8], {}, 2**63, 10**3000, float("inf")])
def test_nonsense(value):
    names = ("features", "max_readers", "max_writers", "block_size", "size", "unix_socket", "tls")
    found = parse({name: value for name in names if (name, value) != ("unix_socket", "8")})
    assert found == Abilities()


def test_natural():
    assert natural({"a": 0}, "a") == 0
    assert natural({}, "a") is None
