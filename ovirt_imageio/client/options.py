"""The arguments of ovirt-img.

Knows argparse and the environment; knows nothing of what the commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Callable

from ovirt_imageio.client import defaults
from ovirt_imageio.client.commands import COMMANDS, Command
from ovirt_imageio.client.engine import arguments as engine_arguments
from ovirt_imageio.client.presets import MAX_WORKERS, RETRIES
from ovirt_imageio.terminal.arguments import Parser, size
from ovirt_imageio.version import __version__

__all__ = ["PROGRAM", "STREAM", "make_parser", "parse", "server_arguments"]

PROGRAM = "ovirt-img"

# Instead of FILE: standard input or output.
STREAM = "-"

# More connections than the library makes by itself.
MOST_WORKERS = 8

EPILOG = """\
URL is the transfer URL of an image: https://HOST:54322/images/TICKET. FILE is an image of any format that qemu knows,
or with --member one inside an archive. For upload and download, - is the raw disk on standard input or output.

configuration file:
  ~/.config/ovirt-img.conf, or $XDG_CONFIG_HOME/ovirt-img.conf: its section [DEFAULT] has defaults for all commands,
  --config NAME takes those of [NAME]. Keys: cafile, fingerprint, secure, proxy_url, max_workers, bandwidth, retries,
  output, log_file, log_level; of commands that need an engine also engine_url, username, password, description and
  disk_timeout. Without --password-file and password, the program asks for the password.

environment:
  OVIRT_IMG_CA            what --cafile is by default
  OVIRT_IMG_FINGERPRINT   what --fingerprint is by default
  OVIRT_IMG_KEY           any other KEY of the configuration file, in capitals; but for the password

precedence:
  the command line, the section of --config, the environment, the section [DEFAULT]

exit status:
  0    done
  1    failed; the last line tells why
  2    wrong arguments, or none
  130  interrupted with Ctrl-C
  141  the reader of standard output left before it had all of a download
  143  stopped with SIGTERM
"""


def make_parser(words: Collection[str] = COMMANDS.keys()) -> argparse.ArgumentParser:
    """Return the parser of the program. Only a command that is among the words has all of its arguments."""
    parser = Parser(
        prog=PROGRAM,
        description="Move disk images to and from servers, and look at them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = add_command(subparsers, name, command)
        if name in words:
            ADDERS[name](added)
    return parser


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    warn: Callable[[str], None] = lambda text: None,
) -> argparse.Namespace:
    """Return the parsed arguments, completed by configuration file and environment.

    What follows "--" after nbd is the program to run, with options of its own.
    """
    arguments = list(arguments)
    program: list[str] = []
    if arguments[:1] == ["nbd"] and "--" in arguments:
        place = arguments.index("--")
        arguments, program = arguments[:place], arguments[place + 1 :]
    options = defaults.complete(parser, arguments, environ, warn)
    if program:
        options.program = program
    if "engine_url" in options:
        engine_arguments.check(options)
    return options


def add_command(subparsers: Any, name: str, command: Command) -> argparse.ArgumentParser:
    """Add a command, with the options that all have."""
    about = command.about.rstrip(".")
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=about[0].lower() + about[1:],
        description=command.about,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Some rules only the commands know.
    parser.set_defaults(run=command.run, parser=parser)
    parser.add_argument("-c", "--config", metavar="NAME", help="a section of the configuration file, see below")
    parser.add_argument("--log-file", help="log to this file instead of the terminal")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", choices=levels, default="warning", help="default warning")
    return parser


def add_upload(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of upload."""
    add_transfer(parser)
    parser.add_argument("-f", "--format", help="the format of FILE; say so if it is raw and you do not trust it")
    add_member(parser)
    parser.add_argument("--shallow", action="store_true", help="upload only the top layer of a chain")
    parser.add_argument("--disk-is-zero", action="store_true", help="the disk is empty: send no zeroes")
    parser.add_argument("--detect-zeroes", action="store_true", help="do not send zeroes that FILE has allocated")
    add_resume(parser)
    add_dry_run(parser)
    parser.add_argument("filename", metavar="FILE|-")
    parser.add_argument("url", metavar="URL")


