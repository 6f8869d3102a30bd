"""Sessions of the proxy: a session is a ticket that a signed token installed.

    token ──verify──> access ──ask the host──> ticket in the store, with a secret id of its own <── session id

A client shows its token once and gets a session id; or it shows the token with every request, and shares one session
with all that show the same. Requests then name the host's ticket, as they would on the host; `resolve` tells which
ticket of ours stands for it, and everything after that is the normal path. Tickets that were added by the control
service need no session, and whatever credentials come along are ignored.

A session lives until its token said, whatever happens on it; a newer token renews it. It is kept in memory only. A
token tells times of day, so it is the wall clock that ends a session, also when that is set; its ticket, which lives
for so many seconds, is made to follow.

Knows nothing of HTTP and of files: tokens and ids are texts, and asking the host is an argument.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any, Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.auth.ticket import Fields, short
from ovirt_imageio.origin.image import Description
from ovirt_imageio.sessions import installed
from ovirt_imageio.sessions.token import Access

__all__ = ["SESSIONS_LIMIT", "Session", "Sessions"]

log = logging.getLogger("sessions")

# Far more than an engine has transfers; it bounds what one valid token can make us hold.
SESSIONS_LIMIT = 10_000

# What a process hands to the next one: a text of a token, a time, and a SHA-256.
MAX_TEXT = 64 * 1024
MAX_TIME = 2**63 - 1
DIGEST = re.compile("[0-9a-f]{64}")

NO_SESSION = "no such session: it is unknown or expired"


@dataclasses.dataclass(frozen=True)
class Session:
    """An access that was verified, and the ticket of ours that stands for it.

    Frozen: renewing puts another one in its place, so that no request sees the access of one and the ticket of another.
    """

    id: str
    access: Access
    ticket_id: str
    # The digest of the token, if the client shows that instead of an id.
    digest: Optional[bytes] = None

    @property
    def name(self) -> str:
        """What may be logged."""
        return self.access.transfer_id or f"(ticket/{short(self.ticket_id)})"

    def is_live(self, now: float) -> bool:
        """True while it may be used. A client that has nothing but a token must still be able to show it."""
        limit = self.access.expires
        if self.digest is not None:
            limit = min(limit, self.access.shown_until)
        return now < limit


class Sessions:
    """The sessions of the process.

    verify returns what a token allows at a time, or raises errors.NotAuthenticated. look asks the host about the image
    at a URL, and raises errors.StorageError if it cannot or refuses. clock tells seconds since the epoch, for that is
    what tokens tell.

    Threads: any number at once.

    Locks: _lock guards the dictionaries. The store may be asked while it is held, but nothing that could block is done:
    no host is asked, no ticket is removed.
    """

    def __init__(
        self,
        store: Store,
        verify: Callable[[str, float], Access],
        look: Callable[[str], Description],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._verify = verify
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._by_id: dict[str, Session] = {}
        self._by_digest: dict[bytes, Session] = {}

    def open(self, token: Optional[str], session_id: Optional[str] = None) -> str:
        """Begin a session with a token, renew one with a newer token, or, without one, check it; return its id.

        Raises errors.NotAuthenticated, or errors.StorageError if the host does not know the ticket.
        """
        if session_id is not None:
            session = self._require(session_id)
            if token is not None:
                self._renew(session_id, self._verify(token, self._clock()))
            return session.id
        if token is None:
            raise errors.NotAuthenticated("neither a signed token nor a session was shown")
        return self._begin(self._verify(token, self._clock())).id

    def close(self, session_id: str) -> None:
        """End a session, and cut what runs on it; raises errors.NotFound."""
        self._find(session_id)
        with self._lock:
            session = self._by_id.pop(session_id, None)
        if session is None:
            raise errors.NotFound("session")
        self._store.remove(session.ticket_id, 0)
        log.info("CLOSE session transfer=%s", session.name)

    def resolve(self, ticket_id: str, session_id: Optional[str], token: Optional[str]) -> str:
        """Return the id of the ticket in the store that a request for the host's ticket may use.

        Raises errors.NotAuthenticated, or errors.NoSuchTicket if the credentials are good, but for another ticket.
        """
        session = None if session_id is None else self._find(session_id)
        if session is None and ticket_id in self._store:
            return ticket_id
        if session is None and session_id is not None:
            raise errors.NotAuthenticated(NO_SESSION)
        if session is None:
            if token is None:
                raise errors.NotAuthenticated("No such ticket, and neither a session nor a signed token was shown")
            session = self._share(token, ticket_id)
        if session.access.ticket_id != ticket_id:
            raise errors.NoSuchTicket()
        installed.keep(self._store, session.ticket_id, {"timeout": self._remaining(session.access)})
        return session.ticket_id

    def purge(self) -> None:
        """Forget sessions that expired."""
        now = self._clock()
        with self._lock:
            sessions = (*self._by_id.values(), *self._by_digest.values())
            expired = [session for session in sessions if not session.is_live(now)]
            for session in expired:
                self._drop(session)
        for session in expired:
            self._retire(session)

    def record(self) -> list[dict[str, Any]]:
        """Return what another process needs to go on with the sessions, as JSON objects. They are secrets."""
        with self._lock:
            sessions = (*self._by_id.values(), *self._by_digest.values())
        return [
            {**dataclasses.asdict(session), "digest": session.digest.hex() if session.digest else None}
            for session in sessions
        ]

    def resume(self, documents: Iterable[object]) -> None:
        """Go on with the sessions of another process whose tickets the store has; before anything is served."""
        for document in documents:
            try:
                session = _parse(document)
            except errors.InvalidTicket as error:
                # Not the value: it may be the id.
                log.error("Cannot go on with a session after the restart: its %s is not %s", error.name, error.expected)
                continue
            if session.ticket_id not in self._store:
                continue
            with self._lock:
                if session.digest is None:
                    self._by_id[session.id] = session
                else:
                    self._by_digest[session.digest] = session
            log.info("RESUME session transfer=%s host=%s", session.name, session.access.base_url)

    def __len__(self) -> int:
        """Return the number of sessions, those that expired unnoticed included."""
        return len(self._by_id) + len(self._by_digest)

    def _begin(self, access: Access, digest: Optional[bytes] = None) -> Session:
        self.purge()
        if len(self) >= SESSIONS_LIMIT:
            raise errors.BackendUnavailable("open a session", "too many sessions are open")
        # Both are random, and the second one is told to no client: without the session the ticket is out of reach.
        session = Session(str(uuid.uuid4()), access, str(uuid.uuid4()), digest)
        document = self._document(session.ticket_id, access)
        with self._lock:
            if digest is not None:
                other = self._by_digest.get(digest)
                if other is not None and other.is_live(self._clock()):
                    return other  # Two requests came at once with the same token.
            # First, as it fails for what is not a ticket.
            self._store.add(document)
            if digest is not None:
                self._by_digest[digest] = session
            else:
                self._by_id[session.id] = session
        log.info("OPEN session transfer=%s host=%s", session.name, access.base_url)
        return session

    def _renew(self, session_id: str, access: Access) -> None:
        if not self._extend(session_id, access):
            self._replace(session_id, access)

    def _extend(self, session_id: str, access: Access) -> bool:
        """Let a session live as long as the access says; return False if that is for something else."""
        with self._lock:
            session = self._current(session_id)
            if access.url != session.access.url:
                return False
            self._store.extend(session.ticket_id, {"timeout": self._remaining(access)})
            self._by_id[session_id] = dataclasses.replace(session, access=access)
        log.info("RENEW session transfer=%s", session.name)
        return True

    def _replace(self, session_id: str, access: Access) -> None:
        """Make a session one for something else, which the protocol allows: the id stays, all else is new."""
        document = self._document(str(uuid.uuid4()), access)
        with self._lock:
            # While the host was asked the session may have been renewed once more, or closed.
            old = self._current(session_id)
            self._store.add(document)
            new = self._by_id[session_id] = dataclasses.replace(old, access=access, ticket_id=document["uuid"])
        self._store.remove(old.ticket_id, 0)
        log.info("REPLACE session transfer=%s by transfer=%s", old.name, new.name)

    def _current(self, session_id: str) -> Session:
        """Return the session that has the id now."""
        assert self._lock.locked()
        session = self._by_id.get(session_id)
        if session is None:
            raise errors.NotAuthenticated(NO_SESSION)
        return session

    def _share(self, token: str, ticket_id: str) -> Session:
        """Return the session that all clients that show this token share."""
        digest = hashlib.sha256(token.strip().encode("utf-8", "backslashreplace")).digest()
        with self._lock:
            session = self._by_digest.get(digest)
            if session is not None and session.is_live(self._clock()):
                return session
        access = self._verify(token, self._clock())
        if access.ticket_id != ticket_id:
            # Before any host is asked on behalf of a client that wants something else.
            raise errors.NoSuchTicket()
        return self._begin(access, digest)

    def _document(self, ticket_id: str, access: Access) -> dict[str, Any]:
        """Return a ticket for what the host tells about the image."""
        image = self._look(access.url)
        document: dict[str, Any] = {
            "uuid": ticket_id,
            "url": access.url,
            "size": image.size,
            "ops": ["read", "write"] if image.is_writable else ["read"],
            "timeout": self._remaining(access),
            "sparse": True,
            "dirty": image.has_dirty,
        }
        if access.transfer_id is not None:
            document["transfer_id"] = access.transfer_id
        if image.filename is not None:
            document["filename"] = image.filename
        return document

    def _remaining(self, access: Access) -> int:
        return max(1, int(access.expires - self._clock()))

    def _require(self, session_id: str) -> Session:
        session = self._find(session_id)
        if session is None:
            raise errors.NotAuthenticated(NO_SESSION)
        return session

    def _find(self, session_id: str) -> Optional[Session]:
        """Return the session, which is dropped if it is expired."""
        with self._lock:
            session = self._by_id.get(session_id)
            if session is None or session.is_live(self._clock()):
                return session
            self._drop(session)
        self._retire(session)
        return None

    def _drop(self, session: Session) -> None:
        assert self._lock.locked()
        self._by_id.pop(session.id, None)
        if session.digest is not None:
            self._by_digest.pop(session.digest, None)

    def _retire(self, session: Session) -> None:
        installed.retire(self._store, session.ticket_id)
        log.info("EXPIRE session transfer=%s", session.name)


def _parse(document: object) -> Session:
    """Return the session that a decoded JSON document describes. Raises errors.InvalidTicket."""
    fields = Fields(document)
    access = Fields(fields.get("access"))
    digest = fields.get("digest", None)
    if digest is not None and (type(digest) is not str or not DIGEST.fullmatch(digest)):
        raise errors.InvalidTicket("digest", digest, "null, or 64 hexadecimal digits")
    return Session(
        id=fields.text("id", MAX_TEXT),
        access=Access(
            base_url=access.text("base_url", MAX_TEXT),
            ticket_id=access.text("ticket_id", MAX_TEXT),
            expires=access.integer("expires", MAX_TIME),
            shown_until=access.integer("shown_until", MAX_TIME),
            transfer_id=None if access.get("transfer_id", None) is None else access.text("transfer_id", MAX_TEXT),
        ),
        ticket_id=fields.text("ticket_id", MAX_TEXT),
        digest=None if digest is None else bytes.fromhex(digest),
    )
