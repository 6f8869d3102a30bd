"""Create images and look at them, with qemu-img.

Knows the command line of qemu-img and what it prints; knows nothing of what serves the image.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.qemu.node import secret_options
from ovirt_imageio.qemu.version import explained

__all__ = ["convert", "create", "info", "measure", "require"]


def create(
    path: str,
    format: str,
    size: Optional[int] = None,
    *,
    backing_file: Optional[str] = None,
    backing_format: Optional[str] = None,
) -> None:
    """Create an image; without a size it gets the one of its backing file.

    What is at path already is overwritten. Raises errors.BackendUnavailable with what qemu-img said.
    """
    command = ["create", "-q", "-f", format]
    if backing_file:
        command += ["-b", backing_file]
    if backing_format:
        command += ["-F", backing_format]
    run("create the image", [*command, "--", path, *([] if size is None else [str(size)])])


def info(
    path: str,
    format: Optional[str] = None,
    *,
    secret: Optional[str] = None,
    timeout: Optional[float] = None,
    wrapper: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what qemu-img knows of an image, among it "format" and "virtual-size".

    path: or a tree of nodes, as qemu names one. secret: a file with the passphrase of an encrypted image. wrapper: the
    command that runs qemu-img.

    Works on an image that is in use. Without a format qemu-img looks for one. Raises errors.BackendUnavailable with
    what qemu-img said, errors.BackendTimeout after `timeout` seconds.
    """
    known = ["-f", format] if format else []
    operation = "look at the image"
    options = ["-U", "--output", "json", *secret_options(secret), *known]
    return parse(operation, run(operation, ["info", *options, "--", path], timeout, wrapper))


def convert(path: str, format: str, target: str, target_format: str) -> None:
    """Copy a disk into a new image. Raises errors.BackendUnavailable with what qemu-img said."""
    run("convert the image", ["convert", "-f", format, "-O", target_format, "--", path, target])


def measure(path: str, target: str, format: Optional[str] = None) -> dict[str, Any]:
    """Return how much space an image needs in the `target` format: "required" and "fully-allocated".

    Without a format qemu-img looks for one. Raises errors.BackendUnavailable with what qemu-img said.
    """
    known = ["-f", format] if format else []
    operation = "measure the image"
    return parse(operation, run(operation, ["measure", "-U", "--output", "json", *known, "-O", target, "--", path]))


def require() -> None:
    """Raise errors.BackendUnavailable if there is no qemu-img: for what needs it late."""
    if shutil.which("qemu-img") is None:
        raise missing("use images", FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def missing(operation: str, error: OSError) -> errors.BackendUnavailable:
    """Return the error for a qemu-img that cannot be run."""
    reason = f"cannot run qemu-img: {error.strerror}; install it (qemu-utils or qemu-img)"
    return errors.BackendUnavailable(operation, reason, error.errno)


def run(operation: str, arguments: list[str], timeout: Optional[float] = None, wrapper: Sequence[str] = ()) -> bytes:
    """Run qemu-img; return what it prints."""
    command = [*wrapper, "qemu-img", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=timeout)
    except OSError as error:
        raise missing(operation, error) from None
    except subprocess.TimeoutExpired:
        raise errors.BackendTimeout(operation, f"qemu-img was not done after {timeout:g} seconds") from None
    if done.returncode != 0:
        reason = errors.printable(explained(done.stderr.decode(errors="replace").replace("qemu-img: ", "")))
        raise errors.BackendUnavailable(operation, reason or f"qemu-img ended with status {done.returncode}")
    return done.stdout


def parse(operation: str, answer: bytes) -> dict[str, Any]:
    """Return the JSON object that qemu-img printed."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise errors.BackendUnavailable(operation, "qemu-img printed something that is not a JSON object")
    return value
