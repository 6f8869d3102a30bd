"""Ends: what they move, and what their failures are called."""

from __future__ import annotations

import contextlib

import pytest
from fakes.imageserver import ImageServer
from fakes.nbdpeer import Peer
from fakes.origin import DiskOrigin, ScriptedOrigin

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.client.copy import ends
from ovirt_imageio.nbd.batches import MAX_LENGTH
from ovirt_imageio.nbd.wire import CommandFlag, Mode
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.answers import is_passing
from ovirt_imageio.origin.image import Image

SIZE = 3 * MAX_LENGTH
DATA = bytes(range(251)) * (SIZE // 251) + b"x" * (SIZE % 251)


@contextlib.contextmanager
def memory(disk, tmp_path):
    with contextlib.closing(ends.local_end(MemoryBackend(disk))) as end:
        yield end


@contextlib.contextmanager
def qemu(disk, tmp_path):
    """An end for a local NBD server, which is as good as qemu-nbd."""

    def script(call):
        call.negotiate(size=len(disk), mode=Mode.SIMPLE)
        call.serve(disk)

    with Peer(script) as peer, contextlib.closing(ends.local_end(NBDBackend(peer.url, writable=True))) as end:
        assert isinstance(end, ends.NBDEnd)
        yield end


@contextlib.contextmanager
def attached(disk, tmp_path):
    with ImageServer(tmp_path, port=0) as server:
        server.add("disk", disk, ops=["read", "write"])
        with contextlib.closing(ends.attach(Image(server.url("disk")), Lifeline(), 10)) as end:
            yield end


@pytest.fixture(params=[memory, qemu, attached])
def opened(request, tmp_path):
    """A function that opens an end of a disk."""
    return lambda disk: request.param(disk, tmp_path)


def finish(end):
    """Return what all requests give."""
    end.push()
    found = []
    while end.count:
        found += [(item, bytes(view)) for item, view in end.finish()]
    return found


def test_reads(opened):
    with opened(bytearray(DATA)) as end:
        ranges = [(0, 10), (1000, MAX_LENGTH), (7, MAX_LENGTH), (SIZE - 1, 1)]
        for start, length in ranges:
            end.read((start, length), start, length)
        assert end.count == len(ranges)
        assert finish(end) == [((start, length), DATA[start : start + length]) for start, length in ranges]


def test_changes(opened):
    disk = bytearray(DATA)
    with opened(disk) as end:
        end.write("first", 10, memoryview(b"abc"))
        end.zero("second", 100, MAX_LENGTH)
        assert finish(end) == [("first", b""), ("second", b"")]
        end.flush()
    assert disk == DATA[:10] + b"abc" + DATA[13:100] + bytes(MAX_LENGTH) + DATA[100 + MAX_LENGTH :]


def test_disk_that_is_too_short(opened):
    with opened(bytearray(DATA)) as end, pytest.raises(errors.PartialContent):
        end.read(1, SIZE - 10, 11)
        finish(end)


def test_close_with_requests_under_way(opened):
    with opened(bytearray(DATA)) as end:
        end.read(1, 0, 10)
        end.push()
        end.close()
        end.close()


# How failures are called.


def attached_to(origin):
    return ends.attach(Image(origin.url), Lifeline(), 10)


def answering(*replies):
    """A script of a server of images that speaks NBD, and answers each request with an error; 0 is success."""

    def script(wire):
        wire.options(features=["nbd"])
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        for code in replies:
            call.simple(call.request(), code)
        wire.close()

    return script


@pytest.mark.parametrize(
    ("replies", "kind", "passes"),
    [([28], errors.NoSpace, False), ([5], errors.StorageError, False), ([], errors.BackendUnavailable, True)],
)
def test_failures_of_a_server_of_images(replies, kind, passes):
    with ScriptedOrigin(answering(*replies)) as origin:
        end = attached_to(origin)
        with contextlib.closing(end), pytest.raises(errors.Error) as error:
            end.write(1, 0, memoryview(b"data"))
            finish(end)
    assert type(error.value) is kind
    assert is_passing(error.value) is passes


def test_local_server_that_leaves():
    def script(call):
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        call.request()

    with Peer(script) as peer, contextlib.closing(ends.local_end(NBDBackend(peer.url))) as end:
        end.read(1, 0, 10)
        with pytest.raises(errors.StorageError) as error:
            finish(end)
    assert not is_passing(error.value)


@pytest.mark.parametrize("is_sparse", [True, False])
def test_space_is_given_back_where_the_server_says_so(is_sparse):
    seen = []

    def script(wire):
        wire.options(features=["nbd"], sparse=is_sparse)
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        seen.append(call.request())
        call.done(seen[0])
        wire.close()

    with ScriptedOrigin(script) as origin, contextlib.closing(attached_to(origin)) as end:
        end.zero(1, 0, 10)
        finish(end)
    assert seen[0].flags == (CommandFlag.NONE if is_sparse else CommandFlag.NO_HOLE)


def test_server_that_refuses():
    with DiskOrigin(DATA) as origin:
        # It knows nothing of upgrades, and sends the disk.
        with pytest.raises(errors.StorageError, match="unexpected status 200"):
            attached_to(origin)
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError, match="No such ticket"):
            attached_to(origin)


def test_server_that_speaks_something_else():
    def script(wire):
        wire.options(features=["nbd"])
        wire.upgrade().send(b"Hello, world, this is a chat")

    with ScriptedOrigin(script) as origin, pytest.raises(errors.StorageError, match="attach"):
        attached_to(origin)
