"""Every key of the configuration: its section, type, default and limits.

docs/configuration.md tells the long story of each. Pure: knows no files, and nothing of what the values are used for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Optional

from ovirt_imageio.config.kinds import (
    LONGEST,
    Value,
    parse_choice,
    parse_file,
    parse_integer,
    parse_level,
    parse_seconds,
    parse_socket,
    parse_switch,
)

__all__ = [
    "TLS",
    "BackendFile",
    "BackendHttp",
    "BackendNbd",
    "Config",
    "Control",
    "Daemon",
    "Export",
    "Local",
    "Numbers",
    "Parser",
    "Profile",
    "Remote",
    "Sessions",
    "find_parsers",
    "section_names",
    "to_dict",
]

Parser = Callable[[str], Value]


def _parsed(parse: Parser) -> Mapping[str, Any]:
    return {"parse": parse}


def text(default: str = "") -> str:
    """Declare a key that takes any text."""
    return field(default=default, metadata=_parsed(str))


def file_name() -> str:
    """Declare a key that takes the path of a file."""
    return field(default="", metadata=_parsed(parse_file))


def integer(default: int, low: int = 0, high: int = 2**31 - 1) -> int:
    """Declare a key that takes an integer."""
    return field(default=default, metadata=_parsed(partial(parse_integer, low=low, high=high)))


def seconds(default: float, low: float = 0.0) -> float:
    """Declare a key that takes a time."""
    return field(default=default, metadata=_parsed(partial(parse_seconds, low=low)))


def switch(default: bool) -> bool:
    """Declare a key that takes a boolean."""
    return field(default=default, metadata=_parsed(parse_switch))


def choice(default: str, *others: str) -> str:
    """Declare a key that takes one of a few words."""
    return field(default=default, metadata=_parsed(partial(parse_choice, choices=(default, *others))))


def socket_name(default: str) -> str:
    """Declare a key that takes the name of a Unix socket."""
    return field(default=default, metadata=_parsed(parse_socket))


def _buffer_size() -> int:
    # Kept for the files that set it: how much moves at once is chosen to fit the caches of processors.
    return integer(8 * 1024**2, low=4096, high=128 * 1024**2)


@dataclass(frozen=True)
class Daemon:
    """The process, and what holds for every ticket."""

    # Kept for the files that set it: nothing polls anymore.
    poll_interval: float = seconds(1.0)
    # What one ticket is told to use, see OPTIONS.
    max_connections: int = integer(8, low=1, high=1024)
    # What it may use. One more gets 503, unless one of them stands still.
    max_ticket_connections: int = integer(128, low=1, high=100_000)
    inactivity_timeout: int = integer(60, low=1, high=LONGEST)
    # How long running requests may take to finish when we are asked to stop.
    drain_timeout: float = seconds(30.0)
    run_dir: str = text("/run/ovirt-imageio")
    drop_privileges: bool = switch(True)
    user_name: str = text("ovirtimg")
    group_name: str = text("ovirtimg")
    systemd_enable: bool = switch(True)


@dataclass(frozen=True)
class TLS:
    """What the remote listener shows to its clients."""

    enable: bool = switch(True)
    key_file: str = file_name()
    cert_file: str = file_name()
    ca_file: str = file_name()
    enable_tls1_1: bool = switch(False)
    # auto: the kernel encrypts where it can, also to the origins of a proxy.
    kernel: str = choice("auto", "off")


@dataclass(frozen=True)
class BackendFile:
    """Images in local files and block devices."""

    buffer_size: int = _buffer_size()


@dataclass(frozen=True)
class BackendHttp:
    """Images that another daemon serves: the proxy."""

    # Empty means [tls] ca_file.
    ca_file: str = file_name()
    buffer_size: int = _buffer_size()
    connect_timeout: float = seconds(10.0, low=0.1)
    read_timeout: float = seconds(60.0, low=0.1)


@dataclass(frozen=True)
class BackendNbd:
    """Images that an NBD server serves, usually qemu-nbd or a running virtual machine."""

    buffer_size: int = _buffer_size()
    connect_timeout: float = seconds(10.0, low=0.1)
    # A flush of a big page cache to slow storage takes minutes; a canceled ticket does not wait for this.
    reply_timeout: float = seconds(300.0, low=0.1)


@dataclass(frozen=True)
class Remote:
    """The listener for clients on the network, and the limits that hold for every listener."""

    host: str = text("::")
    port: int = integer(54322, high=65535)
    # On each listener. One more gets 503.
    max_connections: int = integer(1000, low=1, high=100_000)
    # Of one address. 0: three quarters of all, so that the others are left some.
    max_client_connections: int = integer(0, high=100_000)
    handshake_timeout: float = seconds(10.0, low=0.1)
    header_timeout: float = seconds(20.0, low=0.1)
    # A connection that used no ticket yet. Pooled connections wait for minutes while the first one lists extents.
    idle_timeout: float = seconds(60.0, low=0.1)


@dataclass(frozen=True)
class Local:
    """The listener for clients on this host."""

    enable: bool = switch(True)
    socket: str = socket_name("\0/org/ovirt/imageio")


@dataclass(frozen=True)
class Control:
    """The listener that manages tickets."""

    enable: bool = switch(True)
    transport: str = choice("unix", "tcp")
    socket: str = socket_name("/run/ovirt-imageio/sock")
    # For tcp. -1 is what older files say when they mean that there is none.
    port: int = integer(54324, low=-1, high=65535)
    prefer_ipv4: bool = switch(True)
    # How long DELETE waits for running operations; 0 answers at once.
    remove_timeout: int = integer(60, high=LONGEST)
    # How long an upload whose last bytes are on their way may go on after DELETE.
    remove_grace: float = seconds(2.0)
    # Expired tickets can still be looked at for so long.
    purge_after: int = integer(3600, high=30 * LONGEST)


@dataclass(frozen=True)
class Numbers:
    """The listener for monitoring: metrics and health, and nothing else. Plain HTTP."""

    enable: bool = switch(False)
    host: str = text("::")
    port: int = integer(54325, high=65535)


@dataclass(frozen=True)
class Page:
    """The page that shows a disk in a browser: /view#TICKET."""

    enable: bool = switch(False)


