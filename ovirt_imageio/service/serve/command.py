"""`ovirt-imageio serve IMAGE`: hand disk images to another machine, with no configuration and no oVirt.

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
import signal
import sys
import time
import urllib.parse
import uuid
from typing import Any, Optional

from ovirt_imageio import errors, units
from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import ListenError
from ovirt_imageio.qemu.nbd import QemuNbd
from ovirt_imageio.service import process
from ovirt_imageio.service.listeners import Listeners
from ovirt_imageio.service.serve import certificate, greeting, images, qr, reach
from ovirt_imageio.service.serve.images import ServedImage
from ovirt_imageio.service.serve.progress import Traffic, TrafficDisplay
from ovirt_imageio.service.signals import Signals
from ovirt_imageio.terminal import output

__all__ = ["run"]

log = logging.getLogger("serve")

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 54322

# How often we look how it goes.
INTERVAL = 0.5
TRANSFER_ID_LIMIT = 255
# How long running requests may take after Ctrl-C; the second Ctrl-C cuts them.
GRACE = 30.0


def run(options: argparse.Namespace) -> int:
    """Serve until a signal asks to stop, or the disks were not used for the time of their tickets.

    Returns the exit status. Raises errors.Error if it cannot start.
    """
    start_log(options.verbose)
    if options.qr:
        qr.check()
    process.raise_file_limit()
    with Signals(signal.SIGINT, signal.SIGTERM) as signals, contextlib.ExitStack() as scope:
        found = images.find(wanted(options))
        where = reach.find((options.listen or (DEFAULT_HOST, None))[0])
        config = configure(options, where)
        servers: list[QemuNbd] = []
        tickets = []
        for image in found:
            url = open_image(image, options, scope, servers)
            tickets.append(make_ticket(options, image, url))
        traffic = Traffic()
        listeners = bind(options, config, traffic)
        scope.callback(listeners.stop)
        for ticket in tickets:
            listeners.store.add(ticket)
        listeners.start()
        offers = [
            greeting.Share(image, transfer_urls(config, where, listeners.remote.port, ticket["uuid"]))
            for image, ticket in zip(found, tickets)
        ]
        show(options, offers, trust(options, config), where)
        is_shown = not (options.json or options.quiet)
        progress = TrafficDisplay(traffic, output.say, output.size(sys.stdout)) if is_shown else None
        status = watch(signals, listeners, servers, progress)
        process.drain(listeners, signals, GRACE, tell)
    if not options.json:
        output.say("Stopped")
    return status


def wanted(options: argparse.Namespace) -> images.Wanted:
    """Return what the arguments ask for."""
    return images.Wanted(
        options.image,
        options.format,
        options.size,
        options.demo,
        options.read_only,
        as_file=options.file,
        secret=options.secret,
    )


def tell(running: str, left: int) -> None:
    """Tell what Ctrl-C waits for."""
    log.warning("Waiting up to %d seconds for %s; Ctrl-C again ends them at once", left, running)


def start_log(is_verbose: bool) -> None:
    """Log to the terminal: what the user must know, or all that happens."""
    if is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s [%(name)s] %(message)s")
    else:
        logging.basicConfig(level=logging.WARNING, format="ovirt-imageio: %(message)s")


def open_image(
    image: ServedImage, options: argparse.Namespace, scope: contextlib.ExitStack, servers: list[QemuNbd]
) -> str:
    """Return the URL of the image for a ticket; start the server that it needs, until the scope ends."""
    if image.is_file:
        return f"file://{urllib.parse.quote(image.path)}"
    # Each client connection has one to qemu-nbd, and must not wait there for another one that is idle.
    qemu = QemuNbd(
        "" if image.title else image.path,
        image.format,
        read_only=options.read_only,
        shared=0,
        image=image.tree,
        secret=options.secret,
    )
    start(qemu, image.path)
    scope.callback(qemu.stop)
    servers.append(qemu)
    return qemu.url


def start(qemu: QemuNbd, name: str) -> None:
    """Start qemu-nbd; the usual reasons why it refuses get advice."""
    try:
        qemu.start()
    except errors.BackendUnavailable as error:
        if "lock" in error.reason:
            error.reason = f"{name}: {error.reason}; stop the virtual machine or program that uses it"
        if "key-secret" in error.reason:
            error.reason = (
                f"{name}: {error.reason}; it is encrypted: add --secret FILE, with the passphrase in the file"
            )
        if "Invalid password" in error.reason:
            error.reason += "; all of the file is the passphrase, a line break at its end, too"
        if "writ" in error.reason and not qemu.read_only and not qemu.path:
            error.reason += "; or add --read-only"
        raise


def configure(options: argparse.Namespace, where: reach.Reach) -> Config:
    """Return the configuration that the arguments mean."""
    host, port = options.listen or (DEFAULT_HOST, None)
    default = Config()
    if options.no_tls:
        tls = dataclasses.replace(default.tls, enable=False)
    else:
        chosen = options.cert and certificate.Certificate(options.cert, options.key or options.cert)
        used = chosen or certificate.ensure(certificate.state_dir() / "certificates", where.names)
        tls = dataclasses.replace(default.tls, cert_file=used.cert_file, key_file=used.key_file)
    return dataclasses.replace(
        default,
        tls=tls,
        remote=dataclasses.replace(default.remote, host=host, port=DEFAULT_PORT if port is None else port),
        # A random name: several of us may run.
        local=dataclasses.replace(default.local, socket=""),
        control=dataclasses.replace(default.control, enable=False),
        page=dataclasses.replace(default.page, enable=True),
    )


def bind(options: argparse.Namespace, config: Config, traffic: Traffic) -> Listeners:
    """Return the listeners; if the usual port is taken, and was not asked for, the kernel picks one."""
    try:
        return Listeners(config, traffic)
    except errors.ConfigError as error:
        raise in_words_of(options, error) from None
    except ListenError as error:
        if options.listen and options.listen[1] is not None:
            raise
        anywhere = dataclasses.replace(config, remote=dataclasses.replace(config.remote, port=0))
        try:
            return Listeners(anywhere, traffic)
        except ListenError:
            # It is not the port.
            raise error from None


def in_words_of(options: argparse.Namespace, error: errors.ConfigError) -> errors.InvalidValue:
    """Return the mistake in a file as one in the argument that names it: the user wrote no configuration."""
    if error.name == "key_file" and not options.key:
        return errors.InvalidValue("--cert", error.value, f"{error.expected} in it, too; or name its file with --key")
    return errors.InvalidValue("--key" if error.name == "key_file" else "--cert", error.value, error.expected)


def make_ticket(options: argparse.Namespace, image: ServedImage, url: str) -> dict[str, Any]:
    """Return the ticket for the image."""
    return {
        "uuid": options.ticket_id or str(uuid.uuid4()),
        # A name may be as long as a transfer id.
        "transfer_id": f"serve/{image.name}"[:TRANSFER_ID_LIMIT],
        "url": url,
        "size": image.size,
        "ops": ["read"] if options.read_only or image.is_file else ["read", "write"],
        "timeout": options.timeout,
        "sparse": True,
        # What is downloaded is the disk, whatever the format of the image.
        "filename": image.name if image.is_file else f"{os.path.splitext(image.name)[0]}.raw",
    }


def transfer_urls(config: Config, where: reach.Reach, port: int, ticket_id: str) -> list[str]:
    """Return the URLs that clients may use, the one that works everywhere first."""
    scheme = "https" if config.tls.enable else "http"
    path = f"images/{urllib.parse.quote(ticket_id, safe='')}"
    hosts = [f"[{host}]" if ":" in host else host for host in where.hosts]
    return [f"{scheme}://{host}:{port}/{path}" for host in hosts]


def trust(options: argparse.Namespace, config: Config) -> Optional[greeting.Trust]:
    """Return how clients know us; None without TLS."""
    if not config.tls.enable:
        return None
    cert_file = config.tls.cert_file
    return greeting.Trust(
        certificate.fingerprint(cert_file), certificate.pin(cert_file), None if options.cert else cert_file
    )


def show(
    options: argparse.Namespace, offers: list[greeting.Share], known: Optional[greeting.Trust], where: reach.Reach
) -> None:
    """Print what people, or scripts, need to know."""
    if options.json:
        output.say(greeting.record(offers, known))
        return
    tools = greeting.Tools.installed(where.is_public)
    output.say(greeting.greet(offers, known, is_public=where.is_public, read_only=options.read_only, tools=tools))
    if options.qr:
        for offer in offers:
            output.say(
                f"{offer.image.name}:\n{qr.draw(offer.page, has_colors=output.has_colors(sys.stdout, os.environ))}\n"
            )


def watch(
    signals: Signals, listeners: Listeners, servers: list[QemuNbd], progress: Optional[TrafficDisplay] = None
) -> int:
    """Show how it goes until it is over; return the exit status."""
    try:
        while signals.wait(INTERVAL) is None:
            infos = listeners.store.list()
            if progress:
                progress.update(time.monotonic(), infos)
            if not all(server.is_running for server in servers):
                log.error("qemu-nbd ended by itself")
                return 1
            if not any(info["remaining"] or info["active"] for info in infos):
                log.warning("The disk was not used for %s", units.duration(infos[0]["timeout"]))
                return 0
        return 0
    finally:
        if progress:
            progress.finish()
