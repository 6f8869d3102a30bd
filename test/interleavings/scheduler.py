"""A scheduler that decides which thread goes on: one runs at a time, and a seed makes every choice.

    scheduler = Scheduler(seed=17)
    with scheduler.replacing(store, transfer):      # what these modules call threading, queue and time
        scheduler.run(scenario)                     # in a thread of its own, as all that it starts

A thread that takes a lock, waits, notifies, starts or joins another one hands over to a thread that is drawn. With
`watched` files so does every line of them, with a probability that is drawn, too: then a lock that is missing shows,
and not only one that is used wrongly. The same seed makes the same choices, so it repeats what happened.

Time is virtual: it stands still, but for a thread whose wait times out. A thread that waits for nothing that can still
happen is a deadlock, and found at once.
"""

from __future__ import annotations

import _thread
import contextlib
import queue as real_queue
import random
import sys
import threading as real_threading
import time as real_time
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any, Callable, Optional

from fakes.waiting import DEADLINE

__all__ = ["Deadlock", "Endless", "Scheduler"]

# A scenario takes some thousand steps; one that takes so many never ends.
MAX_STEPS = 50_000

# How often a line hands over: mostly never, so that some runs go far before anything happens.
LINE_CHANCES = (0.0, 0.02, 0.1, 0.5, 1.0)

# For half of the seeds every thread has a rank, and the first of those that can goes on. This often the one that ran
# falls to the last rank: it stays where it is for long, which it hardly does when each turn is drawn.
FALL_CHANCES = (0.003, 0.01, 0.03, 0.1)

# How often a wait with a time-out ends by that although another thread could go on.
TIMEOUT_CHANCE = 0.05


class Deadlock(AssertionError):
    """No thread can go on; the message tells what each waits for."""


class Endless(AssertionError):
    """The threads go round in circles."""


class Abandoned(BaseException):
    """Ends a thread of a run that failed."""


class Task:
    """One thread, as the scheduler sees it."""

    def __init__(self, name: str, number: int, rank: float) -> None:
        self.name = name
        self.number = number
        self.rank = rank
        # Taken while the thread may not run.
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.is_over = False
        self.why = ""
        self.is_ready: Callable[[], bool] = lambda: True
        self.deadline: Optional[float] = None
        self.has_timed_out = False


