"""Extents are listed over HTTP, and those of a fragmented disk further by NBD; what is lost is asked for again."""

from __future__ import annotations

import contextlib
import itertools
from types import MappingProxyType

import pytest
from fakes.imageserver import ImageServer
from fakes.origin import ScriptedOrigin

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.listing import list_extents
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.client.ways import MANY, SMALL
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, BASE_ALLOCATION, Mode

KIB = 1024

FLAGS = [(False, False), (True, False), (False, False), (True, True)]


def fragments(count, length, kind=ZeroExtent):
    """Return extents of which no two neighbours are alike."""
    return [kind(number * length, length, *FLAGS[number % len(FLAGS)]) for number in range(count)]


class Disk(MemoryBackend):
    """A disk with these extents, which tells them by NBD, too."""

    contexts = MappingProxyType({0: BASE_ALLOCATION, 1: ALLOCATION_DEPTH, 2: "qemu:dirty-bitmap:one"})

    def __init__(self, extents):
        zeroes = [ZeroExtent(each.start, each.length, each.zero, getattr(each, "hole", False)) for each in extents]
        super().__init__(extents={"zero": zeroes, "dirty": extents})
        self._end = extents[-1].start + extents[-1].length

    def size(self):
        return self._end


def listed(tmp_path, extents, context="zero", **options):
    """Return what is listed of a disk that a real server has."""
    with ImageServer(tmp_path, port=0) as server:
        server.add("disk", lambda: Disk(extents), size=Disk(extents).size(), dirty=True)
        remote = Remote(server.url("disk"), None)
        with contextlib.closing(remote.connect()) as image:
            return list(list_extents(remote, image, context, **options))


@pytest.mark.parametrize("context", ["zero", "dirty"])
@pytest.mark.parametrize(
    ("count", "length", "is_nbd"),
    [(MANY, KIB, False), (MANY + 1, SMALL, False), (MANY + 1, KIB, True), (2 * MANY + 3, SMALL - 1, True)],
)
def test_many_short_extents_come_by_nbd(tmp_path, caplog, context, count, length, is_nbd):
    caplog.set_level("INFO")
    given = fragments(count, length, ZeroExtent if context == "zero" else DirtyExtent)
    assert listed(tmp_path, given, context) == given
    assert ("ATTACH" in caplog.text) is is_nbd


def text_of(extents):
    names = {False: "false", True: "true"}
    lines = [
        f'{{"start": {start}, "length": {length}, "zero": {names[zero]}, "hole": {names[hole]}}}'
        for start, length, zero, hole in extents
    ]
    return f"[{', '.join(lines)}]".encode()


def standing() -> float:
    """A clock that stands still: after a second the size would be asked for again, which no script expects."""
    return 0.0


@pytest.mark.parametrize("readers", [1, 8])
def test_server_that_refuses(readers, caplog):
    """The list goes on over HTTP, however long that takes; a server of one connection is not even asked."""

    def first(wire):
        wire.options(features=["nbd", "extents"], size=2 * MANY * KIB, max_readers=readers)
        wire.read_head()
        wire.answer(200, text_of(fragments(2 * MANY, KIB)))

    def second(wire):
        wire.options(features=["nbd", "extents"])
        wire.read_head()
        wire.answer(403, b"Not this one")

    with ScriptedOrigin(first, second) as origin:
        # An hour passes when the list has begun: the size may not be asked again amid it.
        remote = Remote(origin.url, None, clock=itertools.chain([0.0, 0.0], itertools.repeat(3600.0)).__next__)
        with contextlib.closing(remote.connect()) as image:
            assert list(list_extents(remote, image, "zero")) == fragments(2 * MANY, KIB)
    assert ("Listing on by HTTP" in caplog.text) is (readers > 1)


@pytest.mark.parametrize("options", [{"size": KIB}, {"contexts": []}, {"contexts": [], "mode": Mode.SIMPLE}])
def test_server_that_tells_less_by_nbd(options):
    def first(wire):
        wire.options(features=["nbd", "extents"], size=2 * MANY * KIB, max_readers=8)
        wire.read_head()
        wire.answer(200, text_of(fragments(2 * MANY, KIB)))

    def second(wire):
        wire.options(features=["nbd", "extents"])
        call = wire.upgrade()
        call.negotiate(**{"size": 2 * MANY * KIB, **options})
        call.wait_for_hangup()

    with ScriptedOrigin(first, second) as origin:
        remote = Remote(origin.url, None, clock=standing)
        with contextlib.closing(remote.connect()) as image:
            assert list(list_extents(remote, image, "zero")) == fragments(2 * MANY, KIB)


@pytest.mark.parametrize("retries", [0, 1])
def test_nbd_that_is_lost(retries):
    """The rest is asked for again, from where it was lost."""
    size = 2 * MANY * KIB

    def first(wire):
        wire.options(features=["nbd", "extents"], size=size, max_readers=8)
        wire.read_head()
        wire.answer(200, text_of(fragments(2 * MANY, KIB)))

    def second(wire):
        wire.options(features=["nbd", "extents"])
        call = wire.upgrade()
        call.negotiate(size=size)
        request = call.request()
        assert (request.offset, request.length) == (MANY * KIB, MANY * KIB)
        call.status(request, [(KIB, 0), (KIB, 2)])
        call.request()

    def third(wire):
        assert f"offset={(MANY + 1) * KIB}" in wire.read_head()
        wire.answer(200, text_of(fragments(2 * MANY, KIB)))

    with ScriptedOrigin(first, second, *([third] if retries else [])) as origin:
        remote = Remote(origin.url, None, clock=standing)
        with contextlib.closing(remote.connect()) as image:
            extents = list_extents(remote, image, "zero", retries)
            if retries:
                assert [extent[:3] for extent in extents] == [extent[:3] for extent in fragments(2 * MANY, KIB)]
            else:
                with pytest.raises(errors.BackendUnavailable, match="the connection to the image server was lost"):
                    list(extents)


def test_list_goes_on_where_it_was_lost():
    def head(wire) -> None:
        wire.options(size=30)
        wire.read_head()
        wire.send(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")
        wire.send(b'[{"start": 0, "length": 10, "zero": false}, {"start": 10, "length": 10, "zero": true},')

    def rest(wire) -> None:
        assert "offset=" in wire.read_head()
        wire.answer(
            200,
            b'[{"start": 0, "length": 10, "zero": false}, {"start": 10, "length": 10, "zero": true},'
            b' {"start": 20, "length": 10, "zero": false}]',
        )

    with ScriptedOrigin(head, rest) as server:
        remote = Remote(server.url, None)
        image = remote.connect()
        found = list(list_extents(remote, image, "zero", retries=1))
        image.close()
    assert [(extent.start, extent.zero) for extent in found] == [(0, False), (10, True), (20, False)]
