"""ovirt-imageioctl: manage the tickets of the daemon on this host.

Knows arguments and exit codes; the work is done by `api`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_imageio.admin import api
from ovirt_imageio.admin.table import table
from ovirt_imageio.admin.top import top
from ovirt_imageio.version import __version__

__all__ = ["main"]

EPILOG = """\
exit codes:
  0  success
  1  the service refused or cannot be reached, or a file cannot be used; one line on standard error tells why
  2  wrong arguments
130  interrupted
"""

# No ticket is larger; a mistyped name of a disk image must not fill the memory.
MAX_TICKET = 1024 * 1024


class Mistake(Exception):
    """The user gave us something that cannot be used."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; return its exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 0
    try:
        with api.Client(api.load_config(args.conf_dir)) as client:
            args.command(client, args)
        sys.stdout.flush()
    except (api.Error, Mistake, ValueError) as e:
        return fail(e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough. The interpreter flushes once more at its end, and must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def fail(error: Exception) -> int:
    """Tell in one line what went wrong."""
    print(f"ovirt-imageioctl: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    # The same option before and after the subcommand: that after it has no default, which would undo the other one.
    common = argparse.ArgumentParser(add_help=False)
    add_conf_dir(common, argparse.SUPPRESS)
    parser = argparse.ArgumentParser(
        prog="ovirt-imageioctl",
        description="Manage the tickets of the ovirt-imageio daemon on this host.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_conf_dir(parser, api.DEFAULT_CONF_DIR)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(command=None)
    add_commands(parser.add_subparsers(title="commands", metavar="COMMAND"), common)
    return parser


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add all commands, each with the arguments that are common to them."""

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(command=command)
        return sub

    sub = add("add-ticket", add_ticket, "Add a ticket.")
    sub.add_argument("filename", help="a JSON file with the ticket, or - for standard input")
    sub = add("show-ticket", show_ticket, "Show the state of a ticket as JSON.")
    sub.add_argument("ticket_id")
    sub = add("mod-ticket", mod_ticket, "Change a ticket.")
    sub.add_argument("ticket_id")
    sub.add_argument("--timeout", type=seconds, metavar="SECONDS", help="expire so long from now on")
    sub.add_argument(
        "--inactivity-timeout", type=seconds, metavar="SECONDS", help="let its connections stand still so long"
    )
    # argparse has no "at least one of".
    sub.set_defaults(parser=sub)
    sub = add("del-ticket", del_ticket, "Remove a ticket, after what runs on it has ended.")
    sub.add_argument("ticket_id")
    sub = add("list", list_tickets, "List all tickets, without their secret ids.")
    sub.add_argument("--json", action="store_true", help="everything that is known, as JSON")
    sub = add("top", show_top, "Watch all transfers; q quits.")
    sub.add_argument("--interval", type=interval, default=1, metavar="SECONDS", help="refresh so often (default 1)")
    sub.add_argument("--rounds", type=seconds, metavar="N", help="quit after so many rounds")
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


def seconds(text: str) -> int:
    """Return a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0")
    return int(text)


def interval(text: str) -> float:
    """Return a time that leaves the service some peace."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time from 0.1 to 3600 seconds")
    return value


def add_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Add the ticket in a file, or on standard input."""
    client.add_ticket(read_ticket(args.filename))


def read_ticket(filename: str) -> Any:
    """Return the JSON document in a file."""
    name = "standard input" if filename == "-" else filename
    try:
        if filename == "-":
            data = sys.stdin.buffer.read(MAX_TICKET + 1)
        else:
            with open(filename, "rb") as file:
                data = file.read(MAX_TICKET + 1)
    except OSError as e:
        raise Mistake(f"Cannot read {name}: {e.strerror}") from e
    if len(data) > MAX_TICKET:
        raise Mistake(f"{name} is larger than any ticket")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Mistake(f"{name} is no JSON: {e}") from e


def show_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Print the state of a ticket."""
    print(json.dumps(client.get_ticket(args.ticket_id), indent=2))


def mod_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Change a ticket."""
    wanted = {"timeout": args.timeout, "inactivity_timeout": args.inactivity_timeout}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        args.parser.error("nothing to change: use --timeout or --inactivity-timeout")
    client.mod_ticket(args.ticket_id, changes)


def del_ticket(client: api.Client, args: argparse.Namespace) -> None:
    """Remove a ticket."""
    client.del_ticket(args.ticket_id)


def list_tickets(client: api.Client, args: argparse.Namespace) -> None:
    """Print all tickets."""
    infos = client.list_tickets()
    print(json.dumps(infos, indent=2) if args.json else "\n".join(table(infos)))


def show_top(client: api.Client, args: argparse.Namespace) -> None:
    """Show what goes on until the user quits."""
    top(client.list_tickets, args.interval, args.rounds)


def start_profile(client: api.Client, args: argparse.Namespace) -> None:
    """Start the profiler."""
    client.start_profile(args.clock)


def stop_profile(client: api.Client, args: argparse.Namespace) -> None:
    """Stop the profiler."""
    client.stop_profile()
