"""A Ceph cluster of one monitor, one manager and one OSD that keeps everything in memory, on loopback.

    with ceph.Cluster(folder) as cluster:
        cluster.create("disk", size)
        url = cluster.url("disk")       # for qemu

Debian packages: ceph-mon, ceph-mgr, ceph-osd, ceph-common; for qemu qemu-block-extra.

Threads: one.
"""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from pathlib import Path

from fakes import ports
from fakes.waiting import wait_until

__all__ = ["Cluster"]

GIB = 1024**3

CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
public_network = 127.0.0.0/8
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = {size}
run_dir = {folder}
admin_socket = {folder}/$cluster-$name.$pid.asok
log_file = {folder}/$name.log
mon_cluster_log_file = {folder}/cluster.log
crash_dir = {folder}
pid_file =
rbd_cache = false
"""


class Cluster:
    """See the module. `size` is how much it can hold."""

    def __init__(self, folder: Path, size: int = 4 * GIB) -> None:
        self.folder = folder
        self.conf = folder / "ceph.conf"
        self._size = size
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as scope:
            fsid = str(uuid.uuid4())
            v1, v2 = scope.enter_context(ports.reserved()), scope.enter_context(ports.reserved())
            self.conf.write_text(CONF.format(fsid=fsid, v1=v1, v2=v2, size=self._size, folder=self.folder))
            self._start_monitor(scope, fsid, f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]")
            self._start(scope, "ceph-mgr", "-i", "x", "--mgr-data", self._make("mgr"))
            self._start_osd(scope)
            self.run("ceph", "osd", "pool", "create", "rbd", "8")
            self.run("rbd", "pool", "init", "rbd")
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scope.close()

    def create(self, name: str, size: int) -> None:
        """Create an image."""
        self.run("rbd", "create", "--size", f"{size}B", name)

    def url(self, name: str) -> str:
        """Return how qemu names an image."""
        return f"rbd:rbd/{name}:conf={self.conf}"

    def run(self, program: str, *arguments: str) -> str:
        """Run a program that speaks to the cluster; return what it prints."""
        command = [program, "-c", str(self.conf), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    def _make(self, name: str) -> str:
        path = self.folder / name
        path.mkdir()
        return str(path)

    def _start_monitor(self, scope: contextlib.ExitStack, fsid: str, address: str) -> None:
        monmap, data = str(self.folder / "monmap"), self._make("mon")
        command = ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap]
        subprocess.run(command, check=True, capture_output=True)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--mon-data", data)
        self._start(scope, "ceph-mon", "-i", "a", "--mon-data", data)
        wait_until(lambda: "quorum" in self.run("ceph", "mon", "stat"))

    def _start_osd(self, scope: contextlib.ExitStack) -> None:
        data, name = self._make("osd"), str(uuid.uuid4())
        number = self.run("ceph", "osd", "new", name).strip()
        self.run("ceph-osd", "-i", number, "--mkfs", "--osd-data", data, "--osd-uuid", name)
        self._start(scope, "ceph-osd", "-i", number, "--osd-data", data)
        wait_until(lambda: "1 up" in self.run("ceph", "osd", "stat"))

    def _start(self, scope: contextlib.ExitStack, program: str, *arguments: str) -> None:
        with open(self.folder / f"{program}.out", "wb") as log:
            command = [program, "-c", str(self.conf), "-f", *arguments]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        # It keeps nothing that would have to be saved.
        scope.callback(process.wait)
        scope.callback(process.kill)
