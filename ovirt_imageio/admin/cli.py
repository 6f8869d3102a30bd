"""ovirt-imageioctl: manage the tickets of the daemon on this host.

Knows arguments and exit codes; the work is done by `api`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_imageio import units
from ovirt_imageio.admin import api, document, signing
from ovirt_imageio.admin.document import Mistake
from ovirt_imageio.admin.table import table
from ovirt_imageio.admin.top import top
from ovirt_imageio.terminal import arguments as kinds
from ovirt_imageio.terminal import output
from ovirt_imageio.version import __version__

__all__ = ["build_parser", "main"]

PROGRAM = "ovirt-imageioctl"

EPILOG = """\
TICKET is the id of a ticket, or its transfer id, or the beginning of one of them: whatever `list` shows.

exit codes:
  0  success
  1  the service refused or cannot be reached, or a file cannot be used; one line on standard error tells why
  2  wrong arguments
130  interrupted
"""


# The beginning of the name of a signed ticket; its jti follows.
SIGNED = "signed/"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; return its exit code."""
    output.open_missing()
    output.show_any_text()
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        output.take_interrupts()
        if args.is_offline:
            args.command(args)
        else:
            with api.Client(api.load_config(args.conf_dir)) as client:
                args.command(client, args)
        sys.stdout.flush()
    except (api.Error, Mistake, ValueError) as e:
        output.complain(PROGRAM, e)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has enough.
        output.drop_stdout()
    except OSError as e:
        output.drop_stdout()
        output.complain(PROGRAM, output.reason(e))
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    # The same option before and after the subcommand: that after it has no default, which would undo the other one.
    common = argparse.ArgumentParser(add_help=False)
    add_conf_dir(common, argparse.SUPPRESS)
    parser = kinds.Parser(
        prog=PROGRAM,
        description="Manage the tickets of the ovirt-imageio daemon on this host.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_conf_dir(parser, api.DEFAULT_CONF_DIR)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(command=None, is_offline=False)
    add_commands(parser.add_subparsers(title="commands", metavar="COMMAND"), common)
    return parser


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add all commands, each with the arguments that are common to them."""

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, parents=[common])
        # argparse has no "at least one of": some commands check that themselves.
        sub.set_defaults(command=command, parser=sub)
        return sub

    add_arguments_of_add(add("add-ticket", add_ticket, "Add a ticket: one from a JSON file, or one for a disk."))
    sub = add("show-ticket", show_ticket, "Show the state of a ticket as JSON.")
    sub.add_argument("ticket", metavar="TICKET")
    sub = add("mod-ticket", mod_ticket, "Change a ticket.")
    sub.add_argument("ticket", metavar="TICKET")
    sub.add_argument(
        "--timeout", type=kinds.duration, metavar="TIME", help="expire after this time from now on, such as 1h"
    )
    sub.add_argument(
        "--inactivity-timeout",
        type=kinds.duration,
        metavar="TIME",
        help="let its connections stand still for this time",
    )
    sub = add("del-ticket", del_ticket, "Remove a ticket, after what runs on it has ended.")
    sub.add_argument("ticket", metavar="TICKET", nargs="?")
    sub.add_argument("--all", action="store_true", help="remove all tickets")
    sub.add_argument("--dry-run", action="store_true", help="list what would be removed, and remove nothing")
    sub = add("list", list_tickets, "List all tickets, without their secret ids.")
    sub.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    sub = add("top", show_top, "Watch all transfers; q quits.")
    sub.add_argument("--interval", type=interval, default=1, metavar="SECONDS", help="refresh so often (default 1)")
    sub.add_argument("--rounds", type=natural, metavar="N", help="quit after N rounds")
    add_arguments_of_sign(add("sign-ticket", sign_ticket, "Make a signed ticket for daemons that know the public key."))
    sub = add("start-profile", start_profile, "Start the profiler of the daemon.")
    sub.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="what to measure (default cpu)")
    add("stop-profile", stop_profile, "Stop the profiler; the daemon writes [profile] filename.")


def add_conf_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """Add -c to a parser."""
    parser.add_argument(
        "-c",
        "--conf-dir",
        metavar="DIR",
        default=default,
        help=f"the configuration of the daemon (default {api.DEFAULT_CONF_DIR})",
    )


def add_arguments_of_add(parser: argparse.ArgumentParser) -> None:
    """Add what add-ticket takes."""
    defaults = document.DiskChoice()
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("filename", nargs="?", metavar="JSON", help="a file with the ticket, or - for standard input")
    what.add_argument("--file", metavar="PATH", help="make a ticket for this file or block device; print its URL")
    what.add_argument("--url", metavar="URL", help="make a ticket for the disk at a file:, nbd:, https: or image: URL")
    parser.add_argument("--read", action="store_true", help="allow downloads only, not uploads")
    parser.add_argument("--size", type=kinds.size, help="the size of the disk, such as 10g (default that of the file)")
    parser.add_argument(
        "--timeout",
        type=kinds.duration,
        metavar="TIME",
        help=f"expire when nothing happens for this time (default {units.duration(defaults.timeout)})",
    )


def add_arguments_of_sign(parser: argparse.ArgumentParser) -> None:
    """Add what sign-ticket takes."""
    defaults = document.DiskChoice()
    # The machine of an issuer needs neither a daemon nor its configuration.
    parser.set_defaults(is_offline=True)
    parser.add_argument("--key", metavar="FILE", required=True, help="the private key, PEM: Ed25519, P-256 or RSA")
    parser.add_argument("--kid", metavar="ID", help="which key it is, for daemons that know several")
    parser.add_argument("--audience", metavar="NAME", required=True, help="[signed_tickets] audience of the daemons")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--file", metavar="PATH", help="a file or block device, as the daemons see it")
    what.add_argument("--url", metavar="URL", help="the disk at a file:, nbd:, https: or image: URL")
    parser.add_argument("--read", action="store_true", help="allow downloads only, not uploads")
    parser.add_argument("--size", type=kinds.size, help="the size of the disk, such as 10g (default that of the file)")
    parser.add_argument(
        "--lifetime", type=kinds.duration, metavar="TIME", default=3600, help="end after this time (default 1h)"
    )
    parser.add_argument(
        "--timeout",
        type=kinds.duration,
        metavar="TIME",
        default=defaults.timeout,
        help=f"close a disk that is not used for this time (default {units.duration(defaults.timeout)})",
    )
    parser.add_argument("--jti", metavar="ID", help="the name of the ticket; one that is in use is renewed")
    parser.add_argument("--server", metavar="URL", help="print a URL on this server, such as https://host:54322")


def natural(text: str) -> int:
    """Return a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return int(text)


def interval(text: str) -> float:
    """Return a time that leaves the service some peace."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.1 to 3600 seconds")
    return value


def add_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Add the ticket in a file, or one that is made here."""
    if args.filename is not None:
        if args.read or args.size is not None or args.timeout is not None:
            args.parser.error("--read, --size and --timeout are for --file and --url: a JSON file tells these itself")
        client.add_ticket(document.read(args.filename))
        return
    config = api.load_config(args.conf_dir)
    wanted = document.DiskChoice(args.file, args.url, args.size, args.read)
    if args.timeout is not None:
        wanted = wanted._replace(timeout=args.timeout)
    ticket = document.make(wanted)
    url = document.transfer_url(config, ticket["uuid"])
    client.add_ticket(ticket)
    print(url)
    hint = document.hint(wanted)
    if hint:
        output.complain(PROGRAM, hint)


def sign_ticket(args: argparse.Namespace) -> None:
    """Print a signed ticket, or a URL that holds it. Asks no service."""
    disk = document.DiskChoice(args.file, args.url, args.size, args.read, args.timeout)
    jti, token = signing.sign(signing.Wish(disk, args.audience, args.lifetime, args.jti), args.key, args.kid)
    print(signing.presigned(args.server, jti, token) if args.server else token)


def find(client: api.Client, args: argparse.Namespace) -> dict[str, Any]:
    """Return the state of the ticket that the user means. Raises Mistake unless there is exactly one."""
    # As `list` shows it.
    found = client.find_tickets(args.ticket.removesuffix("..."))
    if not found:
        raise Mistake("No such ticket; `ovirt-imageioctl list` shows those there are")
    if len(found) > 1:
        names = ", ".join(info["transfer_id"] for info in found[:5])
        raise Mistake(f"{args.ticket!r} may mean {len(found)} tickets: {names}; type more of the id")
    return found[0]


def show_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Print the state of a ticket."""
    print(json.dumps(find(client, args), indent=2))


def mod_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Change a ticket."""
    wanted = {"timeout": args.timeout, "inactivity_timeout": args.inactivity_timeout}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        args.parser.error("nothing to change: use --timeout or --inactivity-timeout")
    client.mod_ticket(find(client, args)["uuid"], changes)


def del_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Remove a ticket, or all of them."""
    if (args.ticket is None) != args.all:
        args.parser.error("name one TICKET, or use --all")
    if args.dry_run:
        wanted = None if args.all else find(client, args)["uuid"]
        infos = [info for info in client.list_tickets() if wanted is None or wanted.startswith(info["uuid_prefix"])]
        print("\n".join(table(infos, output.width(sys.stdout))))
    elif args.all:
        client.del_all_tickets()
    elif args.ticket.startswith(SIGNED) and not client.find_tickets(args.ticket):
        # No client has shown it yet; from now on the daemon refuses it.
        client.del_ticket(args.ticket[len(SIGNED) :])
    else:
        client.del_ticket(find(client, args)["uuid"])


def list_tickets(client: api.Client, args: argparse.Namespace) -> None:
    """Print all tickets."""
    infos = client.list_tickets()
    print(json.dumps(infos, indent=2) if args.json else "\n".join(table(infos, output.width(sys.stdout))))


def show_top(client: api.Client, args: argparse.Namespace) -> None:
    """Show what goes on until the user quits."""
    top(client.list_tickets, args.interval, args.rounds)


def start_profile(client: api.Client, args: argparse.Namespace) -> None:
    """Start the profiler."""
    client.start_profile(args.clock)


def stop_profile(client: api.Client, args: argparse.Namespace) -> None:
    """Stop the profiler."""
    client.stop_profile()
