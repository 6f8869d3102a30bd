"""When the kernel encrypts, and what is done with what it gives. Real kernels: test/machine/kernel_tls_test.py."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from fakes.kernelsocket import FakeTLS, KernelSocket
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio.net import kernel_tls, tls
from ovirt_imageio.net.controls import BrokenTLS
from ovirt_imageio.net.kernel_tls import KernelTLSSocket, take_over
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.stream import Stream

ALERT, HANDSHAKE, DATA = 21, 22, 23
CLOSE = (ALERT, b"\x01\x00")
TICKET = (HANDSHAKE, b"\x04\x00\x00\x06ticket")
HELLO = (HANDSHAKE, b"\x01\x00\x00\x05hello")
TLS_1_2, TLS_1_3 = 0x303, 0x304


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """What one test learns of the system is not true for the others."""
    monkeypatch.setattr(kernel_tls, "experience", kernel_tls.Experience())


def channel(*records, is_server=True, version=TLS_1_3, limit=2**24):
    sock = KernelSocket(records)
    return KernelTLSSocket(FakeTLS(sock, is_server), version, limit), sock


def view(size):
    return memoryview(bytearray(size))


def data(*parts):
    return [(DATA, part) for part in parts]


# --- Receiving -------------------------------------------------------------------------------------------------------


def test_data_passes():
    end, _ = channel(*data(b"one", b"two"))
    assert end.recv(2) == b"on"
    into = view(10)
    assert end.recv_into(into) == 1
    assert end.recv(10, is_eager=False) == b"two"
    assert end.recv(10) == b""
    assert end.recv_into(into) == 0
    assert end.recv_into(view(0)) == 0


def test_record_without_data_is_not_the_end():
    end, _ = channel(*data(b"", b"", b"x"))
    assert end.recv(10, is_eager=False) == b"x"


def test_messages_between_data():
    end, _ = channel(TICKET, *data(b"one"), TICKET, TICKET, *data(b"two"), is_server=False)
    assert end.recv(10) == b"one"
    into = view(10)
    assert end.recv_into(into) == 3
    assert bytes(into[:3]) == b"two"


def test_nothing_is_read_after_close_notify():
    end, sock = channel(*data(b"one"), CLOSE, *data(b"more"), TICKET)
    assert end.recv(10) == b"one"
    assert end.recv(10) == b""
    assert end.recv_into(view(10)) == 0
    assert end.recv(10) == b""
    assert len(sock._records) == 2


def test_flood_of_messages():
    end, sock = channel(*[TICKET] * 100, is_server=False)
    with pytest.raises(BrokenTLS, match="33 TLS records"):
        end.recv(10)
    assert len(sock._records) == 100 - 33


def test_flood_is_counted_from_call_to_call():
    end, sock = channel(*[TICKET, (DATA, b"")] * 100, is_server=False)
    with pytest.raises(BrokenTLS, match="33 TLS records"):
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                end.recv_into(view(10))
    assert len(sock._records) > 100


def test_no_flood_with_data():
    end, _ = channel(*[TICKET, (DATA, b"x")] * 100, is_server=False)
    assert b"".join(end.recv(1) for _ in range(100)) == b"x" * 100


@pytest.mark.parametrize("record", [(ALERT, b"\x02\x14"), (HANDSHAKE, b"\x18\x00\x00\x01\x00"), (99, b"x")])
def test_what_must_not_be_ends_the_connection(record):
    end, _ = channel(record, *data(b"x"))
    with pytest.raises(BrokenTLS):
        end.recv(10)
    assert end.recv(10) == b""
    assert end.recv_into(view(10)) == 0


def test_renegotiation_is_refused():
    end, sock = channel(HELLO, *data(b"x"), version=TLS_1_2)
    assert end.recv(10) == b"x"
    assert sock.sent == [(ALERT, b"\x01\x64")]


def test_refusal_that_cannot_be_sent_does_not_hold_us():
    end, sock = channel(HELLO, *data(b"x"), version=TLS_1_2)
    sock.is_full = True
    assert end.recv(10) == b"x"


def test_other_errors_are_raised():
    end, sock = channel()
    sock.recv = sock.recv_into = reset
    with pytest.raises(ConnectionResetError):
        end.recv(10)
    with pytest.raises(ConnectionResetError):
        end.recv_into(view(10))


def reset(*_):
    raise ConnectionResetError


def test_drop_takes_any_record():
    end, _ = channel(TICKET, CLOSE, *data(b"abc"))
    counts = [end.drop(view(100)) for _ in range(4)]
    assert counts == [10, 2, 3, 0]
    end, _ = channel((HANDSHAKE, b""), *data(b"abc"))
    assert [bool(end.drop(view(100))) for _ in range(3)] == [True, True, False]


# --- Sending ---------------------------------------------------------------------------------------------------------


def test_sending():
    end, sock = channel()
    assert end.send(b"one") == 3
    assert end.send_parts([b"tw", b"o"]) == 3
    assert end.send_ahead(b"head") == 4
    end.end()
    assert sock.sent == [(DATA, b"one"), (DATA, b"two"), (DATA, b"head"), CLOSE]


def test_end_of_a_connection_that_is_gone():
    end, sock = channel()
    sock.is_full = True
    end.end()
    assert sock.sent == []


def test_keys_wear_out_by_records():
    end, _ = channel(limit=3)
    assert not end.is_worn(0)
    end.send(b"x")
    end.send_parts([b"x"])
    assert not end.is_worn(16 * 1024 - 1)
    assert end.is_worn(16 * 1024)
    end.send_ahead(b"x")
    assert end.is_worn(0)


# --- Who does what ---------------------------------------------------------------------------------------------------


def test_kernel_does_both():
    tls = FakeTLS(KernelSocket())
    end = take_over(tls)
    assert end.encryption == "kernel"
    assert tls.is_released
    assert end.pending() == 0


def test_data_is_decrypted_where_it_is_wanted():
    """TLS_RX_EXPECT_NO_PAD, which is for TLS 1.3 only."""
    sock = KernelSocket()
    take_over(FakeTLS(sock))
    assert (282, 4, 1) in sock.options
    sock = KernelSocket(versions=(TLS_1_2, TLS_1_2))
    take_over(FakeTLS(sock))
    assert not any(level == 282 for level, *_ in sock.options)


def test_kernel_sends_only():
    sock = KernelSocket(versions=(TLS_1_3, 0))
    tls = FakeTLS(sock, received=b"abc")
    end = take_over(tls)
    assert end.encryption == "kernel-send"
    assert not tls.is_released
    assert end.pending() == 3
    assert end.recv(10) == b"abc"
    into = view(10)
    assert end.recv_into(into) == 3
    end.send(b"x")
    assert sock.sent == [(DATA, b"x")]
    end.close()
    assert tls.is_released


def test_what_openssl_has_received_the_kernel_has_not():
    tls = FakeTLS(KernelSocket(), received=b"abc")
    assert take_over(tls).encryption == "kernel-send"


def test_kernel_does_nothing_and_is_not_asked_again():
    tls = FakeTLS(KernelSocket(versions=(0, 0)))
    for _ in range(kernel_tls.TRIES):
        assert "no keys" not in kernel_tls.why_not()
        assert take_over(tls) is tls
    assert "OpenSSL gives the kernel no keys" in kernel_tls.why_not()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= kernel_tls.ENABLE_KTLS
    assert kernel_tls.begin(tls.below, context, server_side=True, server_hostname=None) is None


def test_clients_with_reasons_of_their_own_do_not_matter():
    """One that wants short records, for which OpenSSL keeps the keys."""
    take_over(FakeTLS(KernelSocket()))
    for _ in range(100):
        take_over(FakeTLS(KernelSocket(versions=(0, 0))))
    assert "no keys" not in kernel_tls.why_not()


def test_cipher_that_the_kernel_does_not_have_says_nothing_of_others():
    tls = FakeTLS(KernelSocket(versions=(0, 0)), cipher="TLS_CHACHA20_POLY1305_SHA256")
    for _ in range(100):
        assert take_over(tls) is tls
    assert "no keys" not in kernel_tls.why_not()


class Failures:
    def late(self, is_sending, seconds):
        return TimeoutError(f"late {is_sending}")

    def broken(self, is_sending, reason):
        return RuntimeError(reason)

    def interrupted(self):
        return RuntimeError("interrupted")


@contextlib.contextmanager
def tcp_streams() -> Iterator[tuple[Stream, Stream]]:
    """Two ends over TLS, of which the server wants TLS in the kernel, whatever this system has."""
    made = certificates.certificate()
    ours = tls.ServerContext(made.cert_file, made.key_file)()
    ours.options |= kernel_tls.ENABLE_KTLS
    with socket.create_server(("127.0.0.1", 0)) as listening:
        raw = socket.create_connection(listening.getsockname(), DEADLINE)
        accepted, _ = listening.accept()
    server, client = Stream(accepted, DEADLINE, Failures()), Stream(raw, DEADLINE, Failures())
    theirs = tls.client_context(made.ca_file)
    deadline = time.monotonic() + DEADLINE
    thread = threading.Thread(
        target=lambda: client.start_tls(theirs, deadline, server_hostname="localhost"), daemon=True
    )
    thread.start()
    server.start_tls(ours, deadline, server_side=True)
    thread.join(DEADLINE)
    try:
        yield server, client
    finally:
        server.close()
        client.close()


def test_without_the_module_it_is_as_before():
    """A system that has it does it; each way, the bytes are right."""
    expected = "memory" if kernel_tls.why_not() else "kernel"
    with tcp_streams() as (server, client):
        assert server.encryption.startswith(expected)
        assert (server.sink is None) == (expected == "memory")
        assert not server.is_worn
        server.send(b"hello")
        assert client.receive() == b"hello"
        client.send(b"world")
        assert server.receive() == b"world"
        client.end()
        assert server.receive() == b""


def test_socket_that_cannot_be_attached_is_as_before():
    """Also where the module is there: TLS in the kernel needs TCP."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= kernel_tls.ENABLE_KTLS
    ours, theirs = socket.socketpair()
    with ours, theirs:
        below = PlainSocket(ours, DEADLINE)
        assert kernel_tls.begin(below, context, server_side=True, server_hostname=None) is None


