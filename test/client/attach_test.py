"""A remote image as an NBD disk of this machine: through the server's NBD, or through its HTTP."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.imageserver import ImageServer
from fakes.origin import DiskOrigin
from fakes.waiting import DEADLINE, wait_until
from real.nbd import run

from ovirt_imageio import errors
from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.nbd import address, connect
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed, Unsupported

MIB = 1024**2
SIZE = 2 * MIB


class Server:
    """An image on a server: `url`, and its `data`."""

    def __init__(self, url: str, data: bytearray) -> None:
        self.url = url
        self.data = data


@contextlib.contextmanager
def image_server(tmp_path: Path) -> Iterator[Server]:
    """Our own server, which speaks NBD."""
    data = bytearray(random.Random(1).randbytes(SIZE))
    with ImageServer(tmp_path, port=0) as server:
        server.add("x", data, ops=["write"])
        yield Server(server.url("x"), data)


@contextlib.contextmanager
def old_server(tmp_path: Path) -> Iterator[Server]:
    """A server that knows nothing but HTTP."""
    data = bytearray(random.Random(1).randbytes(SIZE))
    with DiskOrigin(data) as origin:
        yield Server(origin.url, origin.data)


@pytest.fixture(params=[image_server, old_server], ids=["nbd", "http"])
def server(request, tmp_path) -> Iterator[Server]:
    with request.param(tmp_path) as server:
        yield server


@contextlib.contextmanager
def attached(server: Server, *arguments, **options) -> Iterator[Attachment]:
    with contextlib.closing(Remote(server.url, None)) as remote, Attachment(remote, *arguments, **options) as found:
        yield found


def connected(attachment: Attachment) -> Client:
    return connect.connect(address.parse(attachment.uri))


def test_read_and_write(server):
    with attached(server) as attachment, connected(attachment) as nbd:
        assert nbd.export.size == SIZE
        view = memoryview(bytearray(SIZE))
        nbd.read(0, view)
        assert view == server.data
        nbd.write(4096, memoryview(b"x" * MIB))
        nbd.zero(0, 4096)
        nbd.flush()
        nbd.read(0, view)
        assert view[: MIB + 4096] == bytes(4096) + b"x" * MIB
        assert server.data[: MIB + 4096] == view[: MIB + 4096]


def test_several_programs_at_once(server):
    with attached(server) as attachment, connected(attachment) as one, connected(attachment) as two:
        one.write(0, memoryview(b"1" * 512))
        view = memoryview(bytearray(512))
        two.read(0, view)
        assert view == b"1" * 512


def test_the_first_connection_is_that_of_the_first_program():
    with DiskOrigin(bytes(SIZE)) as origin, attached(Server(origin.url, origin.data)) as attachment:
        first = set(origin.servers[0].connections)
        with connected(attachment) as nbd:
            nbd.read(0, memoryview(bytearray(512)))
            assert len(first) == 1
            assert origin.servers[0].connections == first


def test_no_connection_waits_for_a_program_that_does_not_come():
    with DiskOrigin(bytes(SIZE)) as origin, attached(Server(origin.url, origin.data), spare_life=0) as attachment:
        wait_until(lambda: not origin.servers[0].connections, "the end of the first connection")
        with connected(attachment) as nbd:
            nbd.read(0, memoryview(bytearray(512)))


def test_read_only(server):
    before = bytes(server.data)
    with attached(server, read_only=True) as attachment, connected(attachment) as nbd:
        assert nbd.export.is_read_only
        with pytest.raises(Unsupported):
            nbd.write(0, memoryview(b"x" * 512))
    assert server.data == before


def test_nothing_is_left_behind(server):
    threads = threading.active_count()
    with attached(server) as attachment:
        nbd = connected(attachment)
        path = attachment.uri.partition("socket=")[2]
        folder = os.path.dirname(path)
        # No other user of this machine may connect.
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not os.path.exists(folder)
    # A program that is still there is cut.
    with pytest.raises(ConnectionDead):
        nbd.read(0, memoryview(bytearray(512)))
    nbd.close()
    wait_until(lambda: threading.active_count() <= threads + 1, "the end of threads")


class Hindered(socket.socket):
    """A listening socket without a free descriptor when the first program comes."""

    has_failed = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self.has_failed:
            self.has_failed = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class HinderedAttachment(Attachment):
    """One that listens there."""

    def _listen(self, scope: contextlib.ExitStack) -> socket.socket:
        return Hindered(fileno=super()._listen(scope).detach())


def test_a_program_that_could_not_be_accepted_at_once(server, caplog):
    with (
        contextlib.closing(Remote(server.url, None)) as remote,
        HinderedAttachment(remote) as attachment,
        connected(attachment) as nbd,
    ):
        assert nbd.export.size == SIZE
    assert "Too many open files" in caplog.text


def test_a_path_of_the_callers_own(server, tmp_path):
    path = str(tmp_path / "my disk.sock")
    with attached(server, path) as attachment:
        assert attachment.uri == f"nbd+unix:///?socket={tmp_path}/my%20disk.sock"
        connected(attachment).close()
    assert not os.path.exists(path)


@pytest.mark.parametrize("host,uri", [("127.0.0.1", "nbd://127.0.0.1:"), ("localhost", "nbd://")])
def test_a_port_of_loopback(server, host, uri):
    with attached(server, (host, 0)) as attachment:
        assert attachment.uri.startswith(uri)
        connected(attachment).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "no such host"])
def test_others_must_not_reach_it(server, host):
    with pytest.raises(errors.InvalidValue), attached(server, (host, 0)):
        pass


def test_a_path_that_cannot_be_used(server, tmp_path):
    with pytest.raises(errors.InvalidValue, match="No such file"), attached(server, str(tmp_path / "no" / "sock")):
        pass
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(errors.InvalidValue, match="in use"), attached(server, str(taken)):
        pass
    assert taken.read_text() == "precious"


def test_no_such_image(tmp_path):
    with image_server(tmp_path) as server:
        server.url += "0"
        with pytest.raises(errors.OriginError), attached(server):
            pass


def test_a_program_may_connect_again_after_a_loss(tmp_path):
    data = bytearray(SIZE)
    with ImageServer(tmp_path, port=0) as server:
        server.add("x", data)
        found = Server(server.url("x"), data)
        with attached(found) as attachment:
            nbd = connected(attachment)
            nbd.read(0, memoryview(bytearray(512)))
            server.store.remove("x", DEADLINE)
            with pytest.raises((ConnectionDead, RequestFailed)):
                nbd.read(0, memoryview(bytearray(512)))
            nbd.close()
            server.add("x", data)
            with connected(attachment) as again:
                again.read(0, memoryview(bytearray(512)))


@pytest.mark.storage
def test_real_programs(server, tmp_path):
    copy = tmp_path / "copy"
    with attached(server) as attachment:
        run(["nbdcopy", attachment.uri, copy])
        assert copy.read_bytes() == server.data
        done = run(["qemu-io", "-f", "raw", attachment.uri, "-c", "write -P 3 1M 64k", "-c", "read -P 3 1M 64k"])
        assert "failed" not in done
    assert server.data[MIB : MIB + 65536] == b"\3" * 65536
