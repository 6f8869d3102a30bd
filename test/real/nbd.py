"""Real NBD servers and clients other than ours: nbdkit, nbdinfo, and the storage daemon of qemu."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, TextIO

from fakes.waiting import DEADLINE, wait_until
from real import certificates

__all__ = ["Monitor", "StorageDaemon", "nbdinfo", "nbdkit", "tls_folder", "uri"]

# How long a program may take to end by itself.
PATIENCE = 2


@contextlib.contextmanager
def nbdkit(*arguments: str) -> Iterator[str]:
    """Run nbdkit on a Unix socket; give the path of the socket."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nbdkit-")))
        path, pid = str(folder / "sock"), folder / "pid"
        command = ["nbdkit", "--foreground", f"--unix={path}", f"--pidfile={pid}", *arguments]
        # A pipe that is not read would be full some day: nbdkit tells of each error that a filter makes.
        log = stack.enter_context(open(folder / "log", "w+"))
        process = stack.enter_context(subprocess.Popen(command, stderr=log))
        stack.callback(stop, process)
        wait_for_file(process, pid, log)
        yield path


def nbdinfo(url: str, *arguments: str) -> Any:
    """Return what nbdinfo tells about a server."""
    command = ["nbdinfo", "--json", *arguments, url]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=DEADLINE).stdout)


def uri(path: str, export: str = "") -> str:
    """Return the URL by which libnbd knows a server on a Unix socket."""
    return f"nbd+unix:///{export}?socket={path}"


@contextlib.contextmanager
def tls_folder(client: Optional[certificates.Certificate] = None) -> Iterator[str]:
    """Give a folder with certificates of a server, and of a client if there is one, as nbdkit and libnbd name them."""
    server = certificates.certificate()
    with tempfile.TemporaryDirectory(prefix="nbd-pki-") as name:
        folder = Path(name)
        shutil.copy(server.ca_file, folder / "ca-cert.pem")
        shutil.copy(server.cert_file, folder / "server-cert.pem")
        shutil.copy(server.key_file, folder / "server-key.pem")
        if client is not None:
            shutil.copy(client.cert_file, folder / "client-cert.pem")
            shutil.copy(client.key_file, folder / "client-key.pem")
        yield name


class Monitor:
    """The monitor of a qemu that listens at a path; it may keep us waiting for `timeout` seconds.

    with Monitor(path) as monitor:
        monitor.run("blockdev-add", driver="qcow2", ...)
    """

    def __init__(self, path: str, timeout: float = DEADLINE) -> None:
        self._path = path
        self._timeout = timeout
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> Monitor:
        with contextlib.ExitStack() as scope:
            sock = scope.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(self._timeout)
            sock.connect(self._path)
            self._stream = scope.enter_context(sock.makefile("rw"))
            self._receive()
            self.run("qmp_capabilities")
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()

    def run(self, command: str, **arguments: Any) -> Any:
        """Run a command of the monitor; return its result. Underscores in names of arguments stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._stream.write(json.dumps({"execute": command, "arguments": named}) + "\n")
        self._stream.flush()
        while True:
            message = self._receive()
            if "error" in message:
                raise RuntimeError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def wait_for(self, event: str) -> Any:
        """Wait for an event; return its data."""
        while True:
            message = self._receive()
            if message.get("event") == event:
                return message["data"]

    def _receive(self) -> Any:
        return json.loads(self._stream.readline())


class StorageDaemon(Monitor):
    """qemu-storage-daemon: the block layer of a running guest, without the guest.

    with StorageDaemon(folder) as qsd:
        qsd.run("blockdev-add", driver="qcow2", ...)
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "qmp"))
        self._folder = folder

    def __enter__(self) -> StorageDaemon:
        with contextlib.ExitStack() as scope:
            command = ["qemu-storage-daemon", "--chardev", f"socket,id=qmp,path={self._path},server=on,wait=off"]
            command += ["--monitor", "chardev=qmp", f"--pidfile={self._folder / 'pid'}"]
            log = scope.enter_context(open(self._folder / "log", "w+"))
            process = scope.enter_context(subprocess.Popen(command, stderr=log))
            scope.callback(stop, process)
            wait_for_file(process, self._folder / "pid", log)
            super().__enter__()
            scope.push(self._scope.pop_all())
            self._scope = scope.pop_all()
        return self


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and insist when it does not: nbdkit waits for its clients, who may be waiting for us."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def wait_for_file(process: subprocess.Popen[bytes], path: Path, log: TextIO) -> None:
    """Wait until a program has written its pid file; raise what it logged if it ends instead."""

    def is_written() -> bool:
        if path.exists() and path.read_text():
            return True
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"{process.args!r} failed: {log.read()}")
        return False

    wait_until(is_written, lambda: f"{process.args!r} is not ready")


def run(command: Sequence[object]) -> str:
    """Run a program; return what it prints, raise RuntimeError with what it complains about."""
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=DEADLINE, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed: {done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()
