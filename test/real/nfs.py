"""An NFS server in user space, NFS-Ganesha, in a network of its own: clients of NFS 3 know one port to ask, 111.

    with nfs.Server(folder, exported) as server:
        url = server.url("disk")        # for qemu

Debian packages: nfs-ganesha-vfs, rpcbind; for qemu qemu-block-extra. It takes root, and a file system that has handles,
as ext4, xfs and tmpfs do.

Threads: one.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from fakes.waiting import wait_until
from real import namespace, network

__all__ = ["Server"]

CONFIG = """\
NFS_CORE_PARAM {{ Protocols = 3; Enable_NLM = false; Enable_RQUOTA = false; }}
NFSV4 {{ Graceless = true; RecoveryRoot = {folder}; }}
EXPORT {{
    Export_Id = 1; Path = {exported}; Pseudo = /export; Access_Type = RW; Squash = None;
    Protocols = 3; Transports = TCP; SecType = sys; FSAL {{ Name = VFS; }}
}}
"""

# Ganesha tells rpcbind where it is.
INSIDE = """\
mount -t tmpfs none /run && mkdir /run/rpcbind && rpcbind
until rpcinfo -p 127.0.0.1 >/dev/null 2>&1; do sleep 0.05; done
exec ganesha.nfsd -F -f "$1" -L "$2" -p /run/ganesha.pid
"""


class Server:
    """See the module."""

    def __init__(self, folder: Path, exported: Path) -> None:
        self._folder = folder / "nfs"
        self._exported = exported
        self._address = ""
        self._scope = contextlib.ExitStack()

    def url(self, name: str) -> str:
        """Return how qemu names a file of the exported folder."""
        return f"nfs://{self._address}{self._exported}/{name}"

    def __enter__(self) -> Server:
        self._folder.mkdir(exist_ok=True)
        config, log = self._folder / "ganesha.conf", self._folder / "log"
        config.write_text(CONFIG.format(folder=self._folder, exported=self._exported))
        log.write_text("")
        with contextlib.ExitStack() as scope:
            apart = scope.enter_context(network.apart())
            network.ip("-n", apart.command[-1], "link", "set", "lo", "up")
            self._address = apart.there
            with open(self._folder / "output", "wb") as output:
                command = [*apart.command, *namespace.COMMAND, "sh", "-c", INSIDE, "sh", str(config), str(log)]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            scope.callback(namespace.kill, process)
            wait_until(lambda: "NFS SERVER INITIALIZED" in log.read_text(), log.read_text)
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scope.close()
