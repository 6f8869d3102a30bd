"""Signed tickets: a ticket that is its own proof, so that any of several daemons can serve it.

    token ──verify──> claims ──> an ordinary ticket in the store, with a secret id of its own <── jti

    {"jti": "backup-42", "aud": "imageio", "exp": 1790000000,
     "url": "file:///images/a.raw", "size": 1048576, "ops": ["read"]}

A request for /images/JTI shows the token each time; the first one installs the ticket. A newer token of the same jti,
with a later end, renews it. What was revoked stays so. Kept in memory only.

A token tells times of day, so the wall clock decides whether it is good; its ticket, which lives for so many seconds,
is made to follow. When a token ends, requests that run may end, and clients that are attached are cut.

Knows nothing of HTTP and of files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.agenda import Agenda
from ovirt_imageio.auth.store import Store
from ovirt_imageio.auth.ticket import MAX_SECONDS, Fields
from ovirt_imageio.net import jws
from ovirt_imageio.net.jws import Key
from ovirt_imageio.sessions import installed
from ovirt_imageio.sessions.revocations import LAST_SECOND, Revocations

__all__ = ["Claims", "SignedTickets", "Verifier"]

log = logging.getLogger("sessions")

# It bounds what the holder of a key can make us hold.
TICKETS_LIMIT = 100_000

# Tokens that were verified lately: a signature takes 100 microseconds, and a client shows its token with each request.
CACHE_LIMIT = 10_000

# An id is one segment of a path, and stands in URLs as it is.
JTI = re.compile(r"[A-Za-z0-9._~-]{1,128}")

# Without "timeout" in the token a disk that is not used is closed after this.
DEFAULT_TIMEOUT = 300

# What is about the token, and not about the disk.
REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "uuid"})

DIGEST = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Claims:
    """What a token says that was verified. Times are seconds since the epoch, the skew included."""

    jti: str
    not_before: float
    expires: float
    # When it was signed, as far as it says so.
    issued: float
    # The keys of a ticket, but for its id.
    document: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """A text that is the same for the tokens of one ticket, whenever they end."""
        return hashlib.sha256(repr(sorted(self.document.items())).encode()).hexdigest()


class Verifier:
    """Decides which tokens are good.

    find_key returns the key that must have signed, by its id. permits returns whether a ticket may name a URL.

    Threads: any number at once.
    """

    def __init__(
        self,
        find_key: Callable[[Optional[str]], Key],
        audience: str,
        permits: Callable[[str], bool],
        skew: int = 0,
    ) -> None:
        self._find_key = find_key
        self._audience = audience
        self._permits = permits
        self._skew = skew

        self._lock = threading.Lock()
        # Guarded by _lock.
        self._verified: OrderedDict[bytes, tuple[Optional[str], Key, Claims]] = OrderedDict()

    def verify(self, token: str) -> Claims:
        """Return what a token says; its times are not looked at. Raises errors.NotAuthenticated."""
        digest = hashlib.sha256(token.encode("utf-8", "backslashreplace")).digest()
        with self._lock:
            known = self._verified.get(digest)
            if known is not None:
                self._verified.move_to_end(digest)
        # The key may have been exchanged meanwhile, or taken away.
        if known is not None and self._find_key(known[0]) is known[1]:
            return known[2]
        kid = jws.key_id(token)
        key = self._find_key(kid)
        claims = self._check(key.verify(token))
        with self._lock:
            self._verified[digest] = kid, key, claims
            if len(self._verified) > CACHE_LIMIT:
                self._verified.popitem(last=False)
        return claims

    def _check(self, payload: dict[str, Any]) -> Claims:
        jti = payload.get("jti")
        if type(jti) is not str or not JTI.fullmatch(jti):
            jws.refuse("jti is not a name of 1 to 128 letters, digits, and . _ ~ -")
        if payload.get("uuid", jti) != jti:
            jws.refuse("its uuid is not its jti")
        audience = payload.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            jws.refuse("its aud is not [signed_tickets] audience")
        expires = min(time_of(payload, "exp") + self._skew, LAST_SECOND)
        not_before = time_of(payload, "nbf") - self._skew if "nbf" in payload else 0
        # As early as that may have been by the clock of this machine.
        issued = time_of(payload, "iat") - self._skew if "iat" in payload else 0
        document = {name: value for name, value in payload.items() if name not in REGISTERED}
        self._check_url(document.get("url"))
        return Claims(jti, not_before, expires, issued, document)

    def _check_url(self, url: object) -> None:
        try:
            is_permitted = isinstance(url, str) and self._permits(url)
        except errors.InvalidValue:
            is_permitted = False
        if not is_permitted:
            jws.refuse("its url is not one that [signed_tickets] allow permits")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A ticket that was installed. Frozen: renewing puts another one in its place."""

    ticket_id: str
    expires: float
    fingerprint: str