class Scheduler:
    """Runs one scenario with one seed."""

    def __init__(self, seed: int, watched: Iterable[ModuleType] = ()) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 1000.0
        # The first thing that failed, in any thread.
        self.error: Optional[BaseException] = None
        # Which thread went on, at each step.
        self.trace: list[int] = []
        self._files = {module.__file__ for module in watched}
        self._line_chance = self.random.choice(LINE_CHANCES) if self._files else 0.0
        self._fall_chance = self.random.choice(FALL_CHANCES) if self.random.random() < 0.5 else None
        self._last_rank = 0.0
        # The instructions of a line are not one step either.
        self._by_opcode = self.random.random() < 0.25
        self._tasks: list[Task] = []
        self._current: Optional[Task] = None
        self._is_abandoned = False
        self._is_choosing = False
        self._all_over = _thread.allocate_lock()
        self.threading = SimpleNamespace(
            Lock=lambda: Lock(self),
            Condition=lambda lock=None: Condition(self, lock),
            Event=lambda: Event(self),
            Thread=lambda *args, **options: Thread(self, *args, **options),
            get_ident=lambda: self.current.number,
            current_thread=lambda: self.current,
        )
        self.queue = SimpleNamespace(SimpleQueue=QueueKind(self), Empty=real_queue.Empty)
        self.time = SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep, time=lambda: self.now)

    @contextlib.contextmanager
    def replacing(self, *modules: Any) -> Iterator[None]:
        """Let modules use our threads, queues and time. The one seam between them and this scheduler."""
        ours = {real_threading: self.threading, real_queue: self.queue, real_time: self.time}
        with contextlib.ExitStack() as undo:
            for module in modules:
                for real, own in ours.items():
                    name = real.__name__
                    if getattr(module, name, None) is real:
                        undo.callback(setattr, module, name, real)
                        setattr(module, name, own)
            yield

    def run(self, main: Callable[[], object]) -> None:
        """Run main, and the threads that it starts, to the end of all. Raises what the first of them raised."""
        self._all_over.acquire()
        self.spawn(main, "main")
        self._hand_over(self._tasks[0])
        assert self._all_over.acquire(timeout=4 * DEADLINE), "a thread of the scenario blocks outside of the scheduler"
        if self.error is not None:
            raise self.error

    def spawn(self, target: Callable[[], object], name: str) -> Task:
        """Make a thread that begins when it is chosen."""
        task = Task(name, len(self._tasks), self.random.random())
        self._tasks.append(task)
        # Not of the module threading: debuggers and coverage would trace it, which only one can.
        _thread.start_new_thread(self._live, (task, target))
        return task

    @property
    def current(self) -> Task:
        """The thread that runs."""
        assert self._current is not None
        return self._current

    def switch(self) -> None:
        """Let a thread go on, perhaps another one."""
        self._step(self.current, "its turn", lambda: True, None)

    def wait(self, why: str, is_ready: Callable[[], bool], seconds: Optional[float] = None) -> bool:
        """Let others go on until something is true; return whether it is, or else it took too long."""
        deadline = None if seconds is None else self.now + max(0.0, seconds)
        return self._step(self.current, why, is_ready, deadline)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.wait("sleep", lambda: False, seconds)

    def check(self, is_true: object, message: str) -> None:
        """Fail unless something is true; an assertion could be caught by the code that is tested."""
        if not is_true and not self._is_abandoned:
            self.fail(AssertionError(message))
            raise Abandoned

    def fail(self, error: BaseException) -> None:
        """End all threads; the first error counts."""
        if self.error is None:
            self.error = error
        self._is_abandoned = True

    # --- Inside ------------------------------------------------------------------------------------------------------

    def _live(self, task: Task, target: Callable[[], object]) -> None:
        task.baton.acquire()
        if self._line_chance:
            sys.settrace(self._watch)
        try:
            if not self._is_abandoned:
                target()
        except Abandoned:
            pass
        except BaseException as error:
            self.fail(error)
        finally:
            sys.settrace(None)
            task.is_over = True
            self._go_on_after(task)

    def _go_on_after(self, task: Task) -> None:
        following = self._choose()
        if following is None and not all(other.is_over for other in self._tasks):
            self.fail(Deadlock(self._describe()))
            following = self._choose()
        if following is None:
            self._all_over.release()
        else:
            self._hand_over(following)

    def _step(self, task: Task, why: str, is_ready: Callable[[], bool], deadline: Optional[float]) -> bool:
        if self._is_abandoned:
            raise Abandoned
        task.why, task.is_ready, task.deadline, task.has_timed_out = why, is_ready, deadline, False
        following = self._choose()
        if following is None:
            self.fail(Deadlock(self._describe()))
        elif len(self.trace) > MAX_STEPS:
            self.fail(Endless(self._describe()))
        elif following is not task:
            self._hand_over(following)
            task.baton.acquire()
        if self._is_abandoned:
            raise Abandoned
        task.is_ready, task.deadline = lambda: True, None
        return not task.has_timed_out

    def _choose(self) -> Optional[Task]:
        living = [task for task in self._tasks if not task.is_over]
        if self._is_abandoned:
            return living[0] if living else None
        # What is asked here may have lines that are watched.
        self._is_choosing = True
        ready = [task for task in living if task.is_ready()]
        self._is_choosing = False
        timed = [task for task in living if task.deadline is not None and task not in ready]
        if timed and (not ready or self.random.random() < TIMEOUT_CHANCE):
            # In their order, as time never goes back.
            chosen = min(timed, key=lambda task: (task.deadline, task.number))
            chosen.has_timed_out = True
            self.now = max(self.now, chosen.deadline or 0.0)
        elif ready:
            chosen = self._draw(ready)
        else:
            return None
        self.trace.append(chosen.number)
        return chosen

    def _draw(self, ready: list[Task]) -> Task:
        if self._fall_chance is None:
            return self.random.choice(ready)
        if self.random.random() < self._fall_chance:
            self._last_rank -= 1
            self.current.rank = self._last_rank
        return max(ready, key=lambda task: task.rank)

    def _hand_over(self, task: Task) -> None:
        self._current = task
        task.baton.release()

    def _watch(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = self._by_opcode
        return self._watch_line

    def _watch_line(self, frame: FrameType, event: str, argument: object) -> Any:
        is_step = event == ("opcode" if self._by_opcode else "line")
        if is_step and not self._is_abandoned and not self._is_choosing and self.random.random() < self._line_chance:
            self.switch()
        return self._watch_line

    def _describe(self) -> str:
        waiting = "; ".join(f"{task.name} waits for {task.why}" for task in self._tasks if not task.is_over)
        return f"at {self.now:.2f} after {len(self.trace)} steps: {waiting}"


class Lock:
    """Stands for threading.Lock."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: Optional[Task] = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._scheduler._is_abandoned:
            return True
        assert self._owner is not self._scheduler.current, "a thread waits for the lock that it has"
        if not blocking:
            self._scheduler.switch()
            if self._owner is not None:
                return False
        elif not self._scheduler.wait("a lock", lambda: self._owner is None, None if timeout < 0 else timeout):
            return False
        self._owner = self._scheduler.current
        return True

    def release(self) -> None:
        if self._scheduler._is_abandoned:
            return
        assert self._owner is self._scheduler.current, "a lock is released by a thread that does not have it"
        self._owner = None
        self._scheduler.switch()

    def locked(self) -> bool:
        return self._owner is not None or self._scheduler._is_abandoned

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Condition:
    """Stands for threading.Condition."""

    def __init__(self, scheduler: Scheduler, lock: Optional[Lock]) -> None:
        self._scheduler = scheduler
        self._lock = lock or Lock(scheduler)
        self._waiting: list[list[bool]] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def wait(self, timeout: Optional[float] = None) -> bool:
        assert self._lock.locked(), "a thread waits without the lock"
        ticket = [False]
        self._waiting.append(ticket)
        self._lock.release()
        try:
            was_notified = self._scheduler.wait("news", lambda: ticket[0], timeout)
        finally:
            # By identity: all tickets look alike.
            self._waiting = [other for other in self._waiting if other is not ticket]
            self._lock.acquire()
        return was_notified

    def wait_for(self, predicate: Callable[[], bool], timeout: Optional[float] = None) -> bool:
        deadline = None if timeout is None else self._scheduler.now + timeout
        while not predicate():
            left = None if deadline is None else deadline - self._scheduler.now
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def notify(self, count: int = 1) -> None:
        assert self._lock.locked(), "a thread notifies without the lock"
        # Not the first: nothing promises an order.
        for ticket in self._scheduler.random.sample(self._waiting, min(count, len(self._waiting))):
            ticket[0] = True
            self._waiting = [other for other in self._waiting if other is not ticket]

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class Event:
    """Stands for threading.Event."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if not self._scheduler._is_abandoned:
            self._scheduler.switch()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: Optional[float] = None) -> bool:
        return self._scheduler.wait("an event", lambda: self._is_set, timeout) or self._is_set


