"""Which programs of qemu are installed, and what they can do.

Knows the programs and what they print; knows nothing of images.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess

from ovirt_imageio import errors

__all__ = ["DEPTH_SINCE", "Version", "explained", "program", "version"]

# A tuple of integers can be compared: version() >= DEPTH_SINCE.
Version = tuple[int, ...]

# The first qemu that reports allocation depth, and lets a node have no backing file in an export.
DEPTH_SINCE: Version = (5, 2)

# What they say of a driver that is in a package of its own.
NO_DRIVER = re.compile(r"Unknown (?:driver|protocol) '(rbd|iscsi|nfs|https?|ftps?|ssh|gluster)'")


def explained(text: str) -> str:
    """Return what a program of qemu said, with what to do about a driver that is missing."""
    found = NO_DRIVER.search(text)
    if not found:
        return text
    package = {"http": "curl", "https": "curl", "ftp": "curl", "ftps": "curl"}.get(found[1], found[1])
    return f"{text.strip()}; install qemu-block-extra (Debian) or qemu-block-{package} (Fedora and others)"


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
