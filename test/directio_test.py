"""Streaming into and out of local disks, as vdsm does it."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path

import pytest
from backends.contract import pattern
from fakes.waiting import DEADLINE

from ovirt_imageio import directio, errors
from ovirt_imageio._internal import directio as internal
from ovirt_imageio.backends.file import FileBackend

MIB = 1024**2

# What the disk holds before, wider than any range below.
OLD = b"x" * (2 * MIB)


class Short(io.BytesIO):
    """A source whose reads are short, like those of a pipe."""

    def read(self, size=-1):
        return super().read(min(size, 10007))

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:10007])


class OnlyRead:
    """A source without readinto."""

    def __init__(self, data):
        self._file = Short(data)
        self.read = self._file.read


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(OLD)
    return str(path)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


OFFSETS = [0, 42, 512]
SIZES = [0, 1, 511, 512, 513, MIB - 1, MIB + 511]


@pytest.mark.parametrize("source", [io.BytesIO, Short, OnlyRead])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_receive(path, source, offset, size):
    data = pattern(size)
    op = directio.Receive(path, source(data + b"more"), size=size, offset=offset)
    op.run()
    assert content(path) == OLD[:offset] + data + OLD[offset + size :]
    assert op.done == op.size == size


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_receive_all(path, offset, size):
    data = pattern(size)
    op = directio.Receive(path, Short(data), offset=offset)
    op.run()
    assert content(path) == OLD[:offset] + data + OLD[offset + size :]
    assert op.done == size


@pytest.mark.parametrize("size", SIZES)
def test_receive_into_an_empty_file(tmp_path, size):
    path = tmp_path / "empty"
    path.touch()
    data = pattern(size)
    with contextlib.closing(FileBackend(str(path), writable=False)) as disk:
        block_size = disk.block_size
    directio.Receive(str(path), Short(data)).run()
    # The file ends with a whole block.
    assert path.read_bytes() == data + bytes(-size % block_size)


@pytest.mark.parametrize("available", [0, 1, 511, MIB + 1])
def test_receive_too_little(path, available):
    data = pattern(available)
    op = directio.Receive(path, Short(data), size=MIB + 5000, offset=42)
    with pytest.raises(errors.PartialContent) as e:
        op.run()
    assert (e.value.requested, e.value.available) == (MIB + 5000, available)
    assert op.done == available
    assert content(path) == OLD[:42] + data + OLD[42 + available :]


def test_receive_asks_for_no_more_than_a_buffer(path):
    asked = []

    class Source:
        def read(self, size):
            asked.append(size)
            return b"" if len(asked) > 9 else b"y" * size

    op = directio.Receive(path, Source(), buffersize=10000)
    op.run()
    assert max(asked) == 10000
    assert content(path)[: op.done] == b"y" * op.done


@pytest.mark.parametrize("flush", [True, False])
def test_receive_flushes_when_asked(path, flush, monkeypatch):
    calls = []
    monkeypatch.setattr("os.fsync", calls.append)
    directio.Receive(path, io.BytesIO(b"data"), flush=flush).run()
    assert len(calls) == int(flush)


def test_receive_source_fails(path):
    class Source:
        def read(self, size):
            raise ConnectionResetError("gone")

    op = directio.Receive(path, Source())
    with pytest.raises(ConnectionResetError):
        op.run()
    assert not op.active
    assert content(path) == OLD


def test_receive_missing_disk(tmp_path):
    with pytest.raises(errors.StorageError, match="No such file"):
        directio.Receive(str(tmp_path / "missing"), io.BytesIO()).run()


@pytest.mark.parametrize("name,value", [("size", -1), ("offset", -1), ("offset", 2**63), ("buffersize", 0)])
def test_bad_arguments(path, name, value):
    with pytest.raises(errors.InvalidValue, match=name):
        directio.Receive(path, io.BytesIO(), **{name: value})


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", [*SIZES, None])
def test_send(path, offset, size):
    data = pattern(len(OLD))
    Path(path).write_bytes(data)
    target = io.BytesIO()
    op = directio.Send(path, target, size=size, offset=offset)
    op.run()
    expected = data[offset:] if size is None else data[offset : offset + size]
    assert target.getvalue() == expected
    assert op.done == len(expected)


def test_send_too_little(path):
    target = io.BytesIO()
    with pytest.raises(errors.PartialContent):
        directio.Send(path, target, size=len(OLD) + 1).run()
    assert target.getvalue() == OLD


def test_send_all_from_beyond_the_end(path):
    target = io.BytesIO()
    directio.Send(path, target, offset=len(OLD) + 1).run()
    assert target.getvalue() == b""


def test_send_to_what_takes_little(path):
    class Target(io.BytesIO):
        def write(self, data):
            return super().write(data[:100000])

    target = Target()
    directio.Send(path, target, buffersize=300000).run()
    assert target.getvalue() == OLD


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("size", SIZES)
def test_zero(path, offset, size, sparse):
    op = directio.Zero(path, size, offset=offset, sparse=sparse, flush=True)
    op.run()
    assert content(path) == OLD[:offset] + bytes(size) + OLD[offset + size :]
    assert op.done == size


def test_zero_frees_space(path):
    directio.Zero(path, len(OLD), sparse=True).run()
    assert Path(path).stat().st_blocks == 0


def test_close_before(path):
    op = directio.Receive(path, io.BytesIO(b"data"))
    op.close()
    op.close()
    with pytest.raises(errors.OperationCanceled):
        op.run()
    assert content(path) == OLD


def test_close_meanwhile(path):
    class Source:
        def readinto(self, buffer):
            op.close()
            return len(buffer)

    op = directio.Receive(path, Source())
    with pytest.raises(errors.OperationCanceled):
        op.run()
    assert not op.active


def test_repr(path):
    op = directio.Receive(path, io.BytesIO(), size=100, offset=5)
    assert repr(op) == f"<Receive path={path!r} size=100 offset=5 buffersize=1048576 done=0>"
    op.active = True
    assert "active" in repr(op)


def test_deployed_import_path():
    assert internal.Receive is directio.Receive


def test_like_kvm2ovirt(path):
    """vdsm imports disks of libvirt like this: the size may be unknown, another thread shows the progress."""

    class Stream:
        """A libvirt stream: recv() returns what is there."""

        def __init__(self, data):
            self._data = io.BytesIO(data)
            self.half = threading.Event()

        def recv(self, count):
            if self._data.tell() > MIB:
                # Wait for the progress to be seen, so that it is sure to be seen in the middle.
                assert self.half.wait(DEADLINE)
            return self._data.read(min(count, 65536))

    class Adapter:
        def __init__(self, stream):
            self._stream = stream

        def read(self, count):
            return self._stream.recv(count)

        def readinto(self, buffer):
            data = self._stream.recv(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    data = pattern(2 * MIB)
    stream = Stream(data)
    op = internal.Receive(path, Adapter(stream), size=None, buffersize=MIB, clock=object())
    seen = []

    def show():
        while not seen or seen[-1] < len(data):
            seen.append(op.done)
            if seen[-1]:
                stream.half.set()
            finished.wait(0.001)

    finished = threading.Event()
    thread = threading.Thread(target=show)
    thread.start()
    op.run()
    finished.set()
    thread.join()
    assert content(path) == data
    assert any(0 < done < len(data) for done in seen)
