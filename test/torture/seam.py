"""Between the package and the system: counts the calls that the package makes, and lets one of them fail.

    with Seam() as seam:
        calls = seam.record(operation)          # what one operation asks of the system, in order
        for call in calls:
            with seam.failing(call, "EIO"):
                operation()

A call is named by who makes it, and the how manyth call of its kind that is: "storage.direct.write os.pwritev 2". That
is the same in each run, however the threads take turns. What tests, fakes and pytest ask of the system does not count.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Callable, NamedTuple, Optional

from ovirt_imageio.storage import zero

__all__ = ["FAULTS", "Call", "Seam", "chosen"]

PACKAGE = "ovirt_imageio"

# Behind the name of a fault: it happens from then on, each time. Not for those that ask to try again: the kernel says
# that once poll() has told that there is nothing.
EVER = "*"
LASTING = ("EIO", "ENOSPC", "EMFILE", "ECONNREFUSED", "short", "thread")

# After these nothing more can pass.
LOST = ("ECONNRESET", "EPIPE", "ETIMEDOUT")

# Who asks for something for itself, and not for the package.
OTHERS = ("crash", "fakes", "real", "torture", "soak", "_pytest", "pytest")

RECEIVE = ("ECONNRESET", "EAGAIN", "ETIMEDOUT", "ENOMEM", "EIO", "end", "short")
SEND = ("EPIPE", "ECONNRESET", "EAGAIN", "ETIMEDOUT", "ENOBUFS", "ENOMEM", "short")
TLS = ("SSL",)

# What each call may fail with. "short": it does half of it; "end": there is nothing more to read.
FAULTS: dict[str, tuple[str, ...]] = {
    "os.open": ("EMFILE", "ENFILE", "ENOMEM", "EIO", "EACCES", "ENOENT", "EINTR"),
    "os.close": ("EIO", "EINTR"),
    "os.read": ("EIO", "EINTR"),
    "os.pread": ("EIO", "EINTR", "end"),
    "os.preadv": ("EIO", "EINTR", "EAGAIN", "ENOMEM", "end", "short"),
    "os.pwrite": ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EAGAIN", "ENOMEM", "EFBIG", "short"),
    "os.pwritev": ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EAGAIN", "ENOMEM", "EFBIG", "short"),
    "os.fsync": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "os.lseek": ("EIO", "EINVAL"),
    "os.fstat": ("EIO", "ESTALE", "ENOMEM"),
    "os.stat": ("EIO", "ESTALE", "EACCES", "ENOENT"),
    "os.ftruncate": ("EIO", "EFBIG", "EINTR"),
    "os.truncate": ("EIO", "EFBIG", "EINTR"),
    "os.pipe": ("EMFILE", "ENFILE"),
    "os.splice": ("EAGAIN", "EIO", "EINTR", "ENOMEM", "EINVAL", "ECONNRESET", "EPIPE", "ETIMEDOUT", "end", "short"),
    "os.replace": ("EIO", "ENOSPC", "EACCES"),
    "os.unlink": ("EIO", "EACCES"),
    "fcntl.fcntl": ("EPERM", "EINVAL", "ENOMEM", "EBUSY"),
    "fcntl.ioctl": ("EIO", "ENOTTY", "EINVAL"),
    "zero._fallocate": ("EIO", "ENOSPC", "EINTR", "EOPNOTSUPP", "EINVAL", "ENODEV"),
    "mmap.mmap": ("ENOMEM",),
    "builtins.open": ("EMFILE", "EIO", "ENOENT", "EACCES", "ENOSPC"),
    "thread.start": ("thread",),
    "subprocess.Popen": ("EAGAIN", "ENOMEM", "EMFILE", "ENOENT"),
    "socket.dup": ("EMFILE", "ENFILE", "ENOMEM"),
    "socket.__init__": ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EAFNOSUPPORT"),
    "socket.accept": ("EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED", "EAGAIN", "EPERM"),
    "socket.connect": ("ECONNREFUSED", "ETIMEDOUT", "EAGAIN", "ENOENT", "EINTR", "ENOMEM"),
    "socket.connect_ex": ("ECONNREFUSED", "ETIMEDOUT", "ENOMEM"),
    "socket.recv": RECEIVE,
    "socket.recv_into": RECEIVE,
    "socket.send": SEND,
    "socket.sendall": ("EPIPE", "ECONNRESET", "EAGAIN", "ETIMEDOUT", "ENOMEM"),
    "socket.sendmsg": SEND,
    "socket.setsockopt": ("EINVAL", "ENOMEM", "ENOBUFS"),
    "socket.getsockopt": ("EINVAL", "ENOBUFS"),
    "socket.shutdown": ("ENOTCONN",),
    "socket.setblocking": ("EIO",),
    "socket.settimeout": ("EIO",),
    "tls.do_handshake": TLS,
    "tls.read": TLS,
    "tls.write": TLS,
    "tls.unwrap": TLS,
}
for _name, _faults in FAULTS.items():
    # A server that can accept no connection is not the concern of one client.
    if _name != "socket.accept":
        FAULTS[_name] = (*_faults, *(f"{fault}{EVER}" for fault in _faults if fault in LASTING))

# Of a call that is made more often, only the first ones and the last one fail.
FIRST = 3

MODULES = {"os": os, "fcntl": fcntl, "mmap": mmap, "builtins": builtins, "zero": zero, "subprocess": subprocess}
CLASSES: dict[str, type] = {"socket": socket.socket, "tls": ssl.SSLObject, "thread": threading.Thread}


class Call(NamedTuple):
    """One call of the package: who makes it, what it is, and the how manyth of those it is."""

    place: str
    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.place} {self.name} {self.number}"


class Seam:
    """See the module. In the whole process; only one at a time.

    Threads: `record` and `failing` by one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scope = contextlib.ExitStack()
        self._is_watching = False
        self._seen: Counter[tuple[str, str]] = Counter()
        self._victim: Optional[Call] = None
        self._fault = ""
        # How often the call that shall fail did.
        self.failures = 0

    def __enter__(self) -> Seam:
        with contextlib.ExitStack() as scope:
            for name in FAULTS:
                owner, _, attribute = name.partition(".")
                target = MODULES.get(owner) or CLASSES[owner]
                if hasattr(target, attribute):
                    self._replace(scope, target, attribute, name)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._scope.close()

    def record(self, operation: Callable[[], object]) -> list[Call]:
        """Return the calls that an operation makes."""
        with self._watching():
            operation()
        return [Call(*kind, number) for kind, count in sorted(self._seen.items()) for number in range(1, count + 1)]

    @contextlib.contextmanager
    def failing(self, victim: Call, fault: str) -> Iterator[None]:
        """Let a call fail in the with block, once, or from then on; `failures` tells whether it was made."""
        self.failures = 0
        self._victim, self._fault = victim, fault
        try:
            with self._watching():
                yield
        finally:
            self._victim = None

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        self._seen.clear()
        self._is_watching = True
        try:
            yield
        finally:
            self._is_watching = False

    def _replace(self, scope: contextlib.ExitStack, target: Any, attribute: str, name: str) -> None:
        real = getattr(target, attribute)
        is_own = attribute in vars(target)

        def call(*args: Any, **kwargs: Any) -> Any:
            # A socket for a descriptor that exists asks nothing of the system.
            if self._is_watching and "fileno" not in kwargs and self._note(name):
                return fail(self._fault.rstrip(EVER), name, real, args, kwargs)
            return real(*args, **kwargs)

        setattr(target, attribute, call)
        if is_own:
            scope.callback(setattr, target, attribute, real)
        else:
            scope.callback(delattr, target, attribute)

    def _note(self, name: str) -> bool:
        """Count a call; return True if it shall fail."""
        place = find_place()
        if place is None:
            return False
        with self._lock:
            self._seen[place, name] += 1
            victim, number = self._victim, self._seen[place, name]
            if victim is None or (place, name) != victim[:2] or number < victim.number:
                return False
            if number > victim.number and not self._fault.endswith(EVER):
                return False
            self.failures += 1
            return True


