"""The arguments of the commands that need an engine.

Knows argparse; knows nothing of the engine.
"""

from __future__ import annotations

import argparse
import os
import urllib.parse

from ovirt_imageio.errors import Error, InvalidValue
from ovirt_imageio.terminal.arguments import size
from ovirt_imageio.units import KiB, MiB

__all__ = ["add_backup_vm", "add_download_disk", "add_restore", "add_upload_disk", "check"]

SMALLEST_BUFFER = 64 * KiB
LARGEST_BUFFER = 16 * MiB

# Seconds that the engine may take to make a disk.
DISK_TIMEOUT = 120

# What the engine's own path is; the SDK wants it, people may leave it out.
API_PATH = "/ovirt-engine/api"


def add_upload_disk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of upload-disk."""
    add_engine(parser)
    parser.add_argument("-s", "--storage-domain", metavar="NAME", required=True, help="where the new disk shall be")
    add_format(parser, "the format of the disk")
    parser.add_argument("--preallocated", action="store_true", help="allocate the disk, instead of letting it grow")
    parser.add_argument("--disk-id", metavar="UUID", type=disk_id, help="the id of the new disk")
    parser.add_argument("--name", help="the name of the new disk (default: that of FILE, without extension)")
    parser.add_argument("filename", metavar="FILE", type=regular_file)


def add_download_disk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of download-disk."""
    add_engine(parser)
    add_format(parser, "the format of FILE")
    parser.add_argument("--keep", action="store_true", help="fail if FILE exists")
    parser.add_argument("--dry-run", action="store_true", help="check all, tell what would be overwritten, and end")
    parser.add_argument("disk_id", metavar="DISK_ID", type=disk_id)
    parser.add_argument("filename", metavar="FILE")


def add_backup_vm(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of backup-vm."""
    add_engine(parser)
    parser.add_argument("--incremental", action="store_true", help="only what changed since the last backup in DIR")
    parser.add_argument(
        "--full-if-lost", action="store_true", help="make a full one if there is no checkpoint, or the engine lost it"
    )
    parser.add_argument("--disk", metavar="ID|NAME", action="append", default=[], help="only this disk; repeatable")
    parser.add_argument(
        "--quiesce", action="store_true", help="fail unless the guest agent has frozen the file systems for the moment"
    )
    parser.add_argument("--verify", action="store_true", help="compare checksums with the host after each copy")
    parser.add_argument("--estimate", action="store_true", help="tell what would be copied at most, and end")
    parser.add_argument("vm", metavar="VM", help="the name of a virtual machine, or its id")
    parser.add_argument("folder", metavar="DIR", help="a new folder, or one with backups of VM")


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of restore."""
    trust = add_engine(parser)
    trust.add_argument(
        "--fingerprint", metavar="SHA256", help="with --url: trust the server whose certificate has this SHA-256"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("-s", "--storage-domain", metavar="NAME", help="make new disks there, in the engine")
    place.add_argument("--url", help="overwrite the disk at this transfer URL; needs no engine")
    parser.add_argument("--proxy-url", help="with --url: the same disk on a proxy, used if URL cannot be reached")
    place.add_argument("--list", action="store_true", help="list the points in time, and end")
    parser.add_argument("--point", metavar="NAME", help="what to restore, see --list (default: the last one)")
    parser.add_argument("--disk", metavar="ID|NAME", action="append", default=[], help="only this disk; repeatable")
    parser.add_argument("-f", "--format", choices=["raw", "qcow2"], help="of new disks (default: what they were)")
    parser.add_argument("--preallocated", action="store_true", help="allocate new disks, instead of letting them grow")
    parser.add_argument("--verify", action="store_true", help="with --url: compare checksums at the end")
    parser.add_argument("--dry-run", action="store_true", help="check the backup, tell what would be done, and end")
    parser.add_argument("folder", metavar="DIR", help="a folder that backup-vm made")


def add_engine(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add how to reach the engine; return the options of which one says whom to trust."""
    # Only the configuration file can tell these.
    parser.set_defaults(password=None, disk_timeout=DISK_TIMEOUT)
    parser.add_argument("--engine-url", metavar="URL", help="the engine, for example https://engine.example.com")
    parser.add_argument("--username", metavar="USER", help="a user of the engine, for example admin@internal")
    parser.add_argument("--password-file", metavar="FILE", help="the password of that user, in a file")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--cafile", help="certificates to verify engine and hosts with, instead of those of the system")
    trust.add_argument("--insecure", action="store_true", help="trust any engine and host that answers")
    parser.add_argument(
        "-d", "--description", default="Uploaded by ovirt-img", help="of new disks (default: %(default)s)"
    )
    parser.add_argument("--buffer-size", type=buffer_size, help="64k to 16m; has no effect, buffers are small")
    return trust


def add_format(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the choice of a format."""
    parser.add_argument("-f", "--format", choices=["raw", "qcow2"], default="qcow2", help=f"{what} (default qcow2)")


def disk_id(text: str) -> str:
    """Return the id of a disk, as the engine writes it."""
    # Loaded only now: it asks what system this is, for which the commands without an engine would wait, too.
    import uuid

    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a disk (a UUID)") from None


def regular_file(text: str) -> str:
    """Return the path of a file that is there."""
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return text


def buffer_size(text: str) -> int:
    """Return the size of a buffer."""
    count = size(text)
    if not SMALLEST_BUFFER <= count <= LARGEST_BUFFER:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size from 64k to 16m")
    return count


def check(options: argparse.Namespace) -> None:
    """Check what all sources together say of the engine; a mistake ends the program with status 2."""
    missing = [f"--{key.replace('_', '-')}" for key in ("engine_url", "username") if not getattr(options, key)]
    if needs_engine(options) and missing:
        options.parser.error(f"the following arguments are required: {', '.join(missing)}")
    if needs_engine(options) and getattr(options, "fingerprint", None):
        options.parser.error("--fingerprint goes with --url: an engine is trusted by --cafile")
    try:
        if options.engine_url:
            options.engine_url = parse_url(options.engine_url)
        timeout = str(options.disk_timeout)
        if not (timeout.isascii() and timeout.isdigit()):
            raise InvalidValue("disk_timeout", timeout, "a number of seconds")
        options.disk_timeout = int(timeout)
    except Error as error:
        options.parser.error(str(error))


def needs_engine(options: argparse.Namespace) -> bool:
    """Does the command speak to an engine? A restore may do without."""
    if options.command != "restore":
        return True
    return not (options.url or options.list or options.dry_run)


def parse_url(text: str) -> str:
    """Return the URL of the engine without the path of its API; one with a password in it is not repeated."""
    try:
        parts = urllib.parse.urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if is_url and "@" in parts.netloc:
        raise InvalidValue("engine URL", parts.hostname, "a URL without user and password")
    if not is_url or "@" in text:
        raise InvalidValue("engine URL", text.rpartition("@")[2], "like https://engine.example.com")
    return text.rstrip("/").removesuffix(API_PATH).rstrip("/")
