"""A TLS client by hand: what it encrypts is sent when the test wants, byte by byte, or never.

with by_hand(("127.0.0.1", server.port), trust) as client:
    client.send(client.encrypt(b"GET / HTTP/1.1")[:5])
    client.send(client.empty_records(10))
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from fakes.waiting import DEADLINE

__all__ = ["ByHand", "by_hand", "drip"]

APPLICATION_DATA = b"\x17"
VERSION = b"\x03\x03"


class ByHand:
    """A connected socket after the handshake. TLS 1.3 with AES-256-GCM, as all of OpenSSL prefer it."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLObject, outgoing: ssl.MemoryBIO, secret: bytes) -> None:
        self.sock = sock
        self._tls = tls
        self._outgoing = outgoing
        self._secret = secret
        self._records = 0

    def encrypt(self, data: bytes) -> bytes:
        """Return data as one record, which must be sent next."""
        assert len(data) <= 16384
        self._tls.write(data)
        self._records += 1
        return self._outgoing.read()

    def empty_records(self, count: int) -> bytes:
        """Return good records without any data, which OpenSSL would not send; nothing can be encrypted later."""
        cipher = AESGCM(self._derive(b"key", 32))
        mask = int.from_bytes(self._derive(b"iv", 12), "big")
        head = APPLICATION_DATA + VERSION + (17).to_bytes(2, "big")
        records = []
        for number in range(self._records, self._records + count):
            nonce = (mask ^ number).to_bytes(12, "big")
            records.append(head + cipher.encrypt(nonce, APPLICATION_DATA, head))
        self._records += count
        return b"".join(records)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def is_closed(self) -> bool:
        """True if the server has left; what it said before is dropped."""
        try:
            self.sock.setblocking(False)
            while self.sock.recv(65536):
                pass
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.sock.settimeout(DEADLINE)

    def _derive(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label of RFC 8446, section 7.1."""
        label = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(SHA384(), length, info).derive(self._secret)


@contextlib.contextmanager
def by_hand(address, context: ssl.SSLContext):
    """Connect and shake hands."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with tempfile.TemporaryDirectory() as folder, socket.create_connection(address, DEADLINE) as sock:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = os.path.join(folder, "keys")
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read())
        assert tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"
        with open(context.keylog_filename) as file:
            secrets = dict(line.split()[::2] for line in file if not line.startswith("#"))
        yield ByHand(sock, tls, outgoing, bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]))


def drip(client: ByHand, data: bytes, pause: float) -> int:
    """Send data byte by byte until the server leaves; return how many bytes that were."""
    for start in range(len(data)):
        client.sock.settimeout(pause)
        try:
            while client.sock.recv(65536):
                pass
            return start
        except (TimeoutError, socket.timeout):
            pass
        except OSError:
            return start
        try:
            client.send(data[start : start + 1])
        except OSError:
            return start
    return len(data)
