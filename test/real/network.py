"""A network of its own: programs in it reach this machine at one address, and nothing else.

if network.available():
    with network.apart() as network:
        subprocess.run([*network.command, "curl", f"https://{network.address}:54323/"])
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from fakes.waiting import DEADLINE

__all__ = ["Network", "apart", "available"]


class Network(NamedTuple):
    """`address` is where this machine is in that network; `command` runs another command in it."""

    address: str
    command: tuple[str, ...]


def available() -> bool:
    """Return True if such a network can be made."""
    if os.geteuid() or not shutil.which("ip"):
        return False
    try:
        with apart():
            return True
    except subprocess.CalledProcessError:
        return False  # As in most containers.


@contextlib.contextmanager
def apart() -> Iterator[Network]:
    """Make a network namespace and a pair of devices between it and us; both go when the context is left."""
    pid = os.getpid()
    name, near, far = f"imageio-{pid}", f"imgn{pid}", f"imgf{pid}"
    # Of 198.18.0.0/15, which RFC 2544 leaves to tests, in pieces of four addresses: two of them are ends.
    number = pid % 2**14 * 4
    here, there = (f"198.18.{(number + end) >> 8}.{(number + end) & 255}" for end in (1, 2))
    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("address", "add", f"{here}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "address", "add", f"{there}/30", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        yield Network(here, ("ip", "netns", "exec", name))
    finally:
        # The devices go with the namespace, later; nobody has to wait for that.
        subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
        ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=DEADLINE)
