"""The command line of the daemon.

Mistakes of the user end in one line and an exit status; what we did not foresee ends in a traceback, in the log too.
Imports only what the asked-for command needs: showing the configuration starts no server.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_imageio import config, errors, units
from ovirt_imageio.terminal import arguments, output
from ovirt_imageio.version import __version__

__all__ = ["main", "make_parser"]

log = logging.getLogger("server")


# A host and perhaps a port; IPv6 in brackets, but for "every address". A number alone may be meant as a port.
LISTEN = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.%]+)\]|(?P<host>(?!\d+$)[^\[\]:]*))(?::(?P<port>\d{1,5}))?")

# EX_CONFIG of sysexits.h: the unit tells systemd not to restart a daemon that ends with it.
MISCONFIGURED = 78

# For users that want to share a disk, and do not need a daemon that is managed.
HINT = "; to share a disk image without a configuration, type: ovirt-imageio serve IMAGE"

EPILOG = """\
exit status:
  0   stopped by a signal, or done
  1   the image or the system does not allow to start; or --check-config found a mistake
  2   wrong arguments
  78  a mistake in the configuration does not allow the daemon to start

signals:
  SIGTERM, SIGINT  finish what runs, within [daemon] drain_timeout, and end; the second one ends at once
  SIGHUP           reload the certificate and the log levels
"""


def main(words: Optional[Sequence[str]] = None) -> int:
    """Run the daemon; return the exit status."""
    output.open_missing()
    output.show_any_text()
    options = parse(sys.argv[1:] if words is None else words)
    try:
        return int(options.run(options))
    except errors.Error as error:
        return fail(error)
    except KeyboardInterrupt:
        return 1
    except Exception:
        # Without a log this goes to standard error.
        log.exception("This should not have happened")
        return 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; `run` is what to do with them."""
    parser = make_parser()
    options = parser.parse_args(words)
    if getattr(options, "key", None) and not options.cert:
        parser.error("--key needs --cert")
    return options


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = arguments.Parser(
        prog="ovirt-imageio",
        description="Move disk images in and out of this host over HTTPS.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--conf-dir", metavar="DIR", default=config.CONF_DIR, help="read DIR/conf.d/*.conf (default %(default)s)"
    )
    parser.add_argument("-t", "--ticket", metavar="FILE", help="add the JSON ticket in FILE at the start")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--show-config", action="store_true", help="print the merged configuration as JSON, and end")
    mode.add_argument("--check-config", action="store_true", help="tell every mistake in the configuration, and end")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(run=run_daemon)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_serve(commands)
    return parser


def add_serve(commands: Any) -> None:
    """Describe the arguments of serve."""
    parser = commands.add_parser(
        "serve",
        help="serve disk images, without any configuration",
        description="Serve disk images over HTTPS until Ctrl-C, and show how to download and upload them.",
    )
    parser.add_argument(
        "image",
        metavar="IMAGE",
        help="what qemu understands, a block device, a folder of images, or an image on a network: rbd:POOL/IMAGE, "
        "iscsi:, nfs:, https:, ssh:, nbd:, json:",
    )
    parser.add_argument(
        "--size", type=arguments.size, metavar="SIZE", help="create the image if it does not exist; say 10g"
    )
    parser.add_argument("--demo", action="store_true", help="... as a small disk with a file system on it")
    parser.add_argument("--format", help="its format; default: by its content, for a new one by its name")
    parser.add_argument("--secret", metavar="FILE", help="a file with the passphrase of an encrypted image (LUKS)")
    parser.add_argument("--file", action="store_true", help="serve the file as it is, instead of the disk in it")
    parser.add_argument("--read-only", action="store_true", help="allow downloads only")
    parser.add_argument(
        "--listen",
        type=host_port,
        metavar="HOST[:PORT]",
        help="default localhost; '[::]' for all machines. Without a port 54322, or another one if it is taken",
    )
    parser.add_argument(
        "--timeout",
        type=duration,
        default=units.DAY,
        metavar="TIME",
        help="end when it was not used for this time, say 1h30m (default a day)",
    )
    tls = parser.add_mutually_exclusive_group()
    tls.add_argument("--cert", metavar="FILE", help="PEM certificate; default: one of our own making")
    parser.add_argument("--key", metavar="FILE", help="PEM key of the certificate; default: in the same file")
    parser.add_argument("--ticket-id", metavar="ID", help="the secret in the URL; default: a random one")
    tls.add_argument("--no-tls", action="store_true", help="serve plain HTTP: every machine on the way can read along")
    parser.add_argument("--json", action="store_true", help="print one line of JSON for scripts, and nothing else")
    parser.add_argument("--qr", action="store_true", help="print the address of the page as a QR code, too")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not show what clients do")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every connection")
    parser.set_defaults(run=run_serve, parser=parser)


