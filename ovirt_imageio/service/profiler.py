"""The profiler of the process: yappi, where it is installed.

Knows nothing of HTTP.
"""

from __future__ import annotations

import importlib
import logging
import threading
from types import ModuleType
from typing import Any, Callable

from ovirt_imageio import errors

__all__ = ["CLOCKS", "Profiler"]

log = logging.getLogger("profile")

CLOCKS = ("cpu", "wall")


class Profiler:
    """Profiles all threads, and writes what it found to a file that pstats reads.

    There is one profiler in a process, so make only one of these. Every method raises errors.NotFound without yappi.

    Threads: any number at once.
    """

    def __init__(self, filename: str, load: Callable[[str], ModuleType] = importlib.import_module) -> None:
        self._filename = filename
        self._load = load
        self._lock = threading.Lock()

    def is_running(self) -> bool:
        """Return True between start and stop."""
        running: bool = self._yappi().is_running()
        return running

    def start(self, clock: str) -> None:
        """Start to measure "cpu" or "wall" time. Raises errors.InvalidValue if it runs already."""
        assert clock in CLOCKS, clock
        yappi = self._yappi()
        with self._lock:
            if yappi.is_running():
                raise errors.InvalidValue("run", "y", "n: the profiler is running already")
            yappi.set_clock_type(clock)
            yappi.start(builtins=True, profile_threads=True)
        log.info("Profiling started clock=%s", clock)

    def stop(self) -> None:
        """Stop, and write the file. Raises errors.InvalidValue if it does not run, errors.StorageError."""
        yappi = self._yappi()
        with self._lock:
            if not yappi.is_running():
                raise errors.InvalidValue("run", "n", "y: the profiler is not running")
            yappi.stop()
            try:
                yappi.get_func_stats().save(self._filename, type="pstat")
            except OSError as error:
                raise errors.storage_error("write the profile", error) from error
            finally:
                yappi.clear_stats()
        log.info("Profiling stopped filename=%s", self._filename)

    def _yappi(self) -> Any:
        try:
            return self._load("yappi")
        except ImportError:
            raise errors.NotFound("profiler: the module yappi is not installed") from None
