"""A running qemu with a disk that a guest writes to, and backups of it: what libvirt and vdsm do, without both.

with Qemu(folder, disk) as qemu:
    qemu.write("write -P 1 0 64k")                  # as the guest
    with qemu.backup("monday") as url: ...          # full, from here on changes are noted as "monday"
    with qemu.backup("tuesday", since="monday") as url: ...
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio.qemu import img

__all__ = ["Qemu"]


class Qemu:
    """A qemu without a machine: it has a disk, and the client of its export "guest" is the guest."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self._folder = folder
        self._disk = disk
        self._socket = folder / "nbd"
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> Qemu:
        with self._scope as scope:
            monitor = self._folder / "qmp"
            command = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
            command += ["-qmp", f"unix:{monitor},server=on,wait=off"]
            process = scope.enter_context(subprocess.Popen(command))
            scope.callback(process.terminate)
            sock = scope.enter_context(contextlib.closing(connect(monitor, process)))
            self._file = scope.enter_context(contextlib.closing(sock.makefile("rw")))
            assert "QMP" in self._receive()
            self.call("qmp_capabilities")
            self.call("blockdev-add", **qcow2("disk", self._disk))
            address = {"type": "unix", "data": {"path": str(self._socket)}}
            self.call("nbd-server-start", addr=address)
            self._export("guest", "disk", writable=True)
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scope.close()

    def call(self, command: str, **arguments: Any) -> Any:
        """Give a command to qemu; return its answer."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}))
        self._file.flush()
        while True:
            answer = self._receive()
            if "event" not in answer:
                assert "return" in answer, (command, answer)
                return answer["return"]

    def write(self, *commands: str) -> None:
        """Let the guest write, with commands of qemu-io."""
        arguments = [part for command in commands for part in ("-c", command)]
        command = ["qemu-io", "-f", "raw", *arguments, f"nbd:unix:{self._socket}:exportname=guest"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def backup(self, checkpoint: str, since: str = "") -> Iterator[str]:
        """Serve the disk as it is now, while the guest goes on; `since` an earlier checkpoint its changes are dirty."""
        scratch = self._folder / "scratch.qcow2"
        size = img.info(str(self._disk))["virtual-size"]
        img.create(str(scratch), "qcow2", size)
        self.call("blockdev-add", **qcow2("scratch", scratch), backing="disk")
        actions = [action("block-dirty-bitmap-add", node="disk", name=checkpoint, persistent=True)]
        if since:
            actions += [
                action("block-dirty-bitmap-disable", node="disk", name=since),
                action("block-dirty-bitmap-add", node="disk", name="changes", disabled=True),
                action("block-dirty-bitmap-merge", node="disk", target="changes", bitmaps=[since]),
            ]
        job = {"job-id": "backup", "device": "disk", "target": "scratch", "sync": "none"}
        self.call("transaction", actions=[*actions, {"type": "blockdev-backup", "data": job}])
        self._export("backup", "scratch", **({"bitmaps": ["changes"]} if since else {}))
        try:
            yield f"nbd:unix:{self._socket}:exportname=backup"
        finally:
            self.call("block-export-del", id="backup", mode="hard")
            self.call("block-job-cancel", device="backup")
            wait_until(lambda: not self.call("query-block-jobs"))
            wait_until(lambda: all(item["id"] != "backup" for item in self.call("query-block-exports")))
            self.call("blockdev-del", **{"node-name": "scratch"})
            if since:
                self.call("block-dirty-bitmap-remove", node="disk", name="changes")

    def _export(self, name: str, node: str, **options: Any) -> None:
        options = {"type": "nbd", "id": name, "name": name, "node-name": node, "allocation-depth": True, **options}
        self.call("block-export-add", **options)

    def _receive(self) -> Any:
        return json.loads(self._file.readline())


def connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connect to the monitor, when it is there."""

    def look() -> Optional[socket.socket]:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        try:
            sock.connect(str(path))
            return sock
        except OSError:
            sock.close()
            assert process.poll() is None, "qemu ended"
            return None

    sock = wait_until(look, lambda: "qemu does not listen")
    assert sock is not None
    return sock


def qcow2(name: str, path: Path) -> dict[str, Any]:
    """Return a node of an image."""
    file = {"driver": "file", "filename": str(path), "locking": "off"}
    return {"driver": "qcow2", "node-name": name, "file": file, "discard": "unmap"}


def action(kind: str, **data: Any) -> dict[str, Any]:
    """Return a part of a transaction."""
    return {"type": kind, "data": data}
