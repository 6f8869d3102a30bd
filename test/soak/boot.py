"""Instant restore: a guest boots from the ticket of a backup, and its disk is copied away while it runs.

    backup ── qemu-nbd ── daemon ── HTTPS ── ovirt-img nbd ── qemu: a layer on top ── guest
                                                                └── blockdev-mirror ──> the restored disk

The guest is a kernel and busybox, of Debian's packages, which are fetched once. It checks its data when it has booted,
and again when the backup is detached; what it wrote meanwhile must be on the restored disk, and the backup unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import lzma
import os
import queue
import random
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from real import daemon
from real.nbd import Monitor, run
from tools.source import ROOT
from tools.vm.guest import accelerator
from tools.vm.image import newc

from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

MIB = 1024**2
DATA = 64 * MIB
DISK = 128 * MIB

# Emulation is slow, and the machine may be busy.
PATIENCE = 300

# Those that there are, in this order: newer kernels have most of them built in.
DRIVERS = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")

FIRST = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
exec </dev/console >/dev/console 2>&1
for driver in {drivers}; do /bin/busybox insmod /$driver; done
until [ -b /dev/vda ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /init
"""

# Does what it is told on its console.
INIT = """#!/bin/busybox sh
busybox() { /bin/busybox "$@"; }
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
busybox stty -echo
echo "guest: booted"
while read -r order; do
    case $order in
        check) busybox sync; echo 3 >/proc/sys/vm/drop_caches; echo "guest: data $(busybox sha256sum </data)" ;;
        write) busybox dd if=/dev/urandom of=/written bs=1M count=8 2>/dev/null; busybox sync
               echo "guest: written $(busybox sha256sum </written)" ;;
        end) busybox sync; busybox mount -o remount,ro /; echo "guest: ends"; busybox poweroff -f ;;
    esac
done
"""


def main(arguments: Sequence[str]) -> int:
    """Restore once; return an exit status."""
    argparse.ArgumentParser(prog="boot", description=__doc__.splitlines()[0]).parse_args(arguments)
    if not shutil.which("apt-get"):
        print("Skipped: the guest is made of packages of Debian, which apt-get fetches")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        restore(Path(folder), fetch(ROOT / ".cache" / "boot"))
    return 0


def fetch(cache: Path) -> Path:
    """Return the folder with what is in the packages."""
    root = cache / "root"
    if root.exists():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    depends = run(["apt-cache", "depends", "linux-image-cloud-amd64"])
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)
    assert kernel, depends
    subprocess.run(["apt-get", "download", "--quiet", kernel[1], "busybox-static"], check=True, cwd=cache)
    for package in cache.glob("*.deb"):
        run(["dpkg-deb", "--extract", package, cache / "new"])
    # A folder of this name is complete.
    (cache / "new").rename(root)
    return root


def make_initramfs(root: Path, path: Path) -> None:
    """Make what the kernel runs first."""
    files = {"bin/": b"", "dev/": b"", "root/": b"", "bin/busybox": find_busybox(root).read_bytes()}
    names = []
    for name in DRIVERS:
        for found in root.glob(f"**/{name}.ko*"):
            data = found.read_bytes()
            files[f"{name}.ko"] = lzma.decompress(data) if found.suffix == ".xz" else data
            names.append(f"{name}.ko")
    files["init"] = FIRST.format(drivers=" ".join(names)).encode()
    path.write_bytes(b"".join(newc(files)))


def make_backup(root: Path, folder: Path) -> tuple[Path, str]:
    """Make a qcow2 image that a guest boots from; return it, and the digest of its data."""
    files, raw, image = folder / "files", folder / "raw", folder / "backup.qcow2"
    for name in ("bin", "dev", "proc"):
        (files / name).mkdir(parents=True)
    (files / "bin/busybox").write_bytes(find_busybox(root).read_bytes())
    (files / "init").write_text(INIT)
    for program in ("bin/busybox", "init"):
        (files / program).chmod(0o755)
    data = random.Random(1).randbytes(DATA)
    (files / "data").write_bytes(data)
    run(["env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin", "mkfs.ext4", "-q", "-d", files, raw, f"{DISK // 1024}k"])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image])
    return image, hashlib.sha256(data).hexdigest()


