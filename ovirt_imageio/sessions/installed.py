"""The ticket in the store that a token installed: it lives as long as the token says, however it is used.

Knows nothing of tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store

__all__ = ["keep", "retire"]


def keep(store: Store, ticket_id: str, lifetimes: Mapping[str, object]) -> bool:
    """Extend a ticket that expired while its token is good; return False if the store forgot it.

    It expires before its token when it is not used for a while, or when the wall clock is set back.
    """
    try:
        store.authorize(ticket_id, "read")
    except errors.NoSuchTicket:
        try:
            store.extend(ticket_id, lifetimes)
        except errors.NotFound:
            return False
    return True


def retire(store: Store, ticket_id: str) -> None:
    """Remove the ticket of a token that ended; what still runs may end, and the store forgets the ticket later."""
    with contextlib.suppress(errors.NotFound):
        if not store.info(ticket_id)["active"]:
            store.remove(ticket_id, 0)
