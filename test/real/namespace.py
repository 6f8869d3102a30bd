"""Processes in namespaces of their own, all of which end together. It takes root.

    process = subprocess.Popen([*namespace.COMMAND, "sh", "-c", "mount -t tmpfs none /run && ..."])
    namespace.kill(process)

Threads: one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["COMMAND", "available", "kill"]

# What it starts has its own mounts and processes; the first one ends the others.
COMMAND = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def available() -> bool:
    """Return True if this system lets us have them."""
    return os.geteuid() == 0 and subprocess.run([*COMMAND, "true"], capture_output=True, check=False).returncode == 0


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill all processes that COMMAND started, and return when they are gone, with their connections."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    process.wait()
