from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio.net import kernel_tls, tls
from ovirt_imageio.net.channel import speak_tls
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.tls_socket import TLSSocket


class FakeDescriptorTLS:
    """What begins where the kernel can encrypt; its handshake may fail."""

    def __init__(self, error=None):
        self.error = error
        self.is_released = False

    def handshake(self, deadline):
        if self.error:
            raise self.error

    def release(self):
        self.is_released = True


def test_in_memory():
    """Contexts that do not permit the kernel."""
    files = certificates.certificate()
    server_context = tls.ServerContext(files.cert_file, files.key_file)()
    client_context = tls.client_context(files.ca_file)
    found = []
    with contextlib.ExitStack() as stack:
        first, second = (PlainSocket(stack.enter_context(sock), DEADLINE) for sock in socket.socketpair())
        deadline = time.monotonic() + DEADLINE
        thread = threading.Thread(
            target=lambda: found.append(speak_tls(first, server_context, deadline, server_side=True))
        )
        thread.start()
        client = speak_tls(second, client_context, deadline, server_hostname="localhost")
        thread.join(DEADLINE)
        (server,) = found
        assert isinstance(client, TLSSocket) and isinstance(server, TLSSocket)
        client.send(b"hello")
        assert server.recv(10) == b"hello"


def test_by_the_kernel(monkeypatch):
    begun = FakeDescriptorTLS()
    monkeypatch.setattr(kernel_tls, "begin", lambda *args, **options: begun)
    monkeypatch.setattr(kernel_tls, "take_over", lambda tls: (tls, "taken over"))
    assert speak_tls(None, None, time.monotonic()) == (begun, "taken over")
    assert not begun.is_released


def test_a_handshake_that_fails_leaves_nothing(monkeypatch):
    begun = FakeDescriptorTLS(TimeoutError())
    monkeypatch.setattr(kernel_tls, "begin", lambda *args, **options: begun)
    with pytest.raises(TimeoutError):
        speak_tls(None, None, time.monotonic())
    assert begun.is_released
