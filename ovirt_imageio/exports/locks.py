"""Whether somebody else keeps an image in Ceph for himself.

Two clients that may write one image pass its exclusive lock to one another, so both can work. A lock that was taken by
hand, or by a kernel that maps the image for itself, is not passed on: then each write would wait without end. The `rbd`
program tells of it; where that is not installed, a lock is noticed by its time-out.

Knows the program and what it prints.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ovirt_imageio import errors

__all__ = ["check"]

# Locks that librbd takes by itself, and passes on.
OWN = "auto "


def check(node: Mapping[str, Any], timeout: float, wrapper: Sequence[str] = ()) -> None:
    """Raise errors.BackendUnavailable if an image, which the node of qemu names, is locked by somebody else."""
    if node.get("driver") != "rbd" or "snapshot" in node:
        return
    names = [node["pool"], *([node["namespace"]] if "namespace" in node else []), node["image"]]
    options = [f"--{option}={node[key]}" for option, key in (("id", "user"), ("conf", "conf")) if key in node]
    command = [*wrapper, "rbd", "lock", "ls", "--format=json", *options, "--", "/".join(names)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout)
        found = json.loads(done.stdout)
        lockers = [str(lock["id"]) for lock in found if not str(lock["id"]).startswith(OWN)]
    except (OSError, ValueError, TypeError, KeyError, subprocess.TimeoutExpired):
        # qemu-nbd will tell what is wrong.
        return
    if lockers:
        text = errors.printable(", ".join(lockers))
        raise errors.BackendUnavailable(
            "write the image", f"another program has locked it: {text}; end that, or remove the lock with `rbd lock rm`"
        )
