"""Commands that look at images, here or on a server: info, measure, checksum, verify, extents.

Knows the library and the arguments; knows nothing of signals, and of the statuses that failures end with.
"""

from __future__ import annotations

import argparse
import contextlib
import json

from ovirt_imageio import client
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.client import local, records, results, verify
from ovirt_imageio.client.commands.telling import show, tell
from ovirt_imageio.client.errors import translated
from ovirt_imageio.client.options import server_arguments
from ovirt_imageio.client.remote import Remote

__all__ = ["checksum", "compare", "extents", "info", "measure"]


def info(options: argparse.Namespace) -> None:
    """Print what is known of FILE."""
    show(options, "info", client.info(options.filename, options.member))


def measure(options: argparse.Namespace) -> None:
    """Print how much space FILE needs in another format."""
    show(options, "measure", client.measure(options.filename, options.format, options.member))


def checksum(options: argparse.Namespace) -> None:
    """Print the checksum of FILE or URL."""
    how = {name: value for name in ("block_size", "algorithm") if (value := getattr(options, name)) is not None}
    found = client.checksum(options.image, options.member, **how, **server_arguments(options))
    if options.output == "json":
        tell(options, "result", **found)
    else:
        print(json.dumps(found, indent=2))


def compare(options: argparse.Namespace) -> None:
    """Compare FILE with the image at URL."""
    remote = Remote(options.url, **server_arguments(options))
    with translated(), contextlib.ExitStack() as stack:
        there = stack.enter_context(contextlib.closing(HttpBackend(remote.connect(), writable=False)))
        image = local.find(options.filename, options.member, options.format)
        algorithm, found = verify.compare(stack.enter_context(local.opened(image)), there)
    tell(options, "result", algorithm=algorithm, checksum=found)


def extents(options: argparse.Namespace) -> None:
    """List the extents of FILE or URL, as they are found."""
    found = client.extents(
        options.image, options.member, options.bitmap, dirty=options.dirty, **server_arguments(options)
    )
    is_json = options.output == "json"
    count = size = 0
    for extent in found:
        if not count and not is_json:
            print(results.EXTENTS_HEAD)
        print(records.to_line("extent", extent._asdict()) if is_json else f"{results.extent_line(extent)}\n", end="")
        count, size = count + 1, extent.start + extent.length
    tell(options, "result", extents=count, size=size)
