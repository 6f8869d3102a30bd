"""Opening for direct I/O, and the block size."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import socket
import tempfile
from pathlib import Path

import pytest
from real import loop

from ovirt_imageio import errors
from ovirt_imageio.relay import buffers
from ovirt_imageio.storage import direct

KIB = 1024


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 64 * KIB)
    return str(path)


@pytest.fixture(autouse=True)
def forget_warnings():
    direct._warned.clear()


def has_direct_flag(file: direct.DirectFile) -> bool:
    return bool(fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_DIRECT)


# The block size


def test_block_size(any_storage):
    with open(any_storage.path, "wb" if any_storage.kind != "block" else "r+b") as f:
        f.write(b"x" * 64 * KIB)
        os.fsync(f.fileno())
    with direct.open_file(any_storage.path, writable=True) as file:
        assert file.is_direct
        assert has_direct_flag(file)
        assert file.block_size == any_storage.sector_size
        assert file.is_block_device == (any_storage.kind == "block")


def test_empty_file_has_the_biggest_block(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with direct.open_file(str(path), writable=True) as file:
        assert file.block_size in (1, 4096)


def test_open_twice_is_the_same_disk(path):
    with direct.open_file(path, writable=True) as first, direct.open_file(path, writable=False) as second:
        assert first.identity == second.identity


def test_two_nodes_of_a_device_are_the_same_disk(block_storage, tmp_path):
    node = str(tmp_path / "node")
    os.mknod(node, os.stat(block_storage.path).st_mode, os.stat(block_storage.path).st_rdev)
    with contextlib.ExitStack() as stack:
        try:
            second = stack.enter_context(direct.open_file(node, writable=False))
        except errors.StorageError as e:
            pytest.skip(f"no device nodes here: {e}")
        first = stack.enter_context(direct.open_file(block_storage.path, writable=False))
        assert first.identity == second.identity


# Without direct I/O


def refuse_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system does that checks the flag."""
    real = os.open

    def refusing(path, flags, *args, **kwargs):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)


