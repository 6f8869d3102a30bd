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
    """No more work is taken: something failed."""


class Queue(Generic[T]):
    """Work that is taken in order.

    `limit` bounds how much of it waits, None does not. A thread that waits for room gets it when half of
    that is done: threads that wake one another for each item do little else.

    Threads: any.
    """

    def __init__(self, limit: Optional[int] = None) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._has_room = threading.Condition(self._lock)
        self._has_news = threading.Condition(self._lock)
        self._is_complete = False
        self._is_closed = False

    def put(self, item: T) -> None:
        """Add work, when there is room. Raises Closed."""
        with self._lock:
            if self.is_full:
                self._has_room.wait_for(self._is_half_empty)
            if self._is_closed:
                raise Closed
            self._items.append(item)
            self._has_news.notify()

    def put_back(self, item: T) -> None:
        """Let this be the next work that is taken. Never waits. Raises Closed."""
        with self._lock:
            if self._is_closed:
                raise Closed
            self._items.appendleft(item)
            self._has_news.notify()

    def get(self, block: bool = True) -> Optional[T]:
        """Return work; None when there will be no more, or, without `block`, when there is none now. Raises Closed."""
        with self._lock:
            while block and not (self._items or self._is_complete or self._is_closed):
                self._has_news.wait()
            if self._is_closed:
                raise Closed
            if not self._items:
                return None
            item = self._items.popleft()
            if self._is_half_empty():
                self._has_room.notify_all()
            return item

    def complete(self) -> None:
        """Tell that nothing will be added any more."""
        with self._lock:
            self._is_complete = True
            self._has_news.notify_all()

    def close(self) -> None:
        """Make a thread that adds or takes fail; what waits is dropped."""
        with self._lock:
            self._is_closed = True
            self._items.clear()
            self._has_news.notify_all()
            self._has_room.notify_all()

    @property
    def is_closed(self) -> bool:
        """Was it closed?"""
        return self._is_closed

    @property
    def is_full(self) -> bool:
        """Would put() wait?"""
        return self._limit is not None and len(self._items) >= self._limit

    def _is_half_empty(self) -> bool:
        return self._limit is None or len(self._items) <= self._limit // 2
