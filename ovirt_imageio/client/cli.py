"""The ovirt-img program: the library from the command line.

Ordinary failures end in one line and an exit status; with --log-level debug also in a traceback.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, Optional

from ovirt_imageio import client, units
from ovirt_imageio.client import meter
from ovirt_imageio.client.progress import Counter
from ovirt_imageio.client.remote import RETRIES
from ovirt_imageio.ops import checksum as checksums
from ovirt_imageio.terminal import output
from ovirt_imageio.version import __version__

__all__ = ["main", "size"]

log = logging.getLogger("ovirt-img")

MAX_WORKERS = 8

SUFFIXES = {"": 1, "k": units.KiB, "m": units.MiB, "g": units.GiB, "t": units.TiB}

EPILOG = """\
URL is the transfer URL of an image: https://HOST:54322/images/TICKET. FILE is an image of any format that qemu knows,
or with --member one inside an archive.

exit status:
  0    done
  1    failed; the last line tells why
  2    wrong arguments
  130  interrupted with Ctrl-C
  143  stopped with SIGTERM
"""


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nobody but main() shall catch it."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit status."""
    parser = make_parser()
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.command is None:
        parser.print_help()
        return 2
    start_log(options)
    former = signal.signal(signal.SIGTERM, terminate)
    try:
        options.run(options)
    except KeyboardInterrupt:
        return fail("Interrupted", 130)
    except Terminated:
        return fail("Terminated", 143)
    except (client.Error, OSError) as error:
        log.debug("Failed", exc_info=True)
        return fail(str(error), 1)
    finally:
        signal.signal(signal.SIGTERM, former)
    return 0


def terminate(number: int, frame: Optional[FrameType]) -> NoReturn:
    """Handle SIGTERM."""
    raise Terminated


def fail(message: str, status: int) -> int:
    """Tell what went wrong."""
    print(f"ovirt-img: {message}", file=sys.stderr)
    return status


def start_log(options: argparse.Namespace) -> None:
    """Log to a file, or to the terminal."""
    logging.basicConfig(
        filename=options.log_file,
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s",
    )


# Commands


def upload(options: argparse.Namespace) -> None:
    """Upload FILE to URL."""
    with progress_of(options, "uploading image") as progress:
        client.upload(
            options.filename,
            options.url,
            progress=progress,
            member=options.member,
            backing_chain=not options.shallow,
            disk_is_zero=options.disk_is_zero,
            format=options.format,
            detect_zeroes=options.detect_zeroes,
            **transfer_arguments(options),
        )
        progress.phase = "upload completed"


def download(options: argparse.Namespace) -> None:
    """Download URL to FILE."""
    with progress_of(options, "downloading image") as progress:
        client.download(
            options.url,
            options.filename,
            progress=progress,
            fmt=options.format,
            incremental=options.incremental,
            backing_file=options.backing_file,
            backing_format=options.backing_format,
            overwrite=not options.keep,
            **transfer_arguments(options),
        )
        progress.phase = "download completed"


def info(options: argparse.Namespace) -> None:
    """Print what is known of FILE."""
    show(client.info(options.filename, options.member))


def measure(options: argparse.Namespace) -> None:
    """Print how much space FILE needs in another format."""
    show(client.measure(options.filename, options.format, options.member))


def checksum(options: argparse.Namespace) -> None:
    """Print the checksum of FILE or URL."""
    show(
        client.checksum(
            options.image,
            options.member,
            block_size=options.block_size,
            algorithm=options.algorithm,
            **server_arguments(options),
        )
    )


def show_map(options: argparse.Namespace) -> None:
    """Print the extents of FILE or URL, as they are found."""
    found = client.extents(
        options.image, options.member, options.bitmap, dirty=options.dirty, **server_arguments(options)
    )
    separator = "["
    for extent in found:
        print(f"{separator}{json.dumps(extent._asdict())}", end="")
        separator = ",\n "
    print("]" if separator != "[" else "[]")


def progress_of(options: argparse.Namespace, phase: str) -> Counter:
    """Return what shows the progress: on standard error, but for programs on standard output."""
    if options.quiet:
        return Counter(phase)
    if options.output == "json":
        return meter.Records(phase, sys.stdout)
    is_terminal = output.width(sys.stderr) is not None
    return meter.Bar(phase, sys.stderr) if is_terminal else meter.Lines(phase, sys.stderr)


def show(document: Any) -> None:
    """Print a document."""
    print(json.dumps(document, indent=2))


