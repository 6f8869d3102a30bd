"""The queue between the thread that plans and the threads that copy.

Knows nothing of what is in it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Optional, TypeVar

__all__ = ["Closed", "Queue"]

T = TypeVar("T")


class Closed(Exception):
    """Nobody wants more work: something failed."""


class Queue(Generic[T]):
    """Work that is taken in order.

    `limit` bounds how much of it waits, None does not.

    Threads: any.
    """

    def __init__(self, limit: Optional[int] = None) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_complete = False
        self._is_closed = False

    def put(self, item: T) -> None:
        """Add work, when there is room. Raises Closed."""
        with self._changed:
            while not self._is_closed and self._limit is not None and len(self._items) >= self._limit:
                self._changed.wait()
            if self._is_closed:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    def get(self, block: bool = True) -> Optional[T]:
        """Return work; None when there will be no more, or, without `block`, when there is none now. Raises Closed."""
        with self._changed:
            while block and not (self._items or self._is_complete or self._is_closed):
                self._changed.wait()
            if self._is_closed:
                raise Closed
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def complete(self) -> None:
        """Tell that nothing will be added any more."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def close(self) -> None:
        """Make whoever adds or takes fail; what waits is dropped."""
        with self._changed:
            self._is_closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Was it closed?"""
        return self._is_closed
