"""Disks on real servers of other kinds, by a daemon that opens them itself and by `serve`: part of scale.py.

    client ──> daemon, or serve ──> qemu-nbd ──> tgtd (iSCSI), or NFS-Ganesha

What is written is compared with the file of that server, and what is read with what was written. The server for NFS
ends amid use and comes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from fakes.waiting import DEADLINE, wait_until
from real import daemon as real_daemon
from real import iscsi, nfs
from real.daemon import Daemon

__all__ = ["run"]

SIZE = 8 * 1024**2

CONFIG = """\
[export]
enable = true
allow = iscsi://** nfs://**
start_seconds = 5
[backend_nbd]
reply_timeout = 3
"""


def run(folder: Path) -> None:
    """Try all of it, below an empty folder. Raises AssertionError for what is wrong."""
    exported = folder / "exported"
    exported.mkdir(parents=True)
    lun, file = folder / "lun", exported / "disk"
    for path in (lun, file):
        path.touch()
        os.truncate(path, SIZE)
    with contextlib.ExitStack() as scope:
        target = scope.enter_context(iscsi.Target(folder, lun))
        daemon = scope.enter_context(real_daemon.running(folder / "daemon", allowing(target)))
        by_daemon("iSCSI", daemon, target.url, lun)
        by_serve("iSCSI", target.url, lun)
        with nfs.Server(folder, exported) as server:
            url = server.url(file.name)
            ticket = by_daemon("NFS", daemon, url, file)
            by_serve("NFS", url, file)
        break_and_mend(daemon, ticket, nfs.Server(folder, exported), file)


def allowing(target: iscsi.Target) -> str:
    """Return the configuration of the daemon: a wildcard does not reach loopback."""
    return CONFIG.replace("iscsi://**", target.url)


def by_daemon(kind: str, daemon: Daemon, image: str, file: Path) -> str:
    """Write and read a disk by a daemon; return its transfer URL."""
    url = daemon.add_ticket(url=f"image:raw:{image}", size=SIZE)
    compare(kind, url, file, daemon)
    print(f"a disk by {kind} was written and read by a daemon", flush=True)
    return url


def by_serve(kind: str, image: str, file: Path) -> None:
    """Write and read a disk by `serve`."""
    command = [sys.executable, "-m", "ovirt_imageio.service.cli", "serve", image, "--format", "raw", "--no-tls"]
    with subprocess.Popen([*command, "--listen", "localhost:0", "--json"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            record = json.loads(process.stdout.readline())
            compare(kind, record["images"][0]["url"], file)
        finally:
            process.terminate()
    assert process.returncode == 0, f"serve ended with {process.returncode}"
    print(f"a disk by {kind} was written and read by serve", flush=True)


def break_and_mend(daemon: Daemon, url: str, server: nfs.Server, file: Path) -> None:
    """Use a disk whose server is gone, and again when it is back."""
    try:
        write(url, bytes(SIZE), daemon)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        assert error.code == 504, (error.code, text)
        print(f"a server that is gone: {text}", flush=True)
    else:
        raise AssertionError("a disk was written whose server is gone")
    with server:

        def is_back() -> bool:
            with contextlib.suppress(urllib.error.HTTPError):
                compare("NFS", url, file, daemon)
                return True
            return False

        wait_until(is_back)
    print("it came back, and the same ticket went on", flush=True)


def compare(kind: str, url: str, file: Path, daemon: Daemon | None = None) -> None:
    data = os.urandom(SIZE)
    write(url, data, daemon)
    assert file.read_bytes() == data, f"what was written by {kind} is not on the disk"
    with urllib.request.urlopen(url, context=daemon and daemon.tls, timeout=DEADLINE) as answer:
        assert answer.read() == data, f"what was written by {kind} is not read again"


def write(url: str, data: bytes, daemon: Daemon | None = None) -> None:
    request = urllib.request.Request(url, data, method="PUT")
    urllib.request.urlopen(request, context=daemon and daemon.tls, timeout=DEADLINE).close()
