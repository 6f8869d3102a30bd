"""Make signed tickets: what an issuer does, on whatever machine has the private key.

Knows files and arguments; asks no daemon.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

from ovirt_imageio import errors
from ovirt_imageio.admin.document import DiskChoice, Mistake, make
from ovirt_imageio.net.jws import PrivateKey, check_support

__all__ = ["Wish", "presigned", "sign"]


# What of a ticket goes into a token. Not its id, which is the jti, and not its name for logs, which follows from that.
CLAIMS = ("url", "size", "ops", "timeout", "sparse", "filename")


class Wish(NamedTuple):
    """What the ticket shall say."""

    disk: DiskChoice
    audience: str
    # Seconds from now on.
    lifetime: int
    jti: Optional[str] = None


def sign(wish: Wish, key_file: str, kid: Optional[str] = None, now: Optional[float] = None) -> tuple[str, str]:
    """Return the jti and the token. Raises Mistake."""
    try:
        check_support("signed_tickets")
        with open(key_file, "rb") as file:
            key = PrivateKey(file.read())
    except errors.ConfigError as e:
        raise Mistake(f"Signing needs {e.expected}") from e
    except OSError as e:
        raise Mistake(f"Cannot read the key {key_file}: {e.strerror}") from e
    except errors.InvalidValue as e:
        raise Mistake(f"Cannot use the key {key_file}: expected {e.expected}") from e
    ticket = make(wish.disk)
    begins = int(time.time() if now is None else now)
    jti = wish.jti or str(uuid.uuid4())
    payload: dict[str, Any] = {name: ticket[name] for name in CLAIMS if name in ticket}
    payload |= {"jti": jti, "aud": wish.audience, "iat": begins, "exp": begins + wish.lifetime}
    return jti, key.sign(payload, kid)


def presigned(base_url: str, jti: str, token: str) -> str:
    """Return a URL that every HTTP client can use; a secret, until the token ends."""
    return f"{base_url.rstrip('/')}/images/{quote(jti, safe='')}?ticket={token}"
