"""What each page takes for granted: files, names and servers, before its first block runs.

with enter("docs/images.md", folder, daemon) as scene:
    ...
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from docs.scene import Scene
from fakes import ports
from fakes.signing import key_pair
from fakes.waiting import wait_until
from real import daemon as real_daemon
from real.daemon import Daemon

from ovirt_imageio.qemu import img

__all__ = ["enter"]

KiB = 1024
SIZE = 16 * 1024**2


def enter(page: str, folder: Path, daemon: Daemon) -> AbstractContextManager[Scene]:
    """Return the scene of a page."""
    return SCENES.get(page, plain)(folder, daemon)


@contextlib.contextmanager
def plain(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """An image, the URL of a disk to upload to, and the certificate of its server."""
    with tempfile.TemporaryDirectory(prefix="docs-") as short:
        socket = f"{short}/sock"
        with exported(folder / "served.qcow2", socket):
            url = daemon.add_ticket(url=f"nbd:unix:{socket}", size=SIZE, sparse=True, dirty=True)
            replacements = {
                "/run/ovirt-imageio/sock": daemon.control_socket,
                "admin.DEFAULT_CONF_DIR": repr(str(daemon.folder / "etc")),
                "admin.load_config()": f"admin.load_config({str(daemon.folder / 'etc')!r})",
                "/run/disk.sock": socket,
                "/path/to/disk": str(folder / "target"),
                "host:54322": f"localhost:{daemon.port}",
                "localhost:54325": daemon.addresses["metrics"],
                # A test listens on loopback only.
                "--listen '[::]'": "--listen localhost",
            }
            names = {"url": url, "transfer_url": url}
            # Its port is any: what is configured as such tells no URL.
            etc = folder / "etc"
            shutil.copytree(daemon.folder / "etc", etc)
            (etc / "conf.d" / "99-port.conf").write_text(f"[remote]\nport = {daemon.port}\n")
            with Scene(folder, replacements, ctl=["-c", str(etc)], **names) as scene:
                shutil.copy(daemon.ca_file, scene.folder / "ca.pem")
                make_image(scene.folder / "disk.qcow2")
                scene.define(disk=url, url=url, other_url=url)
                yield scene


@contextlib.contextmanager
def exported(image: Path, socket: str) -> Iterator[None]:
    """Serve a new image, which has some data, and a bitmap that notes what changes."""
    make_image(image)
    subprocess.run(["qemu-img", "bitmap", "--add", image, "changes"], check=True)
    command = ["qemu-nbd", "--persistent", "--shared=0", "-f", "qcow2", "-B", "changes", f"--socket={socket}", image]
    with subprocess.Popen(command) as process:
        try:
            wait_until(Path(socket).exists)
            yield
        finally:
            process.terminate()


def make_image(path: Path, format: str = "qcow2") -> None:
    """Make an image with some data."""
    img.create(str(path), format, SIZE)
    command = ["qemu-io", "-f", format, "-c", "write -P 1 0 64k", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def client(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """Images of all kinds, and what a program has that uses the library."""
    with plain(folder, daemon) as scene:
        for name in ("fedora.qcow2", "base.qcow2", "top.qcow2"):
            make_image(scene.folder / name)
        make_image(scene.folder / "disk.raw", "raw")
        with tarfile.open(scene.folder / "vm.ova", "w") as archive:
            archive.add(scene.folder / "fedora.qcow2", "disk1.qcow2")
        for name in ("full_url", "increment_url", "base_url", "top_url"):
            scene.names[name] = scene.names["url"]
        data = b"x" * 64 * KiB
        with open(scene.folder / "disk.raw", "rb") as source, open(scene.folder / "part", "wb") as target:
            scene.names.update(
                offset=0, length=64 * KiB, data=data, buffer=bytearray(data), source=source, target=target
            )
            yield scene


@contextlib.contextmanager
def storage(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """Two disks of one size."""
    with plain(folder, daemon) as scene:
        make_image(scene.folder / "disk.raw", "raw")
        make_image(folder / "target", "raw")
        yield scene


@contextlib.contextmanager
def tickets(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """A ticket in a file, and another one in Python, whose disk is downloaded as soon as it is there."""
    with plain(folder, daemon) as scene:
        disk = scene.folder / "disk.raw"
        disk.write_bytes(b"x" * 64 * KiB)
        ticket: dict[str, Any] = {"uuid": "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c", "ops": ["write"], "timeout": 300}
        ticket.update(size=64 * KiB, url=f"file://{disk}")
        (scene.folder / "ticket.json").write_text(json.dumps(ticket))
        other = {**ticket, "uuid": "decade00-5bd1-4d1c-9e5a-7e0d4d1a2b3c", "ops": ["read"]}
        scene.names["ticket"] = other
        download = f"curl -sf --cacert ca.pem -o /dev/null {daemon.url(other['uuid'])}"
        scene.define(ticket=ticket["uuid"])
        scene.run_sh(f"(until {download}; do sleep 0.1; done) &\n")
        yield scene


@contextlib.contextmanager
def served(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """What `serve` prints on another machine: here it is the daemon that serves."""
    with plain(folder, daemon) as scene:
        shutil.copy(daemon.ca_file, scene.folder / "cert.pem")
        yield scene


@contextlib.contextmanager
def proxy(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """Nothing but two ports."""
    pytest.importorskip("cryptography")
    with (
        ports.reserved() as one,
        ports.reserved() as two,
        Scene(folder, {"54322": str(one), "54323": str(two)}) as scene,
    ):
        yield scene


@contextlib.contextmanager
def signed(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """A daemon that knows keys; and a disk."""
    pytest.importorskip("jwt")
    images, keys = folder / "images", folder / "keys"
    images.mkdir()
    keys.mkdir()
    (images / "disk.raw").write_bytes(b"x" * SIZE)
    (keys / "other.pem").write_bytes(key_pair()[1])
    section = f"[signed_tickets]\nenable = true\nkeys_dir = {keys}\naudience = imageio.example\n"
    text = f"{section}allow = file://{images}/*\n[local]\nenable = false\n"
    with real_daemon.running(folder / "signed", text) as host:
        replacements = {
            "/etc/ovirt-imageio/keys": str(keys),
            "/var/lib/images": str(images),
            "host:54322": f"localhost:{host.port}",
        }
        with Scene(folder, replacements, ctl=["-c", str(host.folder / "etc")]) as scene:
            shutil.copy(host.ca_file, scene.folder / "ca.pem")
            yield scene


@contextlib.contextmanager
def backup(folder: Path, daemon: Daemon) -> Iterator[Scene]:
    """A program that plays the guest, and a folder with a short name, as sockets are in it."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    with tempfile.TemporaryDirectory(prefix="docs-") as short, plain(folder, daemon) as scene:
        scene.replace("/run/vm", short)
        make_image(scene.folder / "vm.qcow2")
        yield scene


SCENES: dict[str, Callable[[Path, Daemon], AbstractContextManager[Scene]]] = {
    "docs/backup.md": backup,
    "docs/client.md": client,
    "docs/proxy.md": proxy,
    "docs/serve.md": served,
    "docs/signed-tickets.md": signed,
    "docs/storage.md": storage,
    "docs/tickets.md": tickets,
}