def server_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return how to reach and trust a server."""
    return {"cafile": options.cafile, "secure": not options.insecure, "proxy_url": options.proxy_url}


def transfer_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what upload and download have in common."""
    names = ("max_workers", "resume", "verify", "bandwidth", "retries")
    return {**server_arguments(options), **{name: getattr(options, name) for name in names}}


# Arguments


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="ovirt-img",
        description="Move disk images to and from servers, and look at them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    add_upload(add_command(commands, "upload", upload))
    add_download(add_command(commands, "download", download))
    looking = add_command(commands, "info", info)
    add_file(looking)
    measuring = add_command(commands, "measure", measure)
    add_file(measuring)
    measuring.add_argument("-f", "--format", default="qcow2", help="the other format (default %(default)s)")
    summing = add_command(commands, "checksum", checksum)
    add_image(summing)
    summing.add_argument("--algorithm", default=checksums.DEFAULT_ALGORITHM, help="default %(default)s")
    summing.add_argument("--block-size", type=size, default=checksums.BLOCK_SIZE, help="default 4m")
    mapping = add_command(commands, "map", show_map)
    add_image(mapping)
    mapping.add_argument("--bitmap", help="tell what is dirty in this bitmap of FILE")
    mapping.add_argument("--dirty", action="store_true", help="tell what changed since the checkpoint of a backup")
    return parser


def add_command(commands: Any, name: str, run: Any) -> argparse.ArgumentParser:
    """Add a command, with the options that all have."""
    about = run.__doc__.rstrip(".")
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about[0].lower() + about[1:],
        description=run.__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--log-file", help="log to this file instead of the terminal")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", choices=levels, default="warning", help="default %(default)s")
    return parser


def add_upload(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of upload."""
    add_transfer(parser)
    parser.add_argument("-f", "--format", help="the format of FILE; say so if it is raw and you do not trust it")
    parser.add_argument("--member", help="the name of the image inside FILE, a tar archive or OVA")
    parser.add_argument("--shallow", action="store_true", help="upload only the top layer of a chain")
    parser.add_argument("--disk-is-zero", action="store_true", help="the disk is empty: send no zeroes")
    parser.add_argument("--detect-zeroes", action="store_true", help="do not send zeroes that FILE has allocated")
    parser.add_argument("filename", metavar="FILE")
    parser.add_argument("url", metavar="URL")


def add_download(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of download."""
    add_transfer(parser)
    parser.add_argument("-f", "--format", default="qcow2", help="the format of FILE (default %(default)s)")
    parser.add_argument("--incremental", action="store_true", help="only what changed since the checkpoint of a backup")
    parser.add_argument("--backing-file", help="the image that FILE stands on")
    parser.add_argument("--backing-format", help="the format of that image")
    parser.add_argument("--keep", action="store_true", help="fail if FILE exists")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("filename", metavar="FILE")


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the options of upload and download."""
    add_server(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "-o",
        "--output",
        choices=["text", "json"],
        default="text",
        help="form of the progress: text on standard error, or JSON lines on standard output, one a second",
    )
    shown.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument("--max-workers", type=workers, default=client.MAX_WORKERS, help="connections, 1 to 8")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted transfer of FILE")
    parser.add_argument("--verify", action="store_true", help="compare checksums at the end")
    parser.add_argument("--bandwidth", type=size, help="bytes per second at most, for example 100m")
    parser.add_argument("--retries", type=int, default=RETRIES, help="of a lost connection (default %(default)s)")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that speaks to a server."""
    parser.add_argument("--cafile", help="certificates to verify the server with, instead of those of the system")
    parser.add_argument("--insecure", action="store_true", help="trust anybody who answers")
    parser.add_argument("--proxy-url", help="the same image on a proxy, used if URL cannot be reached")


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add an image here."""
    parser.add_argument("--member", help="the name of the image inside FILE, a tar archive or OVA")
    parser.add_argument("filename", metavar="FILE")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add an image here or on a server."""
    add_server(parser)
    parser.add_argument("--member", help="the name of the image inside FILE, a tar archive or OVA")
    parser.add_argument("image", metavar="FILE|URL")


def size(text: str) -> int:
    """Return a number of bytes that may have a suffix."""
    match = re.fullmatch(r"([0-9]+)([kmgt]?)", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write for example 512, 64k or 4m")
    return int(match[1]) * SUFFIXES[match[2]]


def workers(text: str) -> int:
    """Return a number of workers."""
    if not text.isdigit() or not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_WORKERS}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