@dataclass(frozen=True)
class Sessions:
    """Sessions that begin with a token signed by the engine."""

    enable: bool = switch(False)
    engine_cert_file: str = file_name()
    engine_ca_cert_file: str = file_name()
    allow_sha1: bool = switch(False)
    allowed_skew_seconds: int = integer(0, high=LONGEST)


@dataclass(frozen=True)
class SignedTickets:
    """Tickets that are their own proof: signed by the holder of a key that is named here."""

    enable: bool = switch(False)
    # One key for all, or a folder with a file KID.pem for each.
    key_file: str = file_name()
    keys_dir: str = file_name()
    # Whom a ticket must be for.
    audience: str = text("")
    # Patterns of the URLs that a ticket may name, with blanks or line breaks between them. Nothing by default.
    allow: str = text("")
    allowed_skew_seconds: int = integer(0, high=LONGEST)
    # What is revoked: a jti on each line.
    deny_file: str = file_name()


@dataclass(frozen=True)
class Export:
    """Images that tickets name, each of which gets a qemu-nbd of its own."""

    enable: bool = switch(False)
    # Patterns of the URLs of images, with blanks or line breaks between them. Nothing by default.
    allow: str = text("")
    # Whom qemu-nbd runs as; empty: the user of the daemon.
    user: str = text("")
    # The command that runs qemu-nbd.
    sandbox: str = text("")
    # A folder with a file for each passphrase.
    secrets_dir: str = file_name()
    # How long a server may take to start: an image on a network is looked for.
    start_seconds: float = seconds(30.0, low=0.1)
    # How long a server that no connection uses is kept for the next one.
    idle_seconds: float = seconds(10.0)


