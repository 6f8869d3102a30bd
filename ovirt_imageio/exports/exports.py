"""The images that are served for tickets: one qemu-nbd for each, shared by all connections to it.

    open()   the first one starts the server, the others join it
    close()  of the last one: it ends after `idle_seconds`, with the ticket, or at once if a request failed

A request that fails, or is not answered in time, may be the first of many: qemu opens no second ssh connection, and
waits for minutes on an NFS connection whose other end was restarted. A new server does better.

A server belongs to what it was started as: a format, and reading alone or not. One that writes serves those that read,
too; one that only reads gives way to one that writes when no client reads.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends import image
from ovirt_imageio.backends.allowed import Allowed, canonical
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.qemu.nbd import has_setpriv

__all__ = ["Exports"]

log = logging.getLogger("exports")

MESSAGE_LIMIT = 64 * 1024

# An attendant ends a start by itself; this much later it is given up. A busy machine delays it.
MARGIN = 15.0
# How long a server may write what it has; then no thread waits for it any more.
END_SECONDS = 30.0

# The environment of the daemon that is not that of its children.
NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

STARTER = "import sys; sys.path[:] = {path!r}; from ovirt_imageio.exports.helper import main; main()"


class Server:
    """The server of an image. Guarded by the lock of Exports."""

    def __init__(self, writable: bool) -> None:
        self.writable = writable
        self.users = 0
        self.has_failed = False
        # True while a thread starts or ends it; while one ends it.
        self.is_busy = True
        self.is_ending = False
        self.url = ""
        self.pid = 0
        self.channel: Optional[socket.socket] = None
        self.timer: Optional[threading.Timer] = None

    def has_ended(self) -> bool:
        """Return True if the attendant is gone, and the server with it."""
        assert self.channel is not None
        try:
            return self.channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class Held:
    """One use of a server."""

    def __init__(self, exports: Exports, disk: str, server: Server) -> None:
        self._leave: Optional[functools.partial[None]] = functools.partial(exports.leave, disk, server)
        self.url = server.url

    def close(self, has_failed: bool = False) -> None:
        """Let the server end, unless another client needs it; at once if it failed. Harmless when repeated."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(has_failed)


