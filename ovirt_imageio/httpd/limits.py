"""How much of us one client, and all of them together, may use.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of a server; seconds where not said otherwise."""

    # Connections at once; one more gets a polite 503. Each costs a thread and, with TLS, some 60 KiB.
    connections: int = 4096
    # ... and as many of one client address. It should be less, so that one client cannot keep out the others.
    client_connections: int = 3072
    # When there are too many, one that waits for a request longer than this makes room, unless a ticket keeps it.
    waiting_grace: float = 1
    # A connection that was accepted just before a stop may ask once, if it does so within this time.
    newcomer_grace: float = 2
    # A TLS handshake must be complete by then.
    handshake_timeout: float = 20
    # A connection waits so long for its next request. Clients prepare other connections while one waits: not under 60.
    idle_timeout: float = 60
    # The head of a request must be complete so long after its first byte.
    header_timeout: float = 30
    # One receive or send must make progress by then; a handler may change it with Connection.set_timeout().
    io_timeout: float = 60
    # After a refusal, what the client still sends is dropped, up to this time and this many bytes, so that it gets to
    # read our answer. Some send a whole chunk of 100 MiB before they look.
    linger_timeout: float = 5
    linger_bytes: int = 128 * 1024**2
