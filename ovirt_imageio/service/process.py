"""The life of the daemon: start in the right order, serve, reload, drain, end.

Knows the process, its signals and its manager; what is served is the listeners' business.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import signal
import socket
import threading
import time
from typing import Any, Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.config import Config
from ovirt_imageio.service import activation, logs, privileges, trust
from ovirt_imageio.service.keeping import Keeper
from ovirt_imageio.service.listeners import Listeners
from ovirt_imageio.service.notify import Notifier
from ovirt_imageio.service.signals import Signals
from ovirt_imageio.version import __version__

__all__ = ["drain", "raise_file_limit", "read_ticket", "run"]

log = logging.getLogger("server")

# Each connection needs a few; more than this does not help, and slows down programs that close them all.
OPEN_FILES = 65536

# What `systemctl status` shows is so old at most.
STATUS_INTERVAL = 10.0

# A certificate that ends within two weeks is warned of.
EXPIRY_MARGIN = 14 * 24 * 3600

# A stop that takes no longer than this says nothing of what it waits for.
QUIET = 0.5

# After a second signal we wait no longer than this.
CUT_TIMEOUT = 2.0

# A ticket has a few hundred bytes; a mistyped name of a disk image must not be read.
TICKET_LIMIT = 1024 * 1024


def run(config: Config, reload: Callable[[], Config], ticket: Any = None, notifier: Optional[Notifier] = None) -> None:
    """Serve until a signal asks to stop.

    reload: reads the configuration again. ticket: a document that is added before clients can connect.
    Raises errors.Error if the start fails.
    """
    notifier = notifier or (Notifier.from_environment() if config.daemon.systemd_enable else Notifier())
    # From here on no signal is lost: one that comes while we start stops us when we are ready.
    with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals, contextlib.ExitStack() as scope:
        log.info("Starting hostname=%s pid=%d version=%s", socket.gethostname(), os.getpid(), __version__)
        for warning in config.warnings:
            log.warning("%s", warning)
        raise_file_limit()
        inherited = activation.inherited()
        keeper = Keeper(notifier, inherited.kept)
        kept = keeper.take_listeners(config, inherited.listeners)
        listeners = Listeners(config, given={**kept, **inherited.listeners})
        scope.callback(listeners.stop)
        drop_privileges(config)
        check_authorities(config)
        if ticket is not None:
            listeners.store.add(ticket)
        warn_of_expiry(listeners.expires, time.time())
        log.info("%s", trust.describe_kernel(config))
        given = {*kept, *inherited.listeners}
        keeper.keep_listeners(config, {name: new for name, new in listeners.opened().items() if name not in given})
        # Nothing can fail from here on: what the process before has left is used once.
        go_on(listeners, keeper)
        listeners.start()
        notifier.ready()
        log.info("Ready")
        serve(listeners, signals, notifier, reload)
        notifier.stopping()

        def tell(running: str, left: int) -> None:
            text = f"Waiting up to {left} seconds for {running}; a second signal ends them at once"
            log.info("%s", text)
            notifier.status(text)

        is_orderly = drain(listeners, signals, config.daemon.drain_timeout, tell)
        if is_orderly and notifier.has_manager:
            leave(listeners, keeper)
    log.info("Stopped")


def go_on(listeners: Listeners, keeper: Keeper) -> None:
    """Go on with the tickets that the process before has left, if there are some."""
    document = keeper.take_tickets()
    if document is not None:
        try:
            listeners.resume(document)
        except errors.InvalidValue as error:
            # Not the value: it may hold an id.
            log.error("All tickets of before the restart are forgotten: %s is not %s", error.name, error.expected)


def leave(listeners: Listeners, keeper: Keeper) -> None:
    """Leave the tickets to the next process; if the service is not restarted, they are gone.

    Also when there are none: what was revoked stays so.
    """
    document = listeners.record()
    if keeper.hand_over(document):
        log.info("Left tickets=%d for a restart", len(document["tickets"]))


def serve(listeners: Listeners, signals: Signals, notifier: Notifier, reload: Callable[[], Config]) -> None:
    """Do what signals ask for until one asks to stop, and tell our manager that we live."""
    interval = min(STATUS_INTERVAL, notifier.watchdog_interval or STATUS_INTERVAL)
    while True:
        number = signals.wait(interval)
        if number is signal.SIGHUP:
            reload_all(listeners, reload)
        elif number is not None:
            log.info("Stopping signal=%d", number)
            return
        else:
            follow_certificate(listeners)
        # Describing takes the locks that serving takes: a deadlock there keeps the manager from hearing of us.
        notifier.status(listeners.describe())
        notifier.alive()


def reload_all(listeners: Listeners, reload: Callable[[], Config]) -> None:
    """Use the log level and the certificates that are in the files now; transfers do not notice."""
    log.info("Reloading signal=%d", signal.SIGHUP)
    is_good = True
    try:
        logs.set_levels(reload().logging)
    except errors.Error as error:
        log.error("Cannot reload the configuration, keeping the old one: %s", error)
        is_good = False
    try:
        listeners.reload_certificate()
        warn_of_expiry(listeners.expires, time.time())
    except errors.Error as error:
        log.error("Cannot reload the certificate, keeping the old one: %s", error)
        is_good = False
    if is_good:
        log.info("Reloaded")


def follow_certificate(listeners: Listeners) -> None:
    """Use a certificate that was renewed, without a SIGHUP: what renews it cannot send one into a container."""
    try:
        if listeners.follow_certificate():
            log.info("The certificate was renewed")
            warn_of_expiry(listeners.expires, time.time())
    except errors.Error as error:
        log.error("Cannot use the certificate that was renewed, keeping the old one: %s", error)


def warn_of_expiry(expires: Optional[int], now: float) -> None:
    """Warn when the certificate ends soon, while there is time to renew it; both in seconds since the epoch."""
    if expires is not None and expires - now < EXPIRY_MARGIN:
        end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
        log.warning("Clients accept the certificate until %s: renew it, and reload", end)


def drain(listeners: Listeners, signals: Signals, grace: float, tell: Callable[[str, int], None]) -> bool:
    """Stop the listeners; running requests get `grace` seconds, or until a second signal comes: then return False.

    tell: called now and then with what is waited for, and for how many seconds at most.
    """
    is_done = threading.Event()

    def stop() -> None:
        try:
            listeners.stop(grace)
        finally:
            is_done.set()
            signals.wake()

    stopper = threading.Thread(target=stop, name="stop", daemon=True)
    deadline = time.monotonic() + grace
    stopper.start()
    pause = QUIET
    while not is_done.is_set():
        number = signals.wait(pause)
        left = deadline - time.monotonic()
        if number is None and not is_done.is_set() and left > 0:
            tell(listeners.describe_running(), math.ceil(left))
            pause = STATUS_INTERVAL
        if number in (signal.SIGINT, signal.SIGTERM):
            log.warning("Stopping at once: asked again")
            listeners.cut()
            is_done.wait(CUT_TIMEOUT)
            return False
    stopper.join()
    return True


def drop_privileges(config: Config) -> None:
    """Become the configured user if we are root, and give it what was opened until now."""
    daemon, control = config.daemon, config.control
    if os.geteuid() != 0 or not daemon.drop_privileges:
        return
    account = privileges.find_account(daemon.user_name, daemon.group_name)
    has_socket = control.enable and control.transport == "unix" and control.socket.startswith("/")
    account.own([daemon.run_dir, *logs.log_files(), *([control.socket] if has_socket else [])])
    account.become()
    for section, key, path in trust.files(config):
        if key != "ca_file" and not os.access(path, os.R_OK):
            log.warning(
                "The user %s may not read [%s] %s = %s, which is read again later: give it to a group of that user, or "
                "renew it by a restart",
                daemon.user_name,
                section,
                key,
                path,
            )


def check_authorities(config: Config) -> None:
    """Look whether other daemons can be verified, as the user that does it. Raises errors.ConfigError if not."""
    try:
        trust.check_authorities(config)
    except errors.ConfigError as error:
        if error.section == "backend_http":
            raise
        # Hosts have it for other programs, and ask no other daemon.
        log.warning("Images of other daemons cannot be served: %s", error)


def raise_file_limit() -> None:
    """Allow as many open files as we may have: the usual limit is meant for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def read_ticket(path: str) -> Any:
    """Return the ticket document in a JSON file. Raises errors.InvalidValue."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(TICKET_LIMIT))
    except OSError as error:
        raise errors.InvalidValue("ticket file", path, f"a file that can be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise errors.InvalidValue("ticket file", path, f"JSON: {error}") from None
