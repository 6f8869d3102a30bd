"""Pull the plug of a guest in the middle of uploads, over and over, and go on: `make vm T=kills`.

The client is here, and keeps beside the image what was flushed, see docs/client.md. The guest runs the daemon and
nothing else, so that it boots in seconds; of its last disk all stays, but for what it held in memory. In the end the
image there has to be the one here: a flushed range that was lost would never be sent again.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from real import certificates
from tools import source
from tools.vm import guest, image, job

from ovirt_imageio import client

__all__ = ["run"]

ROUNDS = 20
MiB = 1024**2
SIZE = 64 * MiB
# The disk of the guest on which the image is, with room for a file system and for what Python compiled.
SCRATCH = 512 * MiB
# So that an upload lasts for some rounds.
BANDWIDTH = 4 * MiB
# How long an upload goes on before the plug is pulled.
SECONDS = (0.5, 4.0)
# On a busy machine.
BOOT_SECONDS = 180

# The first program, instead of systemd; the guest ends with it.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox insmod /virtio_blk.ko
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /bin/bash -c 'mkdir /imageio; tar -x -C /imageio -f /dev/vdb; exec /imageio/job'
"""

JOB = f"""#!/bin/bash
exec >/dev/hvc0 2>&1
export PATH=/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8 PYTHONPYCACHEPREFIX=/data/python
mount -t proc none /proc; mount -t sysfs none /sys; mount -t tmpfs none /run; mount -t tmpfs none /tmp
modprobe virtio_net
ip link set lo up; ip link set eth0 up; ip address add 10.0.2.15/24 dev eth0
mkdir -p /data /run/ovirt-imageio /etc/ovirt-imageio/conf.d
if ! mount /dev/vdc /data; then
    mkfs.ext4 -q /dev/vdc && mount /dev/vdc /data && truncate -s {SIZE} /data/disk.raw
fi
for package in /imageio/build/deb/*.deb; do dpkg-deb --extract $package /; done
cp /imageio/kills.conf /etc/ovirt-imageio/conf.d/
ovirt-imageio --ticket /imageio/ticket
"""

SETTINGS = """[daemon]
drop_privileges = false
[local]
enable = false
[tls]
key_file = /imageio/key.pem
cert_file = /imageio/cert.pem
[handlers]
keys = stderr
[logger_root]
handlers = stderr
"""

TICKET = {
    "uuid": "00000000-0000-4000-8000-000000000001",
    "url": "file:///data/disk.raw",
    "size": SIZE,
    "ops": ["read", "write"],
    "timeout": 36000,
}


def run(made: image.Image, folder: Path, rounds: int = ROUNDS, seed: Optional[int] = None) -> int:
    """Kill the guest so many times amid uploads; return an exit status."""
    seed = random.randrange(2**32) if seed is None else seed
    print(f"Pulling the plug of a guest {rounds} times amid uploads, seed {seed}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="vm-", dir=folder) as work:
        campaign = Campaign(made, folder, Path(work), random.Random(seed))
        try:
            campaign.run(rounds)
        except (client.Error, RuntimeError) as error:
            print(f"After {campaign.kills} kills: {error}. {folder} has the console of the guest", file=sys.stderr)
            return 1
    print(f"{campaign.kills} kills amid {campaign.uploads} uploads: nothing that was flushed is lost")
    return 0


class Campaign:
    """Uploads, one after the other, each of which goes on where the plug was pulled.

    Threads: one; each upload has one of its own.
    """

    def __init__(self, made: image.Image, folder: Path, work: Path, dice: random.Random) -> None:
        self._folder, self._dice = folder, dice
        self._disk, self._progress = work / "image.raw", work / "progress"
        self._tls = certificates.certificate()
        self._port = free_port()
        archive, initramfs, scratch = work / "job.tar", work / "initramfs", work / "scratch"
        files = {"job": JOB.encode(), "kills.conf": SETTINGS.encode(), "ticket": json.dumps(TICKET).encode()}
        for name in ("cert", "key"):
            files[f"{name}.pem"] = Path(getattr(self._tls, f"{name}_file")).read_bytes()
        job.pack(archive, source.ROOT, job.PACKAGES, files)
        # Of two files of one name the kernel takes the last.
        initramfs.write_bytes(made.initramfs.read_bytes() + b"".join(image.newc({"init": INIT.encode()})))
        with scratch.open("wb") as file:
            file.truncate(SCRATCH)
        self._command = guest.arguments(made, archive, folder, scratch=scratch, initramfs=initramfs, port=self._port)
        self.kills = self.uploads = 0

    def run(self, rounds: int) -> None:
        """Raise RuntimeError if the guest does not serve, client.Error if a disk is not the image in the end."""
        while self.kills < rounds:
            self._disk.write_bytes(self._dice.randbytes(SIZE))
            self._progress.unlink(missing_ok=True)
            self.uploads += 1
            while not self.go_on(self._dice.uniform(*SECONDS) if self.kills < rounds else None):
                print(f"{self.kills} kills, {self.uploads} uploads", flush=True)

    def go_on(self, seconds: Optional[float]) -> bool:
        """Upload what is left, or pull the plug after so many seconds; return True if all is there."""
        with serving(self._command, self._folder) as process:
            upload = Upload(self._disk, self._port, self._tls.ca_file, self._progress, slowly=seconds is not None)
            upload.start()
            upload.join(seconds)
            is_killed = upload.is_alive()
            if is_killed:
                process.kill()
                self.kills += 1
            upload.join()
        if upload.error is not None and not is_killed:
            raise upload.error
        return upload.error is None


@contextlib.contextmanager
def serving(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a guest whose daemon serves when the block begins."""
    log = folder / "log"
    log.write_bytes(b"")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + BOOT_SECONDS
            while b"] Ready" not in log.read_bytes():
                if process.poll() is not None or time.monotonic() > end:
                    files = [path for path in (folder / "console", log) if path.exists()]
                    said = [path.read_text(errors="replace")[-2000:] for path in files]
                    raise RuntimeError("\n".join(["The guest does not serve", *said]))
                time.sleep(0.2)
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Upload(threading.Thread):
    """Uploads the image, or what is left of it; in the end both are compared."""

    def __init__(self, disk: Path, port: int, cafile: str, progress: Path, slowly: bool) -> None:
        super().__init__(name="upload")
        self._arguments = (disk, f"https://localhost:{port}/images/{TICKET['uuid']}", cafile)
        self._options: dict[str, Any] = {"resume": progress, "retries": 0, "verify": True, "format": "raw"}
        if slowly:
            self._options["bandwidth"] = BANDWIDTH
        self.error: Optional[Exception] = None

    def run(self) -> None:
        try:
            client.upload(*self._arguments, **self._options)
        except Exception as error:
            self.error = error
