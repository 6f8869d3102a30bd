"""Which qemu-nbd is installed, and what it can do.

Knows the program and what it prints; knows nothing of images.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess

from ovirt_imageio import errors

__all__ = ["DEPTH_SINCE", "Version", "program", "version"]

# A tuple of integers can be compared: version() >= DEPTH_SINCE.
Version = tuple[int, ...]

# The first qemu that reports allocation depth, and lets a node have no backing file in an export.
DEPTH_SINCE: Version = (5, 2)


def program() -> str:
    """Return the program to start."""
    return os.environ.get("QEMU_NBD", "qemu-nbd")


def version() -> Version:
    """Return the version of qemu-nbd. Raises errors.BackendUnavailable if it is not installed."""
    return version_of(program())


@functools.cache
def version_of(name: str) -> Version:
    """Ask the program for its version: the first dotted number that it prints."""
    try:
        done = subprocess.run([name, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"cannot run {name}: {error}; install it (qemu-utils or qemu-img), or set QEMU_NBD"
        raise errors.BackendUnavailable("start qemu-nbd", reason) from None
    found = re.search(r"\d+(\.\d+)+", done.stdout.decode(errors="replace"))
    return tuple(map(int, found[0].split("."))) if found else ()
