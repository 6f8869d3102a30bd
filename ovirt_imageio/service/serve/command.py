"""`ovirt-imageio serve IMAGE`: hand one disk image to another machine, with no configuration and no oVirt.

    qemu-nbd IMAGE ──Unix socket──> a ticket ──HTTPS──> curl, a backup program, another daemon

The same listeners as the daemon's, with a configuration made of the arguments. Everything that is started here ends
here.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import socket
import sys
import time
import urllib.parse
import uuid
from typing import Any, NamedTuple, Optional

from ovirt_imageio import errors, units
from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import ListenError
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import Server as QemuNbd
from ovirt_imageio.service import process
from ovirt_imageio.service.listeners import Listeners
from ovirt_imageio.service.serve import certificate
from ovirt_imageio.service.serve.progress import Progress, Traffic
from ovirt_imageio.service.signals import Signals

__all__ = ["run"]

log = logging.getLogger("serve")

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 54322

# How often we look how it goes.
INTERVAL = 0.5
# How long running requests may take after Ctrl-C; the second Ctrl-C cuts them.
GRACE = 30.0

# These listen on every address: other machines know us by our name.
WILDCARDS = ("", "::", "0.0.0.0")

# The formats that a new image gets by its name.
SUFFIXES = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".qed": "qed"}


class Image(NamedTuple):
    """What is served."""

    path: str
    format: str
    size: int


def run(options: argparse.Namespace) -> int:
    """Serve the image until somebody asks to stop, or nobody used it for the time of the ticket.

    Returns the exit status. Raises errors.Error if it cannot start.
    """
    start_log(options.verbose)
    process.raise_file_limit()
    with Signals(signal.SIGINT, signal.SIGTERM) as signals, contextlib.ExitStack() as scope:
        image = prepare(options.image, options.format, options.size, options.read_only)
        config = configure(options)
        # Each client connection has one to qemu-nbd, and must not wait there for another one that is idle.
        qemu = QemuNbd(image.path, image.format, read_only=options.read_only, shared=0)
        start(qemu)
        scope.callback(qemu.stop)
        traffic = Traffic()
        listeners = bind(config, traffic, is_port_chosen=options.listen is not None)
        scope.callback(listeners.stop)
        ticket = make_ticket(options, image, qemu.url)
        listeners.store.add(ticket)
        listeners.start()
        url = transfer_url(config, listeners.remote.port, ticket["uuid"])
        print(greet(image, url, config, options.read_only), flush=True)
        status = watch(signals, listeners, qemu, traffic)
        process.drain(listeners, signals, GRACE, tell)
    print("Stopped", flush=True)
    return status


def tell(running: str, left: int) -> None:
    """Tell what Ctrl-C waits for."""
    print(f"Waiting up to {left} seconds for {running}; Ctrl-C again ends them at once", flush=True)


def start_log(is_verbose: bool) -> None:
    """Log to the terminal: what the user must know, or all that happens."""
    if is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s [%(name)s] %(message)s")
    else:
        logging.basicConfig(level=logging.WARNING, format="ovirt-imageio: %(message)s")


def prepare(path: str, format: Optional[str], size: Optional[int], read_only: bool) -> Image:
    """Look at the image, or create it. Raises errors.Error."""
    if not os.path.exists(path):
        if size is None:
            raise errors.InvalidValue("image", path, "a file that exists; or add --size 10g, and it will be created")
        img.create(path, format or SUFFIXES.get(os.path.splitext(path)[1].lower(), "raw"), size)
    elif os.path.isdir(path):
        raise errors.InvalidValue("image", path, "a disk image, but it is a folder")
    elif not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
        can_read = os.access(path, os.R_OK)
        hint = "add --read-only, or change its permissions" if can_read else "change its permissions"
        raise errors.InvalidValue("image", path, f"a file that you may {'write' if can_read else 'read'}; {hint}")
    info = img.info(path, format)
    found = Image(os.path.abspath(path), info["format"], info["virtual-size"])
    if size is not None and found.size != size:
        log.warning("%s exists and has %s: --size is not used", path, units.size(found.size))
    return found


def start(qemu: QemuNbd) -> None:
    """Start qemu-nbd; the usual reason why it refuses gets advice."""
    try:
        qemu.start()
    except errors.BackendUnavailable as error:
        if "lock" in error.reason:
            error.reason += "; stop the virtual machine or program that uses it"
        raise


def configure(options: argparse.Namespace) -> Config:
    """Return the configuration that the arguments mean."""
    host, port = options.listen or (DEFAULT_HOST, DEFAULT_PORT)
    default = Config()
    if options.no_tls:
        tls = dataclasses.replace(default.tls, enable=False)
    else:
        chosen = options.cert and certificate.Certificate(options.cert, options.key or options.cert)
        used = chosen or certificate.ensure(certificate.state_dir() / "certificates", server_names(host))
        tls = dataclasses.replace(default.tls, cert_file=used.cert_file, key_file=used.key_file)
    return dataclasses.replace(
        default,
        tls=tls,
        remote=dataclasses.replace(default.remote, host=host, port=port),
        # A random name: several of us may run.
        local=dataclasses.replace(default.local, socket=""),
        control=dataclasses.replace(default.control, enable=False),
    )


def server_names(host: str) -> list[str]:
    """Return the names by which clients may reach us."""
    names = [public_name(host), socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    return list(dict.fromkeys(names))


def public_name(host: str) -> str:
    """Return what clients call the host that we listen on."""
    return socket.gethostname() if host in WILDCARDS else host


def bind(config: Config, traffic: Traffic, is_port_chosen: bool) -> Listeners:
    """Return the listeners; if the usual port is taken, and nobody insists on it, the kernel picks one."""
    try:
        return Listeners(config, traffic)
    except ListenError:
        if is_port_chosen:
            raise
        return Listeners(dataclasses.replace(config, remote=dataclasses.replace(config.remote, port=0)), traffic)


def make_ticket(options: argparse.Namespace, image: Image, url: str) -> dict[str, Any]:
    """Return the ticket for the image."""
    name = os.path.basename(image.path)
    return {
        "uuid": options.ticket_id or str(uuid.uuid4()),
        "transfer_id": f"serve/{name}",
        "url": url,
        "size": image.size,
        "ops": ["read"] if options.read_only else ["read", "write"],
        "timeout": options.timeout,
        "sparse": True,
        # What is downloaded is the disk, whatever the format of the image.
        "filename": f"{os.path.splitext(name)[0]}.raw",
    }


def transfer_url(config: Config, port: int, ticket_id: str) -> str:
    """Return the URL that clients use."""
    scheme = "https" if config.tls.enable else "http"
    host = public_name(config.remote.host)
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{port}/images/{urllib.parse.quote(ticket_id, safe='')}"


def greet(image: Image, url: str, config: Config, read_only: bool) -> str:
    """Return what the user needs to know, with commands to paste."""
    # Not the name of the image itself: who pastes in its folder must not write over what is served.
    copy = f"{os.path.splitext(os.path.basename(image.path))[0]}-copy"
    raw, qcow2 = shlex.quote(f"{copy}.raw"), shlex.quote(f"{copy}.qcow2")
    quoted, curl, trust = shlex.quote(url), "curl --fail", ""
    lines = [f"Serving {image.path} ({image.format}, {units.size(image.size)})", "", f"  transfer URL:  {url}"]
    if config.tls.enable:
        lines.append(f"  CA file:       {config.tls.cert_file}")
        lines.append(f"  fingerprint:   {certificate.fingerprint(config.tls.cert_file)} (SHA-256)")
        ca_file = shlex.quote(config.tls.cert_file)
        curl, trust = f"{curl} --cacert {ca_file}", f"--cafile {ca_file} "
    lines += ["", "Download the disk, as raw bytes, or only its data as qcow2:", ""]
    lines += [f"  {curl} -o {raw} {quoted}", f"  ovirt-img download {trust}{quoted} {qcow2}"]
    if not read_only:
        lines += ["", "Upload raw bytes, or an image of any format:", ""]
        lines += [f"  {curl} -T {raw} {quoted}", f"  ovirt-img upload {trust}{qcow2} {quoted}"]
    lines += ["", "Whoever knows the URL can use the disk. Ctrl-C stops.", ""]
    return "\n".join(lines)


def watch(signals: Signals, listeners: Listeners, qemu: QemuNbd, traffic: Traffic) -> int:
    """Show how it goes until it is over; return the exit status."""
    progress = Progress(sys.stdout, sys.stdout.isatty())
    try:
        while signals.wait(INTERVAL) is None:
            [info] = listeners.store.list()
            progress.update(time.monotonic(), traffic, info["rate"], info["connections"], info["active"])
            if not qemu.is_running:
                log.error("qemu-nbd ended by itself")
                return 1
            if info["remaining"] == 0 and not info["active"]:
                log.warning("Nobody used the disk for %s", units.duration(info["timeout"]))
                return 0
        return 0
    finally:
        progress.finish()