def add_download(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of download."""
    add_transfer(parser)
    parser.add_argument("-f", "--format", help="the format of FILE (default qcow2; what goes to - is raw)")
    parser.add_argument("--incremental", action="store_true", help="only what changed since the checkpoint of a backup")
    parser.add_argument("--backing-file", help="the image that FILE stands on")
    parser.add_argument("--backing-format", help="the format of that image")
    parser.add_argument("--keep", action="store_true", help="fail if FILE exists")
    add_resume(parser)
    add_dry_run(parser)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("filename", metavar="FILE|-")


def add_backup(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of backup."""
    add_transfer(parser)
    parser.add_argument("--incremental", action="store_true", help="only what changed since the backup in --backing")
    parser.add_argument("--backing", metavar="BASE", help="the image of that backup, on which FILE will stand")
    add_dry_run(parser)
    parser.add_argument("url", metavar="URL")
    parser.add_argument("filename", metavar="FILE", help="a new qcow2 image")


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of verify."""
    add_server(parser)
    add_output(parser)
    parser.add_argument("-f", "--format", help="the format of FILE; say so if it is raw and you do not trust it")
    add_member(parser)
    parser.add_argument("filename", metavar="FILE")
    parser.add_argument("url", metavar="URL")


def add_info(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of info."""
    add_output(parser)
    add_member(parser)
    parser.add_argument("filename", metavar="FILE")


def add_measure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of measure."""
    add_info(parser)
    parser.add_argument("-f", "--format", default="qcow2", help="the other format (default %(default)s)")


def add_checksum(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of checksum."""
    add_image(parser)
    parser.add_argument("--algorithm", help="default blake2b")
    parser.add_argument("--block-size", type=size, help="default 4m")


def add_extents(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of extents."""
    add_image(parser)
    parser.add_argument("--bitmap", help="tell what is dirty in this bitmap of FILE")
    parser.add_argument("--dirty", action="store_true", help="tell what changed since the checkpoint of a backup")


def add_nbd(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of nbd."""
    add_server(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--socket", metavar="PATH", help="a Unix socket to make (default: one in a private folder)")
    place.add_argument("--listen", metavar="HOST:PORT", type=loopback, help="a port of localhost, 0 for any")
    parser.add_argument("--read-only", action="store_true", help="permit no writes, though the ticket does")
    add_retries(parser)
    parser.add_argument("url", metavar="URL")
    parser.usage = "%(prog)s [options] URL [-- COMMAND ... {} ...]"
    parser.epilog = f"COMMAND runs with the NBD URI in place of {{}}; without one the URI is printed.\n\n{EPILOG}"
    parser.set_defaults(program=[])


def add_upload_disk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of upload-disk."""
    add_shown(parser)
    engine_arguments.add_upload_disk(parser)


def add_download_disk(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of download-disk."""
    add_shown(parser)
    engine_arguments.add_download_disk(parser)


def add_backup_vm(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of backup-vm."""
    add_shown(parser)
    engine_arguments.add_backup_vm(parser)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of restore."""
    add_shown(parser)
    engine_arguments.add_restore(parser)


def loopback(text: str) -> tuple[str, int]:
    """Return host and port."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") or "localhost"
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


ADDERS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "upload": add_upload,
    "download": add_download,
    "backup": add_backup,
    "verify": add_verify,
    "info": add_info,
    "measure": add_measure,
    "checksum": add_checksum,
    "extents": add_extents,
    "nbd": add_nbd,
    "upload-disk": add_upload_disk,
    "download-disk": add_download_disk,
    "backup-vm": add_backup_vm,
    "restore": add_restore,
}


def add_transfer(parser: argparse.ArgumentParser) -> None:
    """Add the options of copies."""
    add_server(parser)
    add_shown(parser)
    parser.add_argument("--verify", action="store_true", help="compare checksums at the end")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add the choice to go on."""
    parser.add_argument("--resume", action="store_true", help="continue an interrupted transfer of FILE")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add the choice to do nothing."""
    parser.add_argument("--dry-run", action="store_true", help="check all, tell what would be overwritten, and end")


def add_output(parser: Any) -> None:
    """Add the form of what is told; parser may be a group of options that exclude one another."""
    parser.add_argument(
        "-o",
        "--output",
        choices=["text", "json"],
        default="text",
        help="text for people (the default), or JSON for programs: one record a line, on standard output",
    )


def add_shown(parser: argparse.ArgumentParser) -> None:
    """Add how a copy shows its progress, and how hard it tries."""
    shown = parser.add_mutually_exclusive_group()
    add_output(shown)
    shown.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--max-workers",
        type=workers,
        default=MAX_WORKERS,
        help="connections, 1 to 8; default: 4, or 8 to a server that is far",
    )
    parser.add_argument("--bandwidth", type=size, help="bytes per second at most, for example 100m")
    add_retries(parser)


def add_retries(parser: argparse.ArgumentParser) -> None:
    """Add how often a connection is made again."""
    parser.add_argument("--retries", type=int, default=RETRIES, help="of a lost connection (default %(default)s)")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that speaks to a server."""
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--cafile", help="certificates to verify the server with, instead of those of the system")
    trust.add_argument(
        "--fingerprint", metavar="SHA256", help="trust the server whose certificate has this SHA-256, and no other one"
    )
    trust.add_argument("--insecure", action="store_true", help="trust any server that answers")
    parser.add_argument("--proxy-url", help="the same image on a proxy, used if URL cannot be reached")


def add_member(parser: argparse.ArgumentParser) -> None:
    """Add the choice of an image in an archive."""
    parser.add_argument("--member", help="the name of the image inside FILE, a tar archive or OVA")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add an image here or on a server."""
    add_server(parser)
    add_output(parser)
    add_member(parser)
    parser.add_argument("image", metavar="FILE|URL")


def workers(text: str) -> int:
    """Return a number of workers."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_WORKERS}")
    return int(text)


# What the commands make of them


def server_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return how to reach and trust a server."""
    names = ("cafile", "fingerprint", "proxy_url")
    return {"secure": not options.insecure, **{name: getattr(options, name) for name in names}}