def test_context_without_the_wish_costs_no_question(monkeypatch):
    monkeypatch.setattr(kernel_tls, "attach", None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~kernel_tls.ENABLE_KTLS
    assert kernel_tls.begin(PlainSocket(KernelSocket(), 1), context, server_side=True, server_hostname=None) is None


def test_allow_follows_what_the_system_says(monkeypatch):
    for reason, wish in (("the module tls is not loaded", 0), ("", kernel_tls.ENABLE_KTLS)):
        monkeypatch.setattr(kernel_tls, "why_not", lambda reason=reason: reason)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options &= ~kernel_tls.ENABLE_KTLS
        kernel_tls.allow(context)
        assert context.options & kernel_tls.ENABLE_KTLS == wish


def test_fips(monkeypatch, tmp_path):
    enabled = tmp_path / "fips_enabled"
    monkeypatch.setattr(kernel_tls, "FIPS", str(enabled))
    monkeypatch.setattr(kernel_tls, "attach", lambda sock: None)
    enabled.write_text("1\n")
    assert "FIPS" in kernel_tls.why_not()
    enabled.write_text("0\n")
    assert kernel_tls.why_not() == ""
    enabled.unlink()
    assert kernel_tls.why_not() == ""


@pytest.mark.parametrize(
    "error, reason",
    [(FileNotFoundError(2, "No such file"), "not loaded"), (PermissionError(1, "no"), "Operation not permitted")],
)
def test_why_not(monkeypatch, error, reason):
    def attach(sock):
        raise error

    monkeypatch.setattr(kernel_tls, "FIPS", "/none")
    monkeypatch.setattr(kernel_tls, "attach", attach)
    assert reason in kernel_tls.why_not()
