"""A connection to an engine, through its SDK.

Knows the SDK and its errors; knows nothing of disks and transfers.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Callable, Optional

from ovirt_imageio.errors import Error

__all__ = ["Engine", "EngineError", "Login", "NoSuchThing", "held_interrupts", "load_sdk"]

log = logging.getLogger(__name__)

# Seconds until the engine must have answered: it locks disks and asks hosts before it does.
REQUEST_TIMEOUT = 60

# Seconds between two looks at something that changes.
PAUSE = 1.0

# What the SDK says of a request that libcurl could not carry out: a number, and at times the address of an object.
CURL_FAILURE = re.compile(r"""\((?:<[^>]*>, )?\d+, (['"])(.*)\1\)""")

UNTRUSTED = "; if this is the right engine, name the file with its authority with --cafile FILE"


@dataclass(eq=False)
class EngineError(Error):
    """The engine refused, or cannot be reached, or has not done what it should."""

    message: str

    def __str__(self) -> str:
        return self.message


class NoSuchThing(EngineError):
    """The engine does not know what it was asked for."""


@dataclass(frozen=True)
class Login:
    """Where an engine is, and as which user we ask. The password is not part of the text form."""

    url: str
    username: str
    password: str = field(repr=False)
    cafile: Optional[str] = None
    secure: bool = True


class Engine:
    """An engine that knows the user. The caller closes it.

    `types` are those of the SDK, `system` is the root of its services; what is asked of them is asked inside asking().

    Threads: any; the SDK sends one request after the other.
    """

    def __init__(
        self,
        login: Login,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sdk = load_sdk()
        self._now = now
        self._sleep = sleep
        self._url = login.url
        self.types = self._sdk.types
        with self.asking("log in"):
            # In its debug mode the SDK would log the password.
            self._connection = self._sdk.Connection(
                url=f"{login.url}/ovirt-engine/api",
                username=login.username,
                password=login.password,
                ca_file=login.cafile,
                insecure=not login.secure,
                timeout=REQUEST_TIMEOUT,
            )
            self._connection.authenticate()
        self.system: Any = self._connection.system_service()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Log out; an engine that is gone is not asked twice."""
        try:
            with self.asking("log out"):
                self._connection.close()
        except EngineError as error:
            log.debug("%s", error)

    @contextlib.contextmanager
    def asking(self, action: str) -> Iterator[None]:
        """Turn the errors of the SDK into EngineError: what failed, and the words of the engine."""
        sdk = self._sdk
        try:
            yield
        except sdk.NotFoundError as error:
            raise NoSuchThing(f"Cannot {action}: {words(error)}") from error
        except (sdk.ConnectionError, sdk.TimeoutError) as error:
            raise EngineError(f"Cannot {action}: the engine at {self._url} does not answer: {words(error)}") from error
        except sdk.AuthError as error:
            raise EngineError(f"Cannot {action}: the engine refuses the user: {words(error)}") from error
        # A server that is not an engine answers with anything, and a signal may end the wait for it.
        except (sdk.Error, ValueError, OSError) as error:
            raise EngineError(f"Cannot {action}: {words(error)}") from error

    def looks(self, seconds: float) -> Iterator[None]:
        """Yield at once, and then each second, until the time is over."""
        end = self._now() + seconds
        yield
        while self._now() < end:
            self._sleep(PAUSE)
            yield


def load_sdk() -> Any:
    """Return the SDK. Raises EngineError, with what to install."""
    try:
        sdk = importlib.import_module("ovirtsdk4")
        importlib.import_module("ovirtsdk4.types")
    except ImportError as error:
        raise EngineError(
            f"The engine SDK cannot be loaded ({error}); install the package python3-ovirt-engine-sdk4, or run"
            " pip install ovirt-engine-sdk-python"
        ) from error
    return sdk


def words(error: Exception) -> str:
    """Return what the engine said, in one line."""
    fault = getattr(error, "fault", None)
    text = (fault and (fault.detail or fault.reason)) or str(error)
    found = CURL_FAILURE.search(text)
    line = " ".join((found[2] if found else text).split()).strip("[]")
    return line + UNTRUSTED if found and "certificate" in line else line


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is done.

    Around what makes something in the engine: an interrupt in the middle would leave something that nothing removes.

    Threads: the main thread.
    """
    caught: list[int] = []

    def catch(number: int, frame: Optional[FrameType]) -> None:
        caught.append(number)

    former = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    # libcurl gives up when a signal comes; another thread does not mind it.
    signal.pthread_sigmask(signal.SIG_BLOCK, former)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, former)
        for number, handler in former.items():
            signal.signal(number, handler)
        for caught_number in caught:
            signal.raise_signal(caught_number)
