"""Start and stop qemu-nbd, which serves an image of any format as a raw disk.

    with QemuNbd("disk.qcow2", "qcow2", read_only=True) as server:
        connect(server.url)

Knows processes and the command line of qemu-nbd; knows nothing of the protocol that it speaks.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.qemu.node import as_json, image_spec, secret_options
from ovirt_imageio.qemu.version import DEPTH_SINCE, explained, program, version

__all__ = ["QemuNbd", "has_setpriv"]

log = logging.getLogger("qemu_nbd")

# What it says of an image that another program has open.
LOCKED = re.compile(r"Is another process using the image \[(.*)\]\?")
# How often we look whether qemu-nbd is ready: it takes some 20 ms.
READY_POLL = 0.005
# How often we ask it to end.
END_POLL = 0.5
# How long one that never was ready may take to end: it may wait for storage that does not answer.
UNREADY_TIMEOUT = 2.0
# How much of what qemu-nbd said goes into an error.
OUTPUT_LIMIT = 1000

# Unix socket, or host and port.
Listen = Union[str, tuple[str, int]]
# An image as a tree of options; node.py tells.
Node = Mapping[str, Any]


@dataclass
class QemuNbd:
    """A qemu-nbd that serves one image until stop().

    Ctrl-C does not reach it, as it has its own session; when it was started by the main thread and we are killed,
    the kernel ends it too.

    Threads: one.
    """

    # What is served. Without a format qemu looks for one, which is not safe for an image that a guest could write.
    # Without a path it is `image` alone, on storage of a network.
    path: str
    format: Optional[str] = None
    # Where: None means a socket in a private temporary directory.
    listen: Optional[Listen] = None
    export_name: str = ""
    read_only: bool = False
    # How many clients may be connected at once; one more waits. 0 means any number.
    shared: int = 8
    # None: "none" and "native" if the image can be opened with O_DIRECT, else "writeback" and "threads".
    cache: Optional[str] = None
    aio: Optional[str] = None
    discard: Optional[str] = "unmap"
    detect_zeroes: Optional[str] = "unmap"
    bitmap: Optional[str] = None
    # False: only the top image of a chain, its holes show.
    backing_chain: bool = True
    # Serve this part of the file: a member of an archive.
    offset: Optional[int] = None
    size: Optional[int] = None
    # How qemu shall open it, if that is not the file at path in its format.
    image: Optional[Node] = None
    # A file with the passphrase of an encrypted image.
    secret: Optional[str] = None
    # The command that runs qemu-nbd, and becomes it or ends it when it is ended itself.
    wrapper: Sequence[str] = ()
    # For the start, and for the end before we get rough.
    timeout: float = 30.0
    _scope: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False, repr=False)
    _address: Optional[Listen] = field(default=None, init=False, repr=False)
    _process: Optional[subprocess.Popen[bytes]] = field(default=None, init=False, repr=False)
    _is_ready: bool = field(default=False, init=False, repr=False)

    @property
    def url(self) -> str:
        """The NBD URL of the export, once started."""
        assert self._address, "not started"
        name = f":exportname={self.export_name}" if self.export_name else ""
        if isinstance(self._address, str):
            return f"nbd:unix:{self._address}{name}"
        host, port = self._address
        return f"nbd:[{host}]:{port}{name}" if ":" in host else f"nbd:{host}:{port}{name}"

    @property
    def pid(self) -> int:
        """The process id of qemu-nbd, while it runs."""
        assert self._process, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True from start() until stop(), unless qemu-nbd ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start qemu-nbd and return when it listens.

        Raises errors.BackendUnavailable with what qemu-nbd said, or errors.BackendTimeout.
        """
        assert self._process is None, "started twice"
        with contextlib.ExitStack() as scope:
            directory = Path(tempfile.mkdtemp(prefix="imageio-"))
            # Ctrl-C may interrupt the first one.
            for _ in range(2):
                scope.callback(shutil.rmtree, directory, ignore_errors=True)
            self._address = self.listen or str(directory / "sock")
            command = [
                *death_wrapper(),
                *self.wrapper,
                *self._command(),
                f"--pid-file={directory / 'pid'}",
                self._image(),
            ]
            log.debug("Starting %s", command)
            self._process = spawn(command, directory / "output")
            scope.callback(self._end)
            self._wait_ready(directory)
            self._is_ready = True
            self._scope = scope.pop_all()
        log.info("Started qemu-nbd pid=%d url=%s", self.pid, self.url)

    def stop(self) -> None:
        """Ask qemu-nbd to end, insist after the timeout, and remove what it left; harmless when repeated."""
        self._scope.close()

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait until qemu-nbd ends by itself; return its exit status. Raises subprocess.TimeoutExpired."""
        assert self._process, "not started"
        return self._process.wait(timeout)

    def send_signal(self, number: int) -> None:
        """Send a signal to qemu-nbd."""
        assert self._process, "not started"
        self._process.send_signal(number)

    def __enter__(self) -> QemuNbd:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def _command(self) -> list[str]:
        """Return the command line without the image."""
        has_depth = version() >= DEPTH_SINCE
        is_direct = self.cache is None and can_open_direct(self.path, self.read_only)
        # Storage of a network has caches of its own, and other clients.
        cache = self.cache or ("none" if is_direct or not self.path else "writeback")
        options: dict[str, object] = {
            "export-name": self.export_name,
            "shared": self.shared,
            "cache": cache,
            "aio": self.aio or ("native" if cache == "none" and self.path else "threads"),
            "discard": self.discard,
            "detect-zeroes": self.detect_zeroes,
            "bitmap": self.bitmap,
        }
        if isinstance(self._address, tuple):
            options["bind"], options["port"] = self._address
        else:
            options["socket"] = self._address
        command = [program(), "--persistent"]
        command += [f"--{name}={value}" for name, value in options.items() if value is not None]
        command += secret_options(self.secret)
        if self.read_only:
            command.append("--read-only")
        # With raw images qemu 6.2 reports wrong extents when it is asked for the depth; they have no depth anyway.
        if has_depth and self.format != "raw":
            command.append("--allocation-depth")
        return command

    def _image(self) -> str:
        if self.image is not None:
            return as_json(self.image)
        return image_spec(self.path, self.format, offset=self.offset, size=self.size, backing_chain=self.backing_chain)

    def _wait_ready(self, directory: Path) -> None:
        """Wait for the pid file: qemu-nbd writes it when it listens."""
        assert self._process
        deadline = time.monotonic() + self.timeout
        while not (directory / "pid").exists():
            if self._process.poll() is not None:
                raise errors.BackendUnavailable("start qemu-nbd", reason_in(directory / "output"))
            if time.monotonic() > deadline:
                raise errors.BackendTimeout("start qemu-nbd", f"it was not ready after {self.timeout:g} seconds")
            time.sleep(READY_POLL)

    def _end(self) -> None:
        """End the process, whatever its state."""
        process, self._process = self._process, None
        was_ready, self._is_ready = self._is_ready, False
        assert process
        # What is not ready has nothing to write.
        deadline = time.monotonic() + (self.timeout if was_ready else min(self.timeout, UNREADY_TIMEOUT))
        status = None
        while status is None and time.monotonic() < deadline:
            # Again: while it starts, it forgets that it was asked to end.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(min(END_POLL, self.timeout))
        if status is None:
            log.warning("qemu-nbd pid=%d does not end, killing it", process.pid)
            process.kill()
            status = process.wait()
        # What ended before it was ready said why: that is the error of the start.
        level = logging.WARNING if status and was_ready else logging.INFO
        log.log(level, "Stopped qemu-nbd pid=%d status=%d", process.pid, status)


def can_open_direct(path: str, read_only: bool) -> bool:
    """Tell whether the file system of path does direct I/O."""
    flags = os.O_RDONLY if read_only else os.O_RDWR
    try:
        os.close(os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC))
    except OSError:
        # Whatever else is wrong: qemu-nbd finds it too, and says so.
        return False
    return True


def death_wrapper() -> list[str]:
    """Return the beginning of a command whose process ends when we are killed.

    The kernel watches the thread that forks (PR_SET_PDEATHSIG in prctl(2)). Other threads than the main one may end
    long before the process does: what they start is not watched.
    """
    if threading.current_thread() is not threading.main_thread() or not has_setpriv():
        return []
    return ["setpriv", "--pdeathsig", "TERM", "--"]


@functools.cache
def has_setpriv() -> bool:
    """Tell whether there is a setpriv that knows the option; the one of busybox does not."""
    if not shutil.which("setpriv"):
        return False
    probe = ["setpriv", "--pdeathsig", "TERM", "--", "true"]
    return subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, with what it says going to a file: a pipe could fill and block it."""
    with open(output, "wb") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )


def reason_in(output: Path) -> str:
    """Return what qemu-nbd complained about, without its name in front of each line."""
    text = output.read_bytes()[-OUTPUT_LIMIT:].decode(errors="replace")
    locked = LOCKED.search(text)
    if locked:
        # A network driver, or an image that is named by a tree, shows that.
        if locked[1].startswith("json:"):
            return "another program uses the image, such as a virtual machine or another transfer; end that first"
        # qemu-nbd quotes the node that it was told, and asks a question.
        return f"another program uses {locked[1]}, such as a virtual machine or another transfer; end that first"
    lines = [re.sub(r"^\S*qemu-nbd: ", "", line) for line in text.splitlines()]
    return explained(" ".join(line for line in lines if line)) or "it ended without a word"