class Thread:
    """Stands for threading.Thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        target: Callable[..., object] = lambda: None,
        args: tuple[object, ...] = (),
        name: str = "thread",
        daemon: bool = False,
    ) -> None:
        self._scheduler = scheduler
        self._target = target
        self._args = args
        self.name = name
        self._task: Optional[Task] = None

    @property
    def ident(self) -> Optional[int]:
        return None if self._task is None else self._task.number

    def start(self) -> None:
        assert self._task is None, "a thread is started once"
        if self._scheduler._is_abandoned:
            raise Abandoned
        self._task = self._scheduler.spawn(lambda: self._target(*self._args), self.name)
        self._scheduler.switch()

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_over

    def join(self, timeout: Optional[float] = None) -> None:
        assert self._task is not None, "a thread that was not started cannot be joined"
        task = self._task
        self._scheduler.wait(f"the end of {self.name}", lambda: task.is_over, timeout)


class QueueKind:
    """Stands for the class queue.SimpleQueue."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __call__(self) -> SimpleQueue:
        return SimpleQueue(self._scheduler)

    def __getitem__(self, kind: object) -> QueueKind:
        return self


class SimpleQueue:
    """Stands for queue.SimpleQueue."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()

    def put(self, item: object) -> None:
        self._items.append(item)
        if not self._scheduler._is_abandoned:
            self._scheduler.switch()

    def get(self, block: bool = True, timeout: Optional[float] = None) -> Any:
        if not self._scheduler.wait("an item", lambda: bool(self._items), timeout if block else 0):
            raise real_queue.Empty
        return self._items.popleft()
