"""A thread that makes calls while its owner does something else.

Knows neither what the calls do nor who waits for them.
"""

from __future__ import annotations

import functools
import queue
import threading
from types import TracebackType
from typing import Callable, Generic, NoReturn, Optional, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class Worker(Generic[T]):
    """A thread that makes calls, in order, while its owner does something else.

        with Worker[int]("read-ahead") as worker:
            worker.submit(lambda: slow(1))
            worker.submit(lambda: slow(2))
            worker.result()         # of slow(1)

    After a call that failed no other is made: their results are its error. At the end of the with block what was not
    begun is dropped, and the thread has ended. Without calls there is no thread.

    Threads: one, the owner.
    """

    def __init__(self, name: str) -> None:
        # Calls, then None; and what came of each: the result, or the error.
        self._calls: queue.SimpleQueue[Optional[Callable[[], T]]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Callable[[], T]] = queue.SimpleQueue()
        self._is_stopping = False
        self._name = name
        self._thread: Optional[threading.Thread] = None

    def submit(self, call: Callable[[], T]) -> None:
        """Let the thread make a call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

    def result(self) -> T:
        """Wait for the oldest call whose result was not taken; return what it returned, or raise what it raised."""
        return self._results.get()()

    def _run(self) -> None:
        outcome: Callable[[], T]
        has_failed = False
        while (call := self._calls.get()) is not None and not self._is_stopping:
            if not has_failed:
                try:
                    outcome = functools.partial(_give, call())
                except BaseException as e:  # Whatever it is, it is raised where the result is taken.
                    outcome = functools.partial(_fail, e)
                    has_failed = True
            self._results.put(outcome)

    def __enter__(self) -> Worker[T]:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._thread is not None:
            self._is_stopping = True
            self._calls.put(None)
            self._thread.join()


def _give(result: T) -> T:
    return result


def _fail(error: BaseException) -> NoReturn:
    raise error