class SignedTickets:
    """The tickets of the process that were installed by a token.

    verify returns what a token says. is_denied tells whether a jti is revoked on all daemons. clock tells seconds
    since the epoch, for that is what tokens tell.

    Threads: any number at once.

    Locks: _lock guards the dictionaries. The store may be asked while it is held, but nothing that could block is done.
    """

    def __init__(
        self,
        store: Store,
        verify: Callable[[str], Claims],
        is_denied: Callable[[str], bool] = lambda jti: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._verify = verify
        self._is_denied = is_denied
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._revocations = Revocations()
        # When an entry ends: what is there need not be looked at for each new ticket.
        self._ends = Agenda()

    def resolve(self, jti: str, token: str) -> str:
        """Return the id of the ticket in the store that a request for jti may use.

        Raises errors.NotAuthenticated; errors.NoSuchTicket if the token is good, but for another ticket, or revoked; or
        errors.InvalidTicket if what it says is not a ticket.
        """
        claims = self._verify(token)
        now = self._clock()
        if claims.jti != jti:
            raise errors.NoSuchTicket()
        if now < claims.not_before:
            jws.refuse("it is not valid yet")
        if now >= claims.expires:
            jws.refuse("it has expired")
        if self._is_denied(jti):
            self._end(jti)
            raise errors.NoSuchTicket()
        if not self._is_known(jti, now):
            self.purge()
        with self._lock:
            # In one step: another thread may revoke it, or let it expire, or be the first one to show it, too.
            return self._admit(claims, now)

    def revoke(self, name: str) -> list[str]:
        """Refuse a jti from now on, or that of a ticket in the store; without a name, all that are in use.

        Returns the ids in the store; that of a jti which was revoked before, too. It does not cut what runs: that is
        up to the store.
        """
        with self._lock:
            jtis = [jti for jti, entry in self._entries.items() if name in ("", jti, entry.ticket_id)]
            found = [self._revoke(jti) for jti in jtis]
            revoked = self._revocations.ticket_of(name)
            if not found and revoked is not None:
                found = [revoked]
        for jti in jtis:
            log.info("REVOKE signed transfer=%s", name_of(jti))
        return found

    def deny(self, jti: str) -> list[str]:
        """Refuse a jti whose token may come yet; return the id in the store if it came meanwhile."""
        if not JTI.fullmatch(jti):
            return []
        self.purge()
        with self._lock:
            if jti in self._entries:
                return [self._revoke(jti)]
            self._revocations.deny(jti, self._clock())
            return []

    def ticket_of(self, jti: str) -> Optional[str]:
        """Return the id in the store of a ticket that was installed, also a revoked one; None if there is none."""
        with self._lock:
            entry = self._entries.get(jti)
            return self._revocations.ticket_of(jti) if entry is None else entry.ticket_id

    def purge(self) -> None:
        """Forget what expired."""
        now = self._clock()
        with self._lock:
            gone = [self._entries.pop(jti) for jti in self._ends.pop_due(now)]
            self._revocations.purge(now)
        for entry in gone:
            installed.retire(self._store, entry.ticket_id)

    def record(self) -> dict[str, Any]:
        """Return what another process needs to go on, as a JSON object. It is a secret."""
        with self._lock:
            entries = {jti: dataclasses.asdict(entry) for jti, entry in self._entries.items()}
            return {"entries": entries, "revocations": self._revocations.record()}

    def resume(self, document: object) -> None:
        """Go on with the tickets of another process that the store has; before anything is served."""
        fields = Fields(document)
        entries = Fields(fields.get("entries", {}))
        with self._lock:
            if "revocations" in fields:
                self._revocations.resume(fields.get("revocations"))
            for jti in entries:
                entry = Fields(entries.get(jti))
                found = Entry(
                    entry.text("ticket_id", 64), entry.number("expires", LAST_SECOND), entry.text("fingerprint", 64)
                )
                if found.ticket_id in self._store:
                    self._set_entry(jti, found)

    def __len__(self) -> int:
        """Return the number of tickets, those that expired unnoticed included."""
        return len(self._entries)

    def _end(self, jti: str) -> None:
        """Cut what runs on a ticket that is revoked on all daemons."""
        for ticket_id in self.revoke(jti):
            self._store.remove(ticket_id, 0)

    def _is_known(self, jti: str, now: float) -> bool:
        with self._lock:
            return jti in self._entries and self._lives(jti, now)

    def _lives(self, jti: str, now: float) -> bool:
        assert self._lock.locked()
        return self._entries[jti].expires > now

    def _revoke(self, jti: str) -> str:
        """Refuse a jti that is in use; return the id of its ticket in the store."""
        assert self._lock.locked()
        entry = self._entries.pop(jti)
        self._ends.remove(jti)
        self._revocations.deny(jti, self._clock(), entry.expires, entry.ticket_id)
        return entry.ticket_id

    def _set_entry(self, jti: str, entry: Entry) -> None:
        assert self._lock.locked()
        self._entries[jti] = entry
        self._ends.set(jti, entry.expires)

    def _admit(self, claims: Claims, now: float) -> str:
        assert self._lock.locked()
        jti = claims.jti
        if self._revocations.is_denied(jti, now):
            # A newer token than the one that was revoked is refused to its end, too.
            self._revocations.deny(jti, now, claims.expires)
            raise errors.NoSuchTicket()
        entry = self._entries.get(jti)
        if entry is None or not self._lives(jti, now):
            if self._revocations.covers(claims.issued):
                jws.refuse("it may have been revoked, as more were than are remembered: sign another one, with iat")
            entry = self._install(claims, now)
        elif entry.fingerprint != claims.fingerprint:
            jws.refuse("another ticket with its jti is in use")
        elif entry.expires < claims.expires:
            entry = self._renew(claims, entry, now)
        if not installed.keep(self._store, entry.ticket_id, lifetimes(claims, now)):
            self._store.add(make_document(claims, entry.ticket_id, now))
        return entry.ticket_id

    def _install(self, claims: Claims, now: float) -> Entry:
        if len(self._entries) >= TICKETS_LIMIT:
            raise errors.BackendUnavailable("use a signed ticket", "too many are in use")
        entry = Entry(str(uuid.uuid4()), claims.expires, claims.fingerprint)
        self._store.add(make_document(claims, entry.ticket_id, now))
        self._set_entry(claims.jti, entry)
        log.info("INSTALL signed transfer=%s", name_of(claims.jti))
        return entry

    def _renew(self, claims: Claims, entry: Entry, now: float) -> Entry:
        renewed = dataclasses.replace(entry, expires=claims.expires)
        self._set_entry(claims.jti, renewed)
        with contextlib.suppress(errors.NotFound):
            self._store.extend(entry.ticket_id, lifetimes(claims, now))
        log.info("RENEW signed transfer=%s", name_of(claims.jti))
        return renewed


def make_document(claims: Claims, ticket_id: str, now: float) -> dict[str, Any]:
    """Return the ticket that a token stands for."""
    named = {"transfer_id": name_of(claims.jti), **claims.document}
    return {**named, "uuid": ticket_id, **lifetimes(claims, now)}


def lifetimes(claims: Claims, now: float) -> dict[str, Any]:
    """Return how long its ticket lives: while it is used, and until its token ends, whatever happens."""
    left = max(1, min(MAX_SECONDS, int(claims.expires - now)))
    timeout = claims.document.get("timeout", DEFAULT_TIMEOUT)
    return {"timeout": min(timeout, left) if type(timeout) is int else timeout, "lifetime": left}


def name_of(jti: str) -> str:
    """Return what may be logged: it gives no access without the token."""
    return f"signed/{jti}"


def time_of(payload: Mapping[str, Any], name: str) -> float:
    """Return a time. Raises errors.NotAuthenticated."""
    value: Any = payload.get(name)
    if type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        jws.refuse(f"{name} is not a time in seconds since 1970")
    return float(value)
