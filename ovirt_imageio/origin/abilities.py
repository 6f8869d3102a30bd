"""What the server of an image can do, as its answer to OPTIONS tells.

Pure: knows the answer, not how it came. What makes no sense in it is taken as not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ovirt_imageio.geometry.blocks import MAX_SIZE

__all__ = ["TLS", "Abilities", "natural", "parse"]

# The ways to encrypt that a server may name.
TLS = ("kernel", "kernel-send", "memory", "openssl")


@dataclass(frozen=True)
class Abilities:
    """What a server can do; the defaults are those of the oldest servers, which tell nothing."""

    # What it can beside GET and PUT.
    features: frozenset[str] = frozenset()
    # False if it told that it will refuse.
    is_writable: bool = True
    has_dirty: bool = False
    max_readers: int = 1
    max_writers: int = 1
    block_size: int = 1
    size: Optional[int] = None
    unix_socket: Optional[str] = None
    # True if it takes a request while it still answers the one before. HTTP/1.1 wants that of every server, but only of
    # ours do we know; one that tells the name of the transfer is.
    can_pipeline: bool = False
    # True if the body of a PUT may come in chunks: ours take that from the first one on, too.
    takes_chunks: bool = False
    # True if it told that zeroing deallocates.
    is_sparse: bool = False
    # The server's way to encrypt, one of TLS; None if it did not name one.
    tls: Optional[str] = None


def parse(answer: Mapping[str, Any], allow: str = "") -> Abilities:
    """Return what the JSON document and the Allow header of an answer tell."""
    told = answer.get("features")
    features = frozenset(item for item in told if isinstance(item, str)) if isinstance(told, list) else frozenset()
    unix_socket = answer.get("unix_socket")
    return Abilities(
        features=features,
        is_writable=not allow or "PUT" in [item.strip() for item in allow.split(",")],
        # Those that know the key tell whether; for older ones it is enough that they list extents at all.
        has_dirty=answer.get("dirty", "extents" in features) is True,
        max_readers=natural(answer, "max_readers") or 1,
        max_writers=natural(answer, "max_writers") or 1,
        block_size=natural(answer, "block_size") or 1,
        size=natural(answer, "size"),
        unix_socket=unix_socket if isinstance(unix_socket, str) and unix_socket else None,
        can_pipeline="transfer_id" in answer,
        takes_chunks="transfer_id" in answer,
        is_sparse=answer.get("sparse") is True,
        tls=answer["tls"] if answer.get("tls") in TLS else None,
    )


def natural(answer: Mapping[str, Any], name: str) -> Optional[int]:
    """Return a number of the answer, None if there is none."""
    value = answer.get(name)
    return value if type(value) is int and 0 <= value <= MAX_SIZE else None
