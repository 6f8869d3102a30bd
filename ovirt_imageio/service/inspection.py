"""Look for everything that would keep the daemon from starting, without starting it.

Knows the configuration and the system that it will meet: users, files, ports. Leaves only empty log files behind, where
the daemon would make them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.config import Config, find_contradictions
from ovirt_imageio.httpd.listener import Address, ListenError, TcpAddress, UnixAddress, listen
from ovirt_imageio.service import exporting, logs, places, privileges, trust

__all__ = ["find_mistakes", "is_running"]

# How long a daemon on this host may take to accept a connection.
CONNECT_TIMEOUT = 2.0


def find_mistakes(config: Config, now: Optional[float] = None) -> Iterator[errors.Error]:
    """Yield every mistake in a configuration whose values were read, as the error that a start would raise.

    now: in seconds since the epoch; an expired certificate is a mistake, too.
    """
    yield from find_contradictions(config)
    yield from missing_accounts(config)
    if config.export.enable:
        yield from raised(lambda: exporting.check(config))
    yield from unusable_files(config, time.time() if now is None else now)
    yield from unusable_logs(config)
    if not is_running(config):
        yield from unusable_addresses(config)


def missing_accounts(config: Config) -> Iterator[errors.Error]:
    """Yield the user and the group that the daemon becomes, if the system does not know them."""
    daemon = config.daemon
    if daemon.drop_privileges:
        yield from raised(lambda: privileges.find_user(daemon.user_name))
        yield from raised(lambda: privileges.find_group(daemon.group_name))


def raised(action: Callable[[], object]) -> Iterator[errors.ConfigError]:
    """Yield the mistake that an action meets."""
    try:
        action()
    except errors.ConfigError as error:
        yield error


def unusable_files(config: Config, now: float) -> Iterator[errors.Error]:
    """Yield the files that cannot be read, and those that do not hold what they should."""
    unreadable: set[tuple[str, str]] = set()
    for section, key, path in trust.files(config):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            unreadable.add((section, key))
            expected = f"a file that we can read: {os.strerror(error.errno or 0).lower()}"
            yield errors.ConfigError(key, path, expected, section)
    tls, sessions = config.tls, config.sessions
    if tls.enable and tls.cert_file and tls.key_file and not unreadable & {("tls", "cert_file"), ("tls", "key_file")}:
        yield from raised(lambda: check_certificate(config, now))
    is_whole = sessions.engine_cert_file and sessions.engine_ca_cert_file
    if sessions.enable and is_whole and "sessions" not in {section for section, _ in unreadable}:
        yield from raised(lambda: trust.open_engine(config))
    section, path = config.origin_ca
    if path and (section, "ca_file") not in unreadable:
        yield from unusable_authorities(config)


def check_certificate(config: Config, now: float) -> None:
    """Raise errors.ConfigError if clients could not be served with our certificate."""
    context = trust.server_context(config)
    assert context
    if context.expires is not None and context.expires < now:
        end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(context.expires))
        raise errors.ConfigError(
            "cert_file", config.tls.cert_file, f"a certificate that is valid, not until {end}", "tls"
        )


def unusable_authorities(config: Config) -> Iterator[errors.Error]:
    """Yield the file of authorities if the user that the daemon becomes cannot use it."""
    daemon = config.daemon
    if os.geteuid() != 0 or not daemon.drop_privileges:
        yield from raised(lambda: trust.check_authorities(config))
    elif not any(missing_accounts(config)):
        with privileges.find_account(daemon.user_name, daemon.group_name).acting():
            found = list(raised(lambda: trust.check_authorities(config)))
        yield from found


def unusable_logs(config: Config) -> Iterator[errors.Error]:
    """Yield what keeps the log from being opened."""
    if not any(find_contradictions(config)):
        yield from raised(lambda: logs.start(config.logging, {}))


def unusable_addresses(config: Config) -> Iterator[errors.Error]:
    """Yield the addresses that are taken, or that are not for this user; TCP is tried, a socket needs a folder."""
    if config.remote.port != 0:
        yield from unusable(places.remote_address(config))
    if config.metrics.enable and config.metrics.port != 0:
        yield from unusable(places.metrics_address(config))
    for section, address in addresses_on_this_host(config):
        if isinstance(address, TcpAddress):
            yield from unusable(address) if address.port > 0 else ()
        elif address.path and not address.is_abstract:
            folder = os.path.dirname(address.path)
            # The unit makes the one of the default.
            if not os.path.isdir(folder) and folder != Config().daemon.run_dir:
                yield errors.ConfigError("socket", address.path, f"a path in a folder; {folder} is not there", section)


def unusable(address: Address) -> Iterator[errors.Error]:
    """Yield why we cannot listen."""
    try:
        listen(address).close()
    except ListenError as error:
        yield error


def addresses_on_this_host(config: Config) -> Iterator[tuple[str, Address]]:
    """Yield where the local and the control listener will be, with their section."""
    if config.local.enable:
        yield "local", UnixAddress(config.local.socket)
    if config.control.enable:
        yield "control", places.control_address(config)


def is_running(config: Config) -> bool:
    """Tell whether a process answers where this configuration has its control listener: it has the ports, too."""
    address = places.control_address(config)
    try:
        if isinstance(address, TcpAddress):
            socket.create_connection((address.host, address.port), CONNECT_TIMEOUT).close()
        else:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_TIMEOUT)
                client.connect(address.path)
    except (OSError, OverflowError):
        return False
    return config.control.enable
