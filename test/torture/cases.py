"""One operation of the service, one call that fails in it, and what must be true after that.

A case has a name that says all of it, so that it can be run again:

    file-tls-put/storage.direct.write os.pwritev 2/ENOSPC
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from torture.house import CONTENT, House, Leftover
from torture.operations import CHANGES, OPERATIONS, Refused, Wrong, ask, put
from torture.seam import Call, Seam, chosen

__all__ = ["Case", "Failure", "Torturer"]

# What an operation raises when the connection is cut.
CUT = (OSError, EOFError, http.client.HTTPException, AssertionError)

# The answers that tell of a failure of ours, or that the client, whose bytes did not come, is to blame.
GOOD_REFUSALS = {400, 408, 500, 502, 503, 504, 507}


class Case(NamedTuple):
    """See the module."""

    backend: str
    listener: str
    operation: str
    call: Call
    fault: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.listener}-{self.operation}/{self.call}/{self.fault}"

    @classmethod
    def parse(cls, name: str) -> Case:
        """Return the case of a name."""
        where, call, fault = name.split("/")
        backend, listener, operation = where.split("-", 2)
        place, kind, number = call.split(" ")
        return cls(backend, listener, operation, Call(place, kind, int(number)), fault)


class Failure(AssertionError):
    """A case that did not end as it should."""


class Torturer:
    """Runs cases in a house; `outcomes` counts how they ended."""

    def __init__(self, house: House, seam: Seam) -> None:
        self._house = house
        self._seam = seam
        # What is not heard of: the death of a thread, and what is thrown away without having been closed.
        self._unheard: list[str] = []
        self.outcomes: Counter[str] = Counter()
        for operation in OPERATIONS:
            # What is made once, and kept.
            self.plan("unix", operation)
            self.plan("tls", operation)
        house.wait()
        house.remember()

    def plan(self, listener: str, operation: str) -> list[Case]:
        """Return all cases of an operation."""
        house = self._house
        house.begin()

        def run() -> None:
            with house.connect(listener) as connection:
                OPERATIONS[operation](connection)
            house.wait()

        calls = self._seam.record(run)
        house.end()
        return [Case(house.backend, listener, operation, call, fault) for call, fault in chosen(calls)]

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Let a case fail that something in the process goes wrong in, and which is not heard of."""
        hooks = sys.unraisablehook, threading.excepthook

        def note(what: Any) -> None:
            self._unheard.append(f"{what.exc_type.__name__}: {what.exc_value}")

        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            sys.unraisablehook = threading.excepthook = note
            try:
                yield
            finally:
                sys.unraisablehook, threading.excepthook = hooks

    def run(self, case: Case) -> None:
        """Run a case. Raises Failure."""
        try:
            outcome = self._run(case)
        except Exception as e:
            raise Failure(f"{case}: {type(e).__name__}: {e}") from e
        self.outcomes[outcome] += 1

    def _run(self, case: Case) -> str:
        house = self._house
        self._unheard.clear()
        house.begin()
        with self._seam.failing(case.call, case.fault):
            outcome = self._ask(case)
            house.wait()
        is_reached = self._seam.failures > 0
        if not is_reached and outcome != "done":
            raise Wrong(f"it was {outcome}, though nothing failed")
        self._check_disk(case, is_done=outcome == "done")
        self._check_next(case)
        house.end()
        house.settle()
        if self._unheard:
            raise Leftover(f"unheard: {self._unheard}")
        return outcome if is_reached else "not reached"

    def _ask(self, case: Case) -> str:
        """Do the operation; return what came of it."""
        try:
            with self._house.connect(case.listener) as connection:
                OPERATIONS[case.operation](connection)
        except Wrong:
            raise
        except TimeoutError:
            raise Leftover("the client waits for an answer") from None
        except Refused as refused:
            if refused.status not in GOOD_REFUSALS:
                raise
            return str(refused.status)
        except CUT:
            return "cut"
        return "done"

    def _check_disk(self, case: Case, is_done: bool) -> None:
        """Each byte is the old one or the new one; the new one if that was acknowledged."""
        found = self._house.read()
        position = 0
        for offset, data in sorted(CHANGES.get(case.operation, [])):
            end = offset + len(data)
            if found[position:offset] != CONTENT[position:offset]:
                raise Wrong("the disk changed beside the range")
            if is_done and found[offset:end] != data:
                raise Wrong("what was acknowledged is not there")
            if found[offset:end] != data and not is_mixed(found[offset:end], CONTENT[offset:end], data):
                raise Wrong("bytes that are neither old nor new")
            position = end
        if found[position:] != CONTENT[position:]:
            raise Wrong("the disk changed beside the range")

    def _check_next(self, case: Case) -> None:
        """The same range can be written and read at once."""
        data = b"next" * 2000
        with self._house.connect(case.listener) as connection:
            try:
                put(connection, 900, data)
            except Refused:
                # A flush that tells of writes that may be lost does so once.
                if case.operation not in ("flush", "nbd"):
                    raise
                put(connection, 900, data)
            found = ask(connection, "GET", "/images/ticket", headers={"range": "bytes=900-8899"})
        if found != data:
            raise Wrong("the next request does not read what it wrote")
        self._house.wait()


def is_mixed(found: bytes, old: bytes, new: bytes) -> bool:
    """Is each byte an old or a new one?"""
    return len(found) == len(old) and all(f in (a, b) for f, a, b in zip(found, old, new))