def find_place() -> Optional[str]:
    """Return which function of the package makes a call; None if another one does."""
    frame = sys._getframe(3)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        root = module.partition(".")[0]
        if root == PACKAGE:
            return f"{module.partition('.')[2]}.{frame.f_code.co_name}"
        if root in OTHERS:
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def fail(fault: str, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what a call does that fails."""
    if fault == "short":
        return real(*halved(name, args), **kwargs)
    if fault == "end":
        return b"" if name in ("socket.recv", "os.pread") else 0
    if fault == "thread":
        raise RuntimeError("can't start new thread")
    if fault == "SSL":
        error = ssl.SSLError(1, "[SSL: INTERNAL_ERROR] internal error (_ssl.c:1)")
        error.library, error.reason = "SSL", "INTERNAL_ERROR"
        raise error
    code = getattr(errno, fault)
    if name == "os.close":
        # Linux frees the descriptor whatever it says.
        real(*args, **kwargs)
    if name == "zero._fallocate":
        ctypes.set_errno(code)
        return -1
    if fault in LOST and name.startswith(("socket.recv", "socket.send")):
        # The connection is gone, for the other side as well.
        with contextlib.suppress(OSError):
            args[0].shutdown(socket.SHUT_RDWR)
    if name == "socket.connect_ex":
        return code
    raise OSError(code, os.strerror(code))


def halved(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call that does half of what was asked for."""
    first, second, *rest = args
    if name == "socket.recv":
        return (first, max(1, second // 2), *rest)
    if name in ("socket.recv_into", "socket.send"):
        return (first, half(second), *rest)
    if name == "socket.sendmsg":
        return (first, [half(second[0])], *rest)
    if name in ("os.preadv", "os.pwritev"):
        return (first, [half(second[0], 4096)], *rest)
    if name == "os.pwrite":
        return (first, half(second), *rest)
    assert name == "os.splice", name
    return (first, second, max(1, rest[0] // 2), *rest[1:])


def half(data: Any, block: int = 1) -> memoryview:
    """Return the first half, whole blocks if there are several; at least one."""
    view = memoryview(data)
    count = len(view) // 2
    count -= count % block
    return view[:count] if count else view


def chosen(calls: list[Call]) -> Iterator[tuple[Call, str]]:
    """Yield the calls that are worth to fail, with each fault."""
    last = {(call.place, call.name): call.number for call in calls}
    for call in calls:
        if call.number <= FIRST or call.number == last[call.place, call.name]:
            for fault in FAULTS[call.name]:
                if call.number == 1 or not fault.endswith(EVER):
                    yield call, fault
