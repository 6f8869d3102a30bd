"""A thread that makes calls while its owner does something else, and pieces that are loaded while others are passed on.

Knows neither what the calls do nor what the pieces are.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Callable, Generic, NoReturn, Optional, TypeVar

__all__ = ["Worker", "run_ahead"]

T = TypeVar("T")
Slot = TypeVar("Slot")


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


def run_ahead(
    load: Callable[[Slot, int, int], T],
    pieces: Iterable[tuple[int, int]],
    slots: Sequence[Slot],
    pass_on: Callable[[Slot, T], int],
    threads: int = 1,
) -> int:
    """Load pieces, given as offset and length, into slots, while earlier ones are passed on; return how much was.

    `load(slot, offset, length)` is called by several threads at the same time; `pass_on(slot, loaded)`, by ours and in
    order, returns the length of the piece. One that is shorter than it should be is the last.
    """
    done = 0
    todo = iter(pieces)
    free = deque(slots)
    loading: deque[tuple[Slot, int, Callable[[], T]]] = deque()
    with contextlib.ExitStack() as stack:
        turns = itertools.cycle([stack.enter_context(Worker[T]("run-ahead")) for _ in range(threads)])
        is_first = True
        while True:
            while free and (piece := next(todo, None)):
                slot = free.popleft()
                take: Callable[[], T] = functools.partial(load, slot, *piece)
                if not is_first:
                    worker = next(turns)
                    worker.submit(take)
                    take = worker.result
                # We load the first piece, while others load the next: short ranges need no thread.
                is_first = False
                loading.append((slot, piece[1], take))
            if not loading:
                return done
            slot, length, take = loading.popleft()
            count = pass_on(slot, take())
            done += count
            if count < length:
                return done
            free.append(slot)