class Exports:
    """See the module. Starts a helper, which becomes another user if the settings say so.

    Raises OSError if the helper cannot start.

    Threads: any number at once.

    Locks: _changed guards everything; nothing that blocks is done with it.
    """

    def __init__(self, settings: Settings, idle_seconds: float = 10, inherit: Iterable[int] = ()) -> None:
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._allowed = Allowed(settings.allow)
        self._changed = threading.Condition()
        # By the one spelling of their URL.
        self._servers: dict[str, Server] = {}
        self._is_closed = False
        self._helper, self._channel = start_helper(settings, tuple(inherit))

    @property
    def pids(self) -> list[int]:
        """The processes of the servers that run."""
        with self._changed:
            return [server.pid for server in self._servers.values() if not server.is_busy]

    def check(self, url: str) -> None:
        """Raise errors.InvalidValue if a ticket may not name this image."""
        disk = image.parse(url)
        if not self._allowed.permits(disk.url.text):
            raise errors.InvalidValue("url", url, "an image that [export] allow permits")
        if disk.secret is not None and self._settings.secrets_dir is None:
            raise errors.InvalidValue("url", url, "an image without a secret, or [export] secrets_dir to be set")

    def open(self, url: str, *, writable: bool, line: Lifeline) -> Held:
        """Return a server of the image; cutting the line ends the wait for it.

        Raises errors.BackendUnavailable, errors.BackendTimeout, errors.InvalidValue, or OSError if the line was cut.
        """
        self.check(url)
        disk = canonical(url)
        while True:
            with line.waking(self._wake):
                server = self._find(disk, writable, line)
            if server is not None:
                break
            self.end_idle(url)
        if server.url:
            return Held(self, disk, server)
        try:
            self._start(url, server, line)
        except BaseException:
            self._forget(disk, server)
            raise
        with self._changed:
            server.is_busy = False
            self._changed.notify_all()
        log.info("START image=%s pid=%d", shown(disk), server.pid)
        return Held(self, disk, server)

    def leave(self, disk: str, server: Server, has_failed: bool) -> None:
        """End a use of a server."""
        with self._changed:
            server.users -= 1
            server.has_failed |= has_failed
            if server.users or self._servers.get(disk) is not server:
                return
            seconds = 0 if server.has_failed else self._idle_seconds
            server.timer = threading.Timer(seconds, self._end_idle, (disk, server))
            server.timer.name, server.timer.daemon = "idle image", True
            with contextlib.suppress(RuntimeError):
                server.timer.start()
                return
        # There are no more threads: nothing would end it later.
        self._end_idle(disk, server)

    def end_idle(self, url: str) -> None:
        """End the server of an image now unless a client uses it: a ticket that named it is gone.

        It has ended when this returns, also if another thread ends it just now.
        """
        with contextlib.suppress(errors.InvalidValue):
            disk = canonical(url)
            with self._changed:
                server = self._servers.get(disk)
            if server is not None:
                self._end_idle(disk, server)

    def close(self) -> None:
        """End all servers, and the helper; called when nothing uses them."""
        with self._changed:
            self._is_closed = True
            servers = [server for server in self._servers.values() if server.channel is not None]
            for server in servers:
                if server.timer is not None:
                    server.timer.cancel()
            self._changed.notify_all()
        # All at once, so that together they take no longer than one.
        for server in servers:
            hang_up(server)
        deadline = time.monotonic() + END_SECONDS
        for server in servers:
            await_end(server, deadline - time.monotonic())
            assert server.channel is not None
            server.channel.close()
        with self._changed:
            self._servers.clear()
        self._channel.close()
        try:
            self._helper.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("A server of an image does not end, going on")
        # The helper has removed what was in it. Of another user, it is in a folder of ours.
        with contextlib.suppress(OSError):
            os.rmdir(self._settings.folder)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _find(self, disk: str, writable: bool, line: Lifeline) -> Optional[Server]:
        """Return the server of an image, or a new one that the caller has to start; None if one has to end before."""
        with self._changed:
            while True:
                line.check()
                if self._is_closed:
                    raise errors.ServiceStops()
                server = self._servers.get(disk)
                if server is None:
                    server = self._servers[disk] = Server(writable)
                    server.users = 1
                    return server
                if server.is_busy:
                    self._changed.wait()
                elif server.has_ended():
                    log.warning("The server of an image ended by itself image=%s pid=%d", shown(disk), server.pid)
                    self._drop(disk, server)
                elif server.writable or not writable:
                    if server.timer is not None:
                        server.timer.cancel()
                    server.users += 1
                    return server
                elif server.users:
                    reason = "it is read through another ticket, which does not permit to write; try again after that"
                    raise errors.BackendUnavailable("write the image", reason)
                else:
                    return None

    def _start(self, url: str, server: Server, line: Lifeline) -> None:
        """Start a server. Raises errors.Error, or OSError if the line was cut."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(ours.close)
            order = {"image": url, "writable": server.writable}
            try:
                # In one piece: threads need not take turns.
                socket.send_fds(self._channel, [json.dumps(order).encode()], [theirs.fileno()])
            except OSError as error:
                reason = f"the process that starts its server has ended ({error.strerror}); restart the service"
                raise errors.BackendUnavailable("open the image", reason) from None
            theirs.close()
            answer = self._await_start(ours, line)
            if "url" not in answer:
                log.error("Cannot serve an image: %s", answer["detail"])
                kind = errors.BackendTimeout if answer["is_late"] else errors.BackendUnavailable
                raise kind("open the image", str(answer["reason"]))
            server.url, server.pid, server.channel = str(answer["url"]), int(str(answer["pid"])), ours
            ours.settimeout(None)
            undo.pop_all()

    def _await_start(self, channel: socket.socket, line: Lifeline) -> dict[str, object]:
        """Return what an attendant says."""
        # It looks at the image first, and starts the server then.
        channel.settimeout(2 * self._settings.start_seconds + MARGIN)
        try:
            with line.holding(channel):
                data = channel.recv(MESSAGE_LIMIT)
        except socket.timeout:
            raise errors.BackendTimeout("open the image", "its server does not start") from None
        line.check()
        if not data:
            raise errors.BackendUnavailable("open the image", "its server ended before it was ready")
        answer: dict[str, object] = json.loads(data)
        return answer

    def _end_idle(self, disk: str, server: Server) -> None:
        with self._changed:
            if server.is_ending:
                self._changed.wait_for(lambda: self._servers.get(disk) is not server, END_SECONDS)
                return
            if server.users or server.is_busy or self._servers.get(disk) is not server:
                return
            server.is_busy = server.is_ending = True
            if server.timer is not None:
                server.timer.cancel()
        hang_up(server)
        await_end(server, END_SECONDS)
        self._forget(disk, server)
        log.info("END image=%s pid=%d", shown(disk), server.pid)

    def _forget(self, disk: str, server: Server) -> None:
        with self._changed:
            if self._servers.get(disk) is server:
                self._drop(disk, server)
            self._changed.notify_all()

    def _drop(self, disk: str, server: Server) -> None:
        """Forget a server, which ends."""
        del self._servers[disk]
        if server.timer is not None:
            server.timer.cancel()
        if server.channel is not None:
            server.channel.close()


def start_helper(settings: Settings, inherit: tuple[int, ...]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the helper; return it, and the socket on which it takes orders. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as undo, theirs:
        undo.callback(ours.close)
        wrapper = ["setpriv", "--no-new-privs", "--"] if has_setpriv() else []
        command = [*wrapper, sys.executable, "-I", "-c", STARTER.format(path=sys.path), str(theirs.fileno())]
        environ = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd="/",
            pass_fds=(theirs.fileno(), *inherit),
            start_new_session=True,
        )
        undo.callback(process.wait)
        undo.callback(process.kill)
        theirs.close()
        try:
            ours.send(settings.encode())
            answer = ours.recv(MESSAGE_LIMIT)
        except ConnectionError:
            answer = b""
        if answer != b"ready":
            raise OSError(0, answer.decode(errors="replace") or "it ended")
        undo.pop_all()
        return process, ours


def shown(url: str) -> str:
    """Return as much of the URL of an image as the log may show."""
    return url.replace(image.parse(url).url.text, image.parse(url).url.shown)


def hang_up(server: Server) -> None:
    """Let an attendant know that its server is not needed."""
    assert server.channel is not None
    with contextlib.suppress(OSError):
        server.channel.shutdown(socket.SHUT_WR)


def await_end(server: Server, seconds: float) -> None:
    """Wait until a server has ended."""
    assert server.channel is not None
    with contextlib.suppress(OSError):
        server.channel.settimeout(max(0.1, seconds))
        server.channel.recv(1)