def break_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system does that looks at the flag only when it reads."""
    real = os.preadv

    def refusing(fd, views, offset):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, views, offset)

    monkeypatch.setattr(os, "preadv", refusing)


@pytest.mark.parametrize("how", [refuse_direct, break_direct])
def test_page_cache_instead(path, monkeypatch, how):
    how(monkeypatch)
    with direct.open_file(path, writable=True) as file:
        assert not file.is_direct
        assert file.block_size == 1
        assert not has_direct_flag(file)
        file.write(5, memoryview(b"data"))
        view = memoryview(bytearray(6))
        assert file.read(4, view) == 6
        assert bytes(view) == b"xdatax"
        file.write_cached(0, memoryview(b"y"))
        assert not has_direct_flag(file)


def test_one_warning(path, monkeypatch, caplog):
    refuse_direct(monkeypatch)
    for _ in range(3):
        direct.open_file(path, writable=True).close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "page cache" in caplog.text


def test_error_while_probing(path, monkeypatch):
    def fail(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    # What others left behind must not go meanwhile.
    gc.collect()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(errors.StorageError, match="Input/output error"):
        direct.open_file(path, writable=True)
    assert os.listdir("/proc/self/fd") == before


# What cannot be opened


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


@pytest.mark.parametrize(
    "make,code,text",
    [
        (lambda path: None, errno.ENOENT, "No such file"),
        (Path.mkdir, errno.EINVAL, "Not a regular file or block device"),
        (os.mkfifo, errno.EINVAL, "Not a regular file or block device"),
        (make_socket, errno.EINVAL, "Not a regular file or block device"),
        (lambda path: path.symlink_to("/dev/null"), errno.EINVAL, "Not a regular file or block device"),
        (make_loop, errno.ELOOP, "Too many levels of symbolic links"),
    ],
    ids=["missing", "directory", "fifo", "socket", "/dev/null", "symlink loop"],
)
@pytest.mark.parametrize("writable", [True, False])
def test_cannot_open(tmp_path, writable, make, code, text):
    path = tmp_path / "disk"
    make(path)
    with pytest.raises(errors.StorageError, match=text) as e:
        direct.open_file(str(path), writable=writable)
    assert e.value.code == code
    assert str(path) not in str(e.value)


@pytest.mark.parametrize("path", ["/proc/self/environ", "/sys/kernel/uevent_seqnum"])
def test_file_of_the_kernel(path):
    """They are regular files, but may hold secrets, or change with each look."""
    if not os.path.exists(path):
        pytest.skip(f"no {path}")
    with pytest.raises(errors.StorageError, match="A file of the kernel, not a disk"):
        direct.open_file(path, writable=False)


def test_file_that_is_reached_through_proc(tmp_path):
    """It is not of the kernel."""
    with open(tmp_path / "disk", "w+b") as disk:
        disk.write(b"x" * 4096)
        disk.flush()
        with direct.open_file(f"/proc/self/fd/{disk.fileno()}", writable=True) as file:
            assert file.size() == 4096


def test_path_with_a_zero_byte():
    with pytest.raises(errors.StorageError):
        direct.open_file("/disk\0", writable=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_forbidden(path):
    os.chmod(path, 0o600)
    os.chmod(os.path.dirname(path), 0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(errors.StorageError, match="Permission denied"):
            direct.open_file(path, writable=False)
    finally:
        os.seteuid(0)


@pytest.mark.storage
@pytest.mark.skipif(not loop.available(), reason="needs root, for loop devices")
def test_read_only_file_system(tmp_path):
    with loop.mounted(tmp_path, "ext4", size=4 * KIB * KIB) as folder:
        (folder / "disk").write_bytes(b"x" * 4096)
        loop.run("mount", "-o", "remount,ro", str(folder))
        direct.open_file(str(folder / "disk"), writable=False).close()
        with pytest.raises(errors.StorageError, match="Read-only file system"):
            direct.open_file(str(folder / "disk"), writable=True)


# Reading and writing


def test_read_to_the_end(path):
    with open(path, "ab") as f:
        f.write(b"y" * 100)
    view = buffers.aligned(128 * KIB)
    with direct.open_file(path, writable=False) as file:
        assert file.read(0, view) == 64 * KIB + 100
        assert bytes(view[64 * KIB : 64 * KIB + 100]) == b"y" * 100
        assert file.read(128 * KIB, view) == 0


def test_size_follows_the_file(path):
    with direct.open_file(path, writable=False) as file:
        os.truncate(path, 100)
        assert file.size() == 100
        os.truncate(path, 10**6)
        assert file.size() == 10**6


def test_short_writes(path, monkeypatch):
    """A disk may take less than it is given; what it took of a block that is not complete is written again."""
    real = os.pwritev

    def short(fd, views, offset):
        count = real(fd, [views[0][:8192]], offset)
        return count - 100 if count > 4096 else count

    monkeypatch.setattr(os, "pwritev", short)
    view = buffers.aligned(32 * KIB)
    view[:] = b"y" * len(view)
    with direct.open_file(path, writable=True) as file:
        file.write(0, view[: 16 * KIB])
    assert Path(path).read_bytes() == b"y" * 16 * KIB + b"x" * 48 * KIB


def test_write_that_gets_nowhere(path, monkeypatch):
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: 100)
    with direct.open_file(path, writable=True) as file, pytest.raises(OSError) as e:
        file.write(0, buffers.aligned(8192))
    assert e.value.errno == errno.EIO


def test_write_cached(path):
    with direct.open_file(path, writable=True) as file:
        file.write_cached(5, memoryview(b"data"))
        assert has_direct_flag(file) == file.is_direct
        view = buffers.aligned(4096)
        file.read(0, view)
        assert bytes(view[:10]) == b"xxxxxdatax"


def test_flag_comes_back_after_an_error(path):
    with direct.open_file(path, writable=False) as file:
        with pytest.raises(OSError):
            file.write_cached(0, memoryview(b"data"))
        assert has_direct_flag(file) == file.is_direct


def test_close_twice(path):
    file = direct.open_file(path, writable=False)
    file.close()
    file.close()
    with pytest.raises(OSError):
        file.size()


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there is no file system in memory at /dev/shm")
def test_storage_that_is_the_page_cache_is_not_bypassed(caplog):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as f:
        f.write(b"x" * 1000)
        f.flush()
        with direct.open_file(f.name, writable=True) as file:
            assert (file.block_size, file.is_direct) == (1, False)
            assert not fcntl.fcntl(file.fd, fcntl.F_GETFL) & os.O_DIRECT
            file.write(10, memoryview(b"abc"))
            view = memoryview(bytearray(5))
            assert file.read(9, view) == 5
            assert view == b"xabcx"
    assert not caplog.records


@pytest.mark.storage
def test_page_cache_on_request(tmp_path, caplog):
    """Unaligned memory will do, and there is nothing to warn of."""
    path = tmp_path / "disk"
    path.write_bytes(b"old" * 1000)
    with direct.open_file(str(path), writable=True, is_cached=True) as file:
        assert not file.is_direct
        file.write(1, memoryview(b"new"))
        view = memoryview(bytearray(5))
        assert file.read(0, view) == 5
    assert bytes(view) == b"onewl"
    assert caplog.records == []
