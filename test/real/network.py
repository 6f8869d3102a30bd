"""A network of its own: programs in it reach this machine by one name, at one address of each family, and nothing else.

if network.available():
    with network.apart() as network:
        subprocess.run([*network.command, "curl", f"https://{network.address}:54323/"])
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fakes.waiting import DEADLINE

__all__ = ["Network", "apart", "available"]

# What this machine is called there: a certificate for its name is good.
HOST = socket.gethostname()


class Network(NamedTuple):
    """`address` is where this machine is in that network; `command` runs another command in it."""

    address: str
    command: tuple[str, ...]
    # The same place by IPv6, and by a name that only programs in the network know.
    address6: str
    name: str
    # Where servers in that network are, as this machine sees it.
    there: str


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
    # Of 2001:db8::/32, which is for documentation.
    here6, there6 = (f"2001:db8:{number:x}::{end}" for end in (1, 2))
    # `ip netns exec` lays what is here over /etc.
    files = Path("/etc/netns", name)
    ip("netns", "add", name)
    try:
        files.mkdir(parents=True)
        (files / "hosts").write_text(f"127.0.0.1 localhost\n{here} {HOST}\n")
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("address", "add", f"{here}/30", "dev", near)
        ip("address", "add", f"{here6}/64", "dev", near, "nodad")
        ip("link", "set", near, "up")
        ip("-n", name, "address", "add", f"{there}/30", "dev", far)
        ip("-n", name, "address", "add", f"{there6}/64", "dev", far, "nodad")
        ip("-n", name, "link", "set", far, "up")
        yield Network(here, ("ip", "netns", "exec", name), here6, HOST, there)
    finally:
        shutil.rmtree(files, ignore_errors=True)
        # The devices go with the namespace, later; that is not waited for.
        subprocess.run(["ip", "link", "delete", near], capture_output=True, check=False)
        ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """Run ip."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=DEADLINE)
