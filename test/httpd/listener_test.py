from __future__ import annotations

import os
import socket
import stat

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.httpd import listener
from ovirt_imageio.httpd.listener import ListenError, TcpAddress, UnixAddress, listen

needs_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="This kernel has no IPv6")


@pytest.fixture
def opened():
    """Return a function that listens until the end of the test."""
    listeners = []

    def open_(address):
        made = listen(address)
        listeners.append(made)
        return made

    yield open_
    for made in listeners:
        made.close()


def connect(host, port):
    with socket.create_connection((host, port), DEADLINE):
        return True


def test_loopback(opened):
    made = opened(TcpAddress("127.0.0.1", 0))
    assert made.address.port > 0
    assert connect("127.0.0.1", made.address.port)
    assert str(made.address) == f"127.0.0.1:{made.address.port}"


@needs_ipv6
def test_dual_stack(opened):
    made = opened(TcpAddress("::", 0))
    assert len(made.sockets) == 1
    assert connect("127.0.0.1", made.address.port)
    assert connect("::1", made.address.port)
    assert str(made.address) == f"[::]:{made.address.port}"


@needs_ipv6
@pytest.mark.parametrize("prefer_ipv4", [False, True])
def test_a_name_means_all_its_addresses(opened, monkeypatch, prefer_ipv4):
    # Not every machine has localhost twice in its hosts file.
    def getaddrinfo(host, port, **options):
        assert host == "localhost"
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", port, 0, 2)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    made = opened(TcpAddress("localhost", 0, prefer_ipv4))
    names = [sock.getsockname()[0] for sock in made.sockets]
    assert names == (["127.0.0.1", "::1"] if prefer_ipv4 else ["::1", "127.0.0.1"])
    assert {sock.getsockname()[1] for sock in made.sockets} == {made.address.port}


def test_empty_host_is_ipv4(opened):
    assert opened(TcpAddress("", 0)).sockets[0].getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("host", ["::", "localhost"])
def test_kernel_without_ipv6(opened, monkeypatch, host):
    real = listener.bind_tcp

    def bind_tcp(family, target):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, target)

    monkeypatch.setattr(listener, "bind_tcp", bind_tcp)
    assert connect("127.0.0.1", opened(TcpAddress(host, 0)).address.port)


def test_no_address_at_all(opened, monkeypatch):
    def bind_tcp(family, target):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(listener, "bind_tcp", bind_tcp)
    with pytest.raises(ListenError, match="cannot assign requested address"):
        opened(TcpAddress("127.0.0.1", 0))


def test_port_in_use(opened):
    taken = opened(TcpAddress("127.0.0.1", 0)).address
    with pytest.raises(ListenError, match="address already in use; is the service running already") as info:
        opened(taken)
    assert str(taken) in str(info.value)


def test_port_picked_for_the_first_is_taken_on_the_second(opened, monkeypatch):
    real = listener.bind_all
    failures = [OSError(98, "Address already in use")] * 3

    def bind_all(targets):
        if failures:
            raise failures.pop()
        return real(targets)

    monkeypatch.setattr(listener, "bind_all", bind_all)
    assert opened(TcpAddress("127.0.0.1", 0)).address.port > 0


@pytest.mark.parametrize("port", [-1, 65536])
def test_bad_port(opened, port):
    with pytest.raises(ListenError, match="from 0 to 65535"):
        opened(TcpAddress("127.0.0.1", port))


def test_last_port(opened):
    # On an address of our own: another run of the tests has the same last port.
    pid = os.getpid()
    host = f"127.{pid >> 16}.{pid >> 8 & 255}.{pid & 255}"
    assert opened(TcpAddress(host, 65535)).address.port == 65535


def test_unknown_host(opened, monkeypatch):
    def getaddrinfo(host, port, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ListenError, match="cannot resolve the host: Name or service not known"):
        opened(TcpAddress("no.such.host", 0))


def unix_connect(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(path)
        return True


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_unix(opened, tmp_path, mode):
    path = str(tmp_path / "sock")
    made = opened(UnixAddress(path, mode))
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    assert unix_connect(path)
    assert str(made.address) == path
    made.close()
    made.close()
    assert not os.path.exists(path)


def test_stale_unix_socket_is_replaced(opened, tmp_path):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    opened(UnixAddress(path))
    assert unix_connect(path)


def test_live_unix_socket_is_left_alone(opened, tmp_path):
    path = str(tmp_path / "sock")
    opened(UnixAddress(path))
    with pytest.raises(ListenError, match="another process listens there"):
        opened(UnixAddress(path))
    assert unix_connect(path)


def test_busy_unix_socket_is_alive(tmp_path):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(path)
        busy.listen(0)
        client.connect(path)
        assert listener.is_alive(path)


def test_file_at_the_path_is_left_alone(opened, tmp_path):
    (tmp_path / "sock").write_text("data")
    with pytest.raises(ListenError, match="is not a socket"):
        opened(UnixAddress(str(tmp_path / "sock")))
    assert (tmp_path / "sock").read_text() == "data"


def test_missing_folder(opened, tmp_path):
    with pytest.raises(ListenError, match="missing does not exist"):
        opened(UnixAddress(str(tmp_path / "missing" / "sock")))


def test_path_too_long(opened, tmp_path):
    with pytest.raises(ListenError, match="path too long"):
        opened(UnixAddress(str(tmp_path / ("x" * 120))))


def test_close_leaves_the_socket_of_a_successor(opened, tmp_path):
    path = str(tmp_path / "sock")
    first = opened(UnixAddress(path))
    os.unlink(path)
    opened(UnixAddress(path))
    first.close()
    assert unix_connect(path)


def test_abstract(opened):
    # All runs of the tests share these names.
    name = f"test/abstract/{os.getpid()}"
    made = opened(UnixAddress(f"\0{name}"))
    assert unix_connect(f"\0{name}")
    assert str(made.address) == f"@{name}"
    with pytest.raises(ListenError, match="already in use"):
        opened(UnixAddress(f"\0{name}"))


def test_random_abstract(opened):
    first, second = opened(UnixAddress()), opened(UnixAddress(""))
    assert first.address.path != second.address.path
    assert first.address.is_abstract
    assert unix_connect(first.address.path)


# --- Sockets that are there already ---


def test_adopted_tcp():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        adopted = listener.adopt([sock])
        assert adopted.address == TcpAddress(*sock.getsockname())
        assert not sock.getblocking()
        adopted.close()
        assert sock.fileno() == -1


@pytest.mark.parametrize("name", ["sock", "\0adopted"])
def test_adopted_unix(tmp_path, name):
    """Its file belongs to another process, which may listen on."""
    path = name if name.startswith("\0") else str(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        adopted = listener.adopt([sock])
        assert adopted.address == UnixAddress(path)
        adopted.close()
    assert os.path.exists(tmp_path / "sock") == (name == "sock")
