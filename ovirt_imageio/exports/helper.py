"""The process that makes attendants. It starts with the daemon, while that may still become any user.

It has one thread, so that the kernel ends a server with the attendant that forked it, and that a fork is safe. When the
daemon is gone, by whatever way, it waits for the attendants, and removes what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import traceback

from ovirt_imageio import errors
from ovirt_imageio.exports import attendant
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.qemu.nbd import has_setpriv
from ovirt_imageio.qemu.version import version

__all__ = ["main"]

# The URL of a ticket has up to 8 KiB.
MESSAGE_LIMIT = 64 * 1024


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    settings = Settings.decode(channel.recv(MESSAGE_LIMIT))
    try:
        prepare(settings)
    except OSError as error:
        channel.send(str(error).encode())
        return
    channel.send(b"ready")
    # The kernel buries attendants.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with contextlib.suppress(ConnectionError):
        serve(channel, settings)
    # It returns when there are none.
    with contextlib.suppress(ChildProcessError):
        os.wait()
    # The folder itself is in one of the daemon, which may be another user.
    shutil.rmtree(settings.folder, ignore_errors=True)


def prepare(settings: Settings) -> None:
    """Become the user that opens images. Raises OSError."""
    if settings.account is not None and os.geteuid() == 0:
        name, uid, gid = settings.account
        os.initgroups(name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    os.umask(0o077)
    # Passphrases are in memory. The unit does not let us, and leaves no core files either.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.tempdir = settings.folder
    # What is known here need not be asked by each attendant. A program that is missing is told by the first one.
    has_setpriv()
    with contextlib.suppress(errors.BackendUnavailable):
        version()


def serve(channel: socket.socket, settings: Settings) -> None:
    """Make an attendant for each message, which has a socket to the daemon beside the image."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_LIMIT, 1)
        if not data:
            return
        with socket.socket(fileno=descriptors[0]) as end:
            end.set_inheritable(False)
            try:
                is_attendant = os.fork() == 0
            except OSError as error:
                # There are too many processes, or there is too little memory. That may be better at the next image.
                refuse(end, error)
                continue
            if is_attendant:
                run_attendant(channel, end, data, settings)


def refuse(end: socket.socket, error: OSError) -> None:
    """Tell the daemon that there is no attendant, and why."""
    reason = f"there is no process for its server: {error.strerror}"
    # The daemon may not wait for it any more.
    with contextlib.suppress(OSError):
        end.send(json.dumps({"reason": reason, "is_late": False, "detail": reason}).encode())


def run_attendant(channel: socket.socket, end: socket.socket, data: bytes, settings: Settings) -> None:
    """Attend one image, in a process of its own, which ends here."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.close()
        attendant.attend(end, json.loads(data), settings)
    except BaseException:
        # Into the log of the manager of the service.
        traceback.print_exc()
    finally:
        os._exit(0)