def run_serve(options: argparse.Namespace) -> int:
    """Serve an image."""
    from ovirt_imageio.service.serve import command

    return command.run(options)


def duration(text: str) -> int:
    """Return a time that a ticket may have, for argparse."""
    seconds = arguments.duration(text)
    if not 0 < seconds < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: expected at least one second")
    return seconds


def host_port(text: str) -> tuple[str, Optional[int]]:
    """Return host and port, for argparse; an IPv6 address is in brackets, and the port may be missing."""
    found = LISTEN.fullmatch("[::]" if text == "::" else text)
    if not found or (found["port"] and int(found["port"]) > 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST or HOST:PORT, like 0.0.0.0, localhost:8080 or [::]")
    return found["ipv6"] or found["host"] or "", int(found["port"]) if found["port"] else None


def run_daemon(options: argparse.Namespace) -> int:
    """Do what was asked for with the configuration: show it, check it, or serve with it; return the exit status."""
    if options.show_config:
        output.say(json.dumps(config.to_dict(config.load(options.conf_dir)), indent=4))
        return 0
    if options.check_config:
        return check(options.conf_dir)
    try:
        start(options)
    except errors.Error as error:
        from ovirt_imageio.service.notify import Notifier

        # `systemctl status` shows it even when the lines of the journal are gone.
        Notifier.from_environment().status(f"Cannot start: {error}")
        fail(error, "" if os.path.isdir(options.conf_dir) else HINT)
        return MISCONFIGURED if isinstance(error, errors.InvalidValue) else 1
    return 0


def start(options: argparse.Namespace) -> None:
    """Serve with the configuration, until a signal asks to stop. Raises errors.Error if the start fails."""
    from ovirt_imageio.service import logs, process

    def load() -> config.Config:
        loaded = config.load(options.conf_dir)
        config.check(loaded)
        return loaded

    loaded = load()
    logs.start(loaded.logging)
    ticket = process.read_ticket(options.ticket) if options.ticket else None
    process.run(loaded, load, ticket)


def check(conf_dir: str) -> int:
    """Tell what is wrong with the configuration, all of it; return the exit status."""
    from ovirt_imageio.service import inspection

    loaded, mistakes = config.read(conf_dir)
    found = [*map(str, (*loaded.warnings, *mistakes, *inspection.find_mistakes(loaded)))]
    for sentence in found:
        print(sentence, file=sys.stderr)
    if inspection.is_running(loaded):
        print("A daemon with this configuration is running: its ports were not tried", file=sys.stderr)
    if not found:
        output.say(f"The configuration in {conf_dir} is good")
    return 1 if found else 0


def fail(error: errors.Error, hint: str = "") -> int:
    """Tell the user, and the log if there is one, what went wrong; return the exit status."""
    from ovirt_imageio.service import logs

    if logging.getLogger().handlers:
        log.error("%s", error)
    if not logs.writes_to_stderr():
        output.complain("ovirt-imageio", f"{error}{hint}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
