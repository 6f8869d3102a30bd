"""From root to the user that owns the disks.

Root is needed only to open what the user may not: ports below 1024, private keys, the first log file. Knows users,
groups and owners of files; knows nothing of what they are for.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ovirt_imageio.errors import ConfigError

__all__ = ["Account", "find_account", "find_group", "find_login", "find_user"]

log = logging.getLogger("server")


@dataclass(frozen=True)
class Account:
    """The user and groups that we want to have."""

    user_name: str
    uid: int
    gid: int

    def own(self, paths: Iterable[str]) -> None:
        """Give files that exist to this account. Needs root."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, self.uid, self.gid)

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Be this account until the end of the block. Needs root.

        Threads: the process must have one only, as the system gives this account to all of them.
        """
        groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
        os.initgroups(self.user_name, self.gid)
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)
            os.setgroups(groups)

    def become(self) -> None:
        """Become this account for good, with all groups that it is a member of. Needs root."""
        os.initgroups(self.user_name, self.gid)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        log.info("Running as user=%s uid=%d gid=%d groups=%s", self.user_name, self.uid, self.gid, os.getgroups())


def find_account(user_name: str, group_name: str) -> Account:
    """Return the account of these names. Raises ConfigError if the system does not know them."""
    return Account(user_name, find_user(user_name), find_group(group_name))


def find_login(name: str, section: str, key: str) -> Account:
    """Return the account of a user, with the group of its own. Raises ConfigError, which names section and key."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(key, name, "a user of this system", section) from None
    return Account(name, found.pw_uid, found.pw_gid)


def find_user(name: str) -> int:
    """Return the id of a user. Raises ConfigError."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        expected = "a user of this system, or drop_privileges = false"
        raise ConfigError("user_name", name, expected, "daemon") from None


def find_group(name: str) -> int:
    """Return the id of a group. Raises ConfigError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError("group_name", name, "a group of this system", "daemon") from None
