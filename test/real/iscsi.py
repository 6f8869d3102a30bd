"""An iSCSI target in user space, on loopback: tgtd.

    with iscsi.Target(folder, disk) as target:
        url = target.url                # for qemu

Debian package: tgt; for qemu qemu-block-extra.

Threads: one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from fakes import ports
from fakes.waiting import wait_until

__all__ = ["Target"]

NAME = "iqn.2001-04.com.example:disk"


class Target:
    """See the module. The disk is a file; it is unit 1."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self._disk = disk
        self._log = folder / "tgtd.log"
        self._environ = {**os.environ, "TGT_IPC_SOCKET": str(folder / "tgtd.sock")}
        self._scope = contextlib.ExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        """Return how qemu names the disk."""
        return f"iscsi://127.0.0.1:{self._port}/{NAME}/1"

    def __enter__(self) -> Target:
        with contextlib.ExitStack() as scope:
            self._port = scope.enter_context(ports.reserved())
            with open(self._log, "wb") as log:
                command = ["tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{self._port}"]
                process = subprocess.Popen(
                    command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            scope.callback(process.wait)
            scope.callback(process.kill)
            wait_until(lambda: self._tell("show", "target"))
            self._require("new", "target", "--tid", "1", "-T", NAME)
            self._require("new", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(self._disk))
            self._require("bind", "target", "--tid", "1", "-I", "ALL")
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scope.close()

    def _tell(self, operation: str, mode: str, *arguments: str) -> bool:
        command = ["tgtadm", "--lld", "iscsi", "--op", operation, "--mode", mode, *arguments]
        return subprocess.run(command, env=self._environ, capture_output=True, check=False).returncode == 0

    def _require(self, operation: str, mode: str, *arguments: str) -> None:
        assert self._tell(operation, mode, *arguments), f"{operation} {mode}: {self._log.read_text()}"