def find_busybox(root: Path) -> Path:
    """Return the program."""
    return next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())


class Console:
    """The console of a guest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.said = ""
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            self._lines.put(line)
        self._lines.put("")

    def tell(self, order: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()

    def hear(self, what: str) -> str:
        """Return what the guest says about this."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                line = ""
            if not line:
                raise RuntimeError(f"The guest says nothing about {what}; its console:\n{self.said}")
            found = re.search(f"guest: {what} ?(.*)", line)
            if found:
                print(f"  the guest: {what} {found[1].strip()}", flush=True)
                return found[1].split()[0] if found[1].split() else ""


def restore(folder: Path, root: Path) -> None:
    """Boot from a backup, copy it away meanwhile, detach it, and go on."""
    (kernel,) = root.glob("boot/vmlinuz-*")
    initramfs, layer, restored = folder / "initramfs", folder / "layer.qcow2", folder / "restored.qcow2"
    make_initramfs(root, initramfs)
    backup, digest = make_backup(root, folder)
    before = backup.read_bytes()
    with contextlib.ExitStack() as scope:
        server = scope.enter_context(QemuNbd(str(backup), "qcow2", read_only=True, shared=8))
        served = scope.enter_context(daemon.running(folder, "[local]\nenable = false\n"))
        url = served.add_ticket(url=server.url, size=DISK, ops=["read"])
        attaching = scope.enter_context(contextlib.ExitStack())
        remote = attaching.enter_context(contextlib.closing(Remote(url, served.ca_file)))
        attached = attaching.enter_context(Attachment(remote, read_only=True))
        img.create(str(layer), "qcow2", DISK, backing_file=attached.uri, backing_format="raw")
        img.create(str(restored), "qcow2", DISK)
        command = ["qemu-system-x86_64", *accelerator(), "-m", "256", "-nodefaults", "-no-reboot"]
        command += ["-display", "none", "-serial", "stdio", "-qmp", f"unix:{folder}/qmp,server=on,wait=off"]
        command += ["-kernel", str(kernel), "-initrd", str(initramfs), "-append", "console=ttyS0 loglevel=4 panic=-1"]
        command += ["-blockdev", f"driver=qcow2,node-name=layer,file.driver=file,file.filename={layer}"]
        command += ["-device", "virtio-blk-pci,drive=layer"]
        process = scope.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace")
        )
        scope.callback(process.kill)
        console = Console(process)
        console.hear("booted")
        monitor = scope.enter_context(Monitor(f"{folder}/qmp", PATIENCE))
        monitor.run("blockdev-add", driver="qcow2", node_name="restored", file=file_node(restored))
        monitor.run("blockdev-mirror", job_id="restore", device="layer", target="restored", sync="full")
        # While it is copied, the guest reads from the backup, and writes.
        console.tell("check")
        assert console.hear("data") == digest
        console.tell("write")
        written = console.hear("written")
        monitor.wait_for("BLOCK_JOB_READY")
        monitor.run("job-complete", id="restore")
        monitor.wait_for("BLOCK_JOB_COMPLETED")
        monitor.run("blockdev-del", node_name="layer")
        attaching.close()
        print("  the backup is detached", flush=True)
        served.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")
        # From here on there is only the restored disk.
        console.tell("check")
        assert console.hear("data") == digest
        console.tell("end")
        console.hear("ends")
        process.wait(PATIENCE)
    assert backup.read_bytes() == before
    check(restored, folder, {"data": digest, "written": written})


def file_node(path: Path) -> dict[str, str]:
    """Return how the monitor is told a file."""
    return {"driver": "file", "filename": str(path)}


def check(image: Path, folder: Path, digests: dict[str, str]) -> None:
    """Compare the files on a disk."""
    raw = folder / "restored.raw"
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw])
    system = ["env", "PATH=/usr/sbin:/sbin:/usr/bin:/bin"]
    run([*system, "e2fsck", "-f", "-n", raw])
    for name, digest in digests.items():
        run([*system, "debugfs", "-R", f"dump /{name} {folder / name}", raw])
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    print(f"  the restored disk has what the guest saw and wrote, {os.path.getsize(image) // MIB} MiB", flush=True)
