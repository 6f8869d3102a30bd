"""Upload a file to a new disk of an engine, and download a disk to a file.

Knows the order of things; each thing is in a module of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any, Optional

from ovirt_imageio.client import api
from ovirt_imageio.client.engine import disks, hosts, settings
from ovirt_imageio.client.engine.connection import Engine, held_interrupts, load_sdk
from ovirt_imageio.client.engine.plan import Plan, make_plan
from ovirt_imageio.client.engine.transfers import Transfer
from ovirt_imageio.client.errors import ImageExists
from ovirt_imageio.client.progress import ProgressCounter

__all__ = ["copy_arguments", "download_disk", "finalize", "start_transfer", "upload_disk", "upload_image"]


def upload_disk(options: argparse.Namespace, progress: ProgressCounter) -> str:
    """Add a disk and upload a file to it; return its id. What fails leaves neither a transfer nor a disk."""
    # Before a password is typed.
    load_sdk()
    plan = make_plan(options.filename, options.format, is_preallocated=options.preallocated)
    with Engine(settings.login(options)) as engine:
        names = {"disk_id": options.disk_id, "name": options.name}
        disk_id = upload_image(engine, plan, options.filename, options, progress, **names)
    progress.phase = "upload completed"
    return disk_id


def upload_image(
    engine: Engine,
    plan: Plan,
    filename: str,
    options: argparse.Namespace,
    progress: ProgressCounter,
    *,
    disk_id: Optional[str] = None,
    name: Optional[str] = None,
) -> str:
    """Add a disk for an image, and upload the image to it; return its id."""
    with contextlib.ExitStack() as undo:
        host_id = hosts.find_host(engine, options.storage_domain)
        progress.phase = "creating disk"
        with held_interrupts():
            disk_id = disks.add_disk(engine, plan, filename, options.storage_domain, disk_id, name, options.description)
            undo.callback(disks.remove_disk, engine, disk_id)
        disks.wait_disk(engine, disk_id, options.disk_timeout)
        transfer = start_transfer(engine, disk_id, undo, progress, is_upload=True, host_id=host_id)
        progress.phase = "uploading image"
        with transfer.kept_alive():
            api.upload(
                filename,
                transfer.url,
                format=plan.source_format,
                disk_is_zero=plan.reads_as_zero,
                **copy_arguments(options, transfer, progress),
            )
        finalize(transfer, undo, progress)
    return disk_id


def download_disk(options: argparse.Namespace, progress: ProgressCounter) -> None:
    """Download a disk to a file; with options.dry_run, only look whether that can be."""
    if options.keep and os.path.lexists(options.filename):
        raise ImageExists(options.filename)
    load_sdk()
    with Engine(settings.login(options)) as engine, contextlib.ExitStack() as undo:
        domain = disks.find_domain(engine, options.disk_id)
        if options.dry_run:
            progress.phase = "nothing done"
            return
        host_id = hosts.find_host(engine, domain) if domain else None
        transfer = start_transfer(engine, options.disk_id, undo, progress, is_upload=False, host_id=host_id)
        progress.phase = "downloading image"
        with transfer.kept_alive():
            api.download(
                transfer.url,
                options.filename,
                fmt=options.format,
                overwrite=not options.keep,
                **copy_arguments(options, transfer, progress),
            )
        finalize(transfer, undo, progress)
    progress.phase = "download completed"


def start_transfer(
    engine: Engine, disk_id: str, undo: contextlib.ExitStack, progress: ProgressCounter, **arguments: Any
) -> Transfer:
    """Return a transfer that a host serves; `undo` gives it up."""

    def give_up() -> None:
        progress.phase = "cancelling transfer"
        transfer.give_up()

    progress.phase = "creating transfer"
    with held_interrupts():
        transfer = Transfer(engine, disk_id, **arguments)
        undo.callback(give_up)
    transfer.wait_ready()
    return transfer


def finalize(transfer: Transfer, undo: contextlib.ExitStack, progress: ProgressCounter) -> None:
    """End a transfer whose bytes are all there; from here on there is nothing to undo."""
    progress.phase = "finalizing transfer"
    with held_interrupts():
        transfer.finalize()
        undo.pop_all()
    transfer.wait_end()


def copy_arguments(options: argparse.Namespace, transfer: Transfer, progress: ProgressCounter) -> dict[str, Any]:
    """Return what upload and download have in common."""
    return {
        "cafile": options.cafile,
        "secure": not options.insecure,
        "proxy_url": transfer.proxy_url,
        "max_workers": options.max_workers,
        "bandwidth": options.bandwidth,
        "retries": options.retries,
        "progress": progress,
    }