@dataclass(frozen=True)
class Profile:
    """The profiler."""

    filename: str = text("/run/ovirt-imageio/profile")


# The sections of logging.config.fileConfig, which defines their meaning.
LOGGING: Mapping[str, Mapping[str, Value]] = {
    "loggers": {"keys": "root"},
    "handlers": {"keys": "logfile"},
    "formatters": {"keys": "long"},
    "logger_root": {"level": "INFO", "handlers": "logfile", "propagate": 0},
    "handler_logfile": {
        "class": "logging.handlers.RotatingFileHandler",
        "args": '("/var/log/ovirt-imageio/daemon.log",)',
        "kwargs": '{"maxBytes": 20971520, "backupCount": 10}',
        "level": "DEBUG",
        "formatter": "long",
    },
    "handler_stderr": {"class": "logging.StreamHandler", "args": "()", "level": "DEBUG", "formatter": "long"},
    "formatter_long": {"format": "%(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s"},
}

# A name that ends in _ is the beginning of a name: [handler_anything].
_LOGGING_KEYS: Mapping[str, Mapping[str, Parser]] = {
    "loggers": {"keys": str},
    "handlers": {"keys": str},
    "formatters": {"keys": str},
    "logger_": {
        "level": parse_level,
        "handlers": str,
        "qualname": str,
        "propagate": partial(parse_integer, low=0, high=1),
    },
    "handler_": {"class": str, "args": str, "kwargs": str, "level": parse_level, "formatter": str},
    "formatter_": {"class": str, "format": str, "datefmt": str, "style": str, "validate": str, "defaults": str},
}


@dataclass(frozen=True)
class Config:
    """Everything that can be configured, section by section: `config.remote.port`."""

    daemon: Daemon = Daemon()
    tls: TLS = TLS()
    backend_file: BackendFile = BackendFile()
    backend_http: BackendHttp = BackendHttp()
    backend_nbd: BackendNbd = BackendNbd()
    remote: Remote = Remote()
    local: Local = Local()
    control: Control = Control()
    metrics: Numbers = Numbers()
    sessions: Sessions = Sessions()
    page: Page = Page()
    signed_tickets: SignedTickets = SignedTickets()
    export: Export = Export()
    profile: Profile = Profile()
    # The sections of the logging library, as they are.
    logging: Mapping[str, Mapping[str, Value]] = field(default_factory=lambda: LOGGING)
    # What was found in the files and not understood, one sentence each.
    warnings: tuple[str, ...] = ()

    @property
    def origin_ca(self) -> tuple[str, str]:
        """The section whose `ca_file` verifies the servers that we connect to, and that file."""
        own = self.backend_http.ca_file
        return ("backend_http", own) if own else ("tls", self.tls.ca_file)


def to_dict(config: Config) -> dict[str, dict[str, Value]]:
    """Return the configuration as plain dictionaries, section by section."""
    sections = {name: dataclasses.asdict(getattr(config, name)) for name in _typed_sections()}
    sections.update((name, dict(options)) for name, options in config.logging.items())
    return sections


def section_names() -> list[str]:
    """Return the names of the sections that have a default."""
    return [*_typed_sections(), *LOGGING]


def find_parsers(section: str) -> Optional[Mapping[str, Parser]]:
    """Return the parser of every key that a section may have, None if there is no such section."""
    known = _typed_sections()
    if section in known:
        return {item.name: item.metadata["parse"] for item in dataclasses.fields(known[section])}
    for name, keys in _LOGGING_KEYS.items():
        if section == name or (name.endswith("_") and section.startswith(name)):
            return keys
    return None


def _typed_sections() -> dict[str, Any]:
    """Return the sections that are dataclasses, by name."""
    return {item.name: item.default for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.default)}
