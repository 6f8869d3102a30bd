"""Offer an image on a server to programs on this machine that speak NBD, as long as a with block runs.

    program ──NBD──> socket here ──> NBD through HTTP, or HTTP requests ──> server

Each connection of a program has a connection to the server of its own. When that one is lost, the connection of the
program ends, and the program may make another one.

Knows images and NBD; knows nothing of what the program does.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import select
import socket
import tempfile
import threading
import urllib.parse
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.net.lifeline import Lifeline, shut_down
from ovirt_imageio.net.stream import Data, Stream
from ovirt_imageio.ops.attach import Attach, make_offer

__all__ = ["Attachment", "ProgramGone"]

log = logging.getLogger(__name__)

# Programs that connect while we are busy wait here.
BACKLOG = 16

# Seconds until what is cut must have ended.
PATIENCE = 5.0

# Seconds that the first connection to the server waits for the first program, which then need not wait for another one.
# Whether it is still good after a long time only a time-out would tell: a firewall on the way may have forgotten it.
SPARE_LIFE = 5.0

# Seconds to wait when a program cannot be accepted: the next try would most likely fail, too.
PAUSE = 0.1

# A path, or host and port.
Address = Union[str, tuple[str, int]]


class ProgramGone(errors.Error):
    """The program here left without a good-bye."""


class Attachment:
    """An image at `uri`, for programs on this machine.

    `address` is the path of a Unix socket, by default in a private folder, or a host and port to listen on, port 0 for
    any. Whether the image can be written is for the server to decide, but for `read_only`. The first connection to the
    server becomes that of the first program, if one comes within `spare_life` seconds. Raises errors.InvalidValue if it
    is not possible to listen there, and what `remote` raises.

        with Attachment(remote) as attached:
            subprocess.run(["qemu-img", "info", attached.uri])

    Threads: one; connections have their own.
    """

    def __init__(
        self,
        remote: Remote,
        address: Optional[Address] = None,
        *,
        read_only: bool = False,
        spare_life: float = SPARE_LIFE,
    ) -> None:
        self._remote = remote
        self._address = address
        self._is_read_only = read_only
        self._spare_life = spare_life
        self._scope = contextlib.ExitStack()
        # Cut to end all connections.
        self._line = Lifeline()
        # Set when no more programs are accepted.
        self._is_closing = threading.Event()
        # Guards what follows.
        self._lock = threading.Lock()
        self._programs: dict[threading.Thread, socket.socket] = {}
        self.uri = ""

    def __enter__(self) -> Attachment:
        with contextlib.ExitStack() as scope:
            # The first connection tells whether there is such an image, and what it is.
            image = self._remote.connect()
            self._remote.spare(image)
            image.size()
            self._is_writable = image.abilities.is_writable and not self._is_read_only
            self._has_dirty = image.abilities.has_dirty
            listening = scope.enter_context(self._listen(scope))
            scope.callback(self._cut_all)
            accepting = threading.Thread(target=self._accept, args=(listening,), name="attach", daemon=True)
            accepting.start()
            scope.callback(accepting.join, PATIENCE)
            scope.callback(shut_down, listening)
            scope.callback(self._is_closing.set)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._scope.close()

    # --- The socket here ---------------------------------------------------------------------------------------------

    def _listen(self, scope: contextlib.ExitStack) -> socket.socket:
        """Return a listening socket, and know its URI."""
        address = self._address
        if address is None:
            address = os.path.join(scope.enter_context(tempfile.TemporaryDirectory(prefix="ovirt-img-")), "nbd.sock")
        family = socket.AF_UNIX if isinstance(address, str) else family_of(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if isinstance(address, tuple):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            if isinstance(address, str):
                scope.callback(remove, address)
                os.chmod(address, 0o600)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            expected = f"an address to listen on: {error.strerror or error}"
            raise errors.InvalidValue("address", address, expected) from None
        self.uri = uri_of(sock)
        return sock

    def _accept(self, listening: socket.socket) -> None:
        if not is_readable_within(listening, self._spare_life):
            self._remote.close()
        while not self._is_closing.is_set():
            try:
                sock, _ = listening.accept()
            except OSError as error:
                if not self._is_closing.is_set():
                    log.error("Cannot accept a program: %s; the limit of open files may be too low", error)
                    self._is_closing.wait(PAUSE)
                continue
            thread = threading.Thread(target=self._serve, args=(sock,), name="attach-program", daemon=True)
            with self._lock:
                self._programs[thread] = sock
            try:
                thread.start()
            except RuntimeError as error:
                log.error("Cannot start a thread for a program: %s", error)
                with self._lock:
                    del self._programs[thread]
                sock.close()

    def _cut_all(self) -> None:
        """End all connections."""
        self._line.cut()
        with self._lock:
            programs = dict(self._programs)
            for sock in programs.values():
                shut_down(sock)
        for thread in programs:
            thread.join(PATIENCE)

    # --- One program -------------------------------------------------------------------------------------------------

    def _serve(self, sock: socket.socket) -> None:
        try:
            self._attach(Program(sock))
        except ProgramGone:
            log.debug("A program left without a good-bye")
        except (errors.Error, OSError) as error:
            log.log(logging.DEBUG if self._line.is_cut else logging.WARNING, "The connection was cut: %s", error)
        finally:
            with self._lock:
                del self._programs[threading.current_thread()]
                sock.close()

    def _attach(self, program: Program) -> None:
        # A line of its own: cutting ours while it is held would wait for itself.
        line = Lifeline()
        with self._line.waking(line.cut):
            image = self._remote.open(line)
        backend = HttpBackend(image, writable=self._is_writable, dirty=self._has_dirty)
        with contextlib.closing(backend), self._line.waking(backend.interrupt):
            offer = make_offer(backend, backend.size(), [""], is_writable=self._is_writable)
            attach = Attach(backend, program, offer)
            attach.run()
            log.info("A program is done: %s", attach)


class Program:
    """The connection of a program here: it may be idle as long as it likes."""

    def __init__(self, sock: socket.socket) -> None:
        # By a proxy: two that hold each other would stay until the cyclic collector comes.
        self.stream = Stream(sock, None, weakref.proxy(self))

    def wait(self, view: memoryview) -> int:
        """Read at least one byte of the next request; return how many, 0 at the end."""
        return self.stream.readinto(view)

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte of what the program has begun; return how many, 0 at the end."""
        return self.stream.readinto(view)

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send all parts."""
        self.stream.send_parts(parts)

    # What the stream calls its failures.

    def late(self, is_sending: bool, seconds: float) -> Exception:
        """Return the error for a program that stands still."""
        return ProgramGone(f"it stood still for {seconds:g} seconds")

    def broken(self, is_sending: bool, reason: str) -> Exception:
        """Return the error for a connection that ended."""
        return ProgramGone(reason)

    def interrupted(self) -> Exception:
        """Return the error for a connection that we ended."""
        return ProgramGone("it was cut")


def family_of(address: tuple[str, int]) -> int:
    """Return the family of a loopback host; with another one, any machine could have the disk.

    Raises errors.InvalidValue.
    """
    try:
        family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise errors.InvalidValue("host", address[0], f"a name of this machine: {error.strerror}") from None
    if not ipaddress.ip_address(found[0]).is_loopback:
        raise errors.InvalidValue("host", address[0], "localhost, 127.0.0.1 or ::1, as NBD has no passwords")
    return int(family)


def uri_of(sock: socket.socket) -> str:
    """Return how NBD programs name a listening socket."""
    if sock.family == socket.AF_UNIX:
        return f"nbd+unix:///?socket={urllib.parse.quote(str(sock.getsockname()))}"
    host, port = sock.getsockname()[:2]
    return f"nbd://[{host}]:{port}" if ":" in host else f"nbd://{host}:{port}"


def is_readable_within(sock: socket.socket, seconds: float) -> bool:
    """Wait until there is something to read or to accept, or an end; return False if there was none in time."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def remove(path: str) -> None:
    """Remove the file of our socket."""
    with contextlib.suppress(OSError):
        os.unlink(path)
