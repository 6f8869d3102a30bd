"""What [export] means on this system: which user, which folder, which command.

Started while we may still become any user. Knows the configuration and users; how images are served is the business of
exports.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.allowed import Allowed
from ovirt_imageio.config import Config
from ovirt_imageio.errors import ConfigError
from ovirt_imageio.exports.exports import Exports
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.service import privileges
from ovirt_imageio.service.privileges import Account

__all__ = ["check", "start"]

SECTION = "export"

# The folder of each process that runs, in [daemon] run_dir.
PREFIX = "export-"


def start(config: Config) -> Exports:
    """Return what serves the images of tickets. Raises ConfigError."""
    check(config)
    account = find_account(config)
    owner = find_owner(config)
    is_shared = account is not None and account.uid != owner
    run_dir = Path(config.daemon.run_dir)
    with contextlib.ExitStack() as undo:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            clean(run_dir)
            folder = tempfile.mkdtemp(prefix=PREFIX, dir=run_dir)
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, lock)
            # Until all processes that have the descriptor are gone.
            fcntl.flock(lock, fcntl.LOCK_SH)
            if account is not None:
                share(config, folder, account, is_shared)
            exports = Exports(settings(config, folder, account, is_shared), config.export.idle_seconds, [lock])
        except OSError as error:
            expected = f"a folder for sockets, and a process that starts qemu-nbd: {error.strerror or error}"
            raise ConfigError("run_dir", str(run_dir), expected, "daemon") from None
        undo.pop_all()
        os.close(lock)
        return exports


def check(config: Config) -> None:
    """Raise ConfigError for the first mistake."""
    export = config.export
    try:
        Allowed(export.allow.split())
    except errors.InvalidValue as e:
        raise ConfigError("allow", str(e.value), e.expected, SECTION) from e
    if "image:" in export.allow:
        raise ConfigError("allow", export.allow, "patterns of the URLs behind image:FORMAT:", SECTION)
    try:
        shlex.split(export.sandbox)
    except ValueError as e:
        raise ConfigError("sandbox", export.sandbox, f"a command: {e}", SECTION) from None
    if export.secrets_dir and not os.path.isdir(export.secrets_dir):
        raise ConfigError("secrets_dir", export.secrets_dir, "a folder", SECTION)
    find_account(config)


def find_account(config: Config) -> Optional[Account]:
    """Return whom the helper becomes; None if it stays what we are. Raises ConfigError."""
    daemon, name = config.daemon, config.export.user
    is_root = os.geteuid() == 0
    if not name:
        return (
            privileges.find_account(daemon.user_name, daemon.group_name) if is_root and daemon.drop_privileges else None
        )
    account = privileges.find_login(name, SECTION, "user")
    if not is_root and account.uid != os.geteuid():
        raise ConfigError("user", name, "the user of the daemon, unless that starts as root", SECTION)
    return account if is_root else None


def find_owner(config: Config) -> int:
    """Return the id of the user that the daemon is going to be."""
    daemon = config.daemon
    is_changed = os.geteuid() == 0 and daemon.drop_privileges
    return privileges.find_user(daemon.user_name) if is_changed else os.geteuid()


def share(config: Config, folder: str, account: Account, is_shared: bool) -> None:
    """Give the folder to the user of the helper, and let the daemon use what is in it. Needs root."""
    daemon = config.daemon
    group = privileges.find_group(daemon.group_name) if daemon.drop_privileges else os.getegid()
    # The unit of the service leaves us no right to change the mode of what belongs to others.
    if is_shared:
        # Only that group reaches the sockets in it.
        os.chmod(folder, 0o710)
        # Another user gets to it by its name, and sees nothing else.
        os.chown(daemon.run_dir, os.geteuid(), -1)
        os.chmod(daemon.run_dir, os.stat(daemon.run_dir).st_mode | 0o001)
    os.chown(folder, account.uid, group if is_shared else account.gid)


def settings(config: Config, folder: str, account: Optional[Account], is_shared: bool) -> Settings:
    """Return what the helper is told."""
    export = config.export
    return Settings(
        folder=folder,
        allow=tuple(export.allow.split()),
        sandbox=tuple(shlex.split(export.sandbox)),
        secrets_dir=export.secrets_dir or None,
        start_seconds=export.start_seconds,
        account=None if account is None else (account.user_name, account.uid, account.gid),
        is_shared=is_shared,
    )


def clean(run_dir: Path) -> None:
    """Remove what processes left that were killed together with their helpers."""
    for folder in run_dir.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
