"""What the administrator decided about images that tickets name, as it is told to another process.

Pure: knows no files and no processes.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Optional

__all__ = ["Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """See the keys of [export] in docs/configuration.md."""

    # For sockets, which only the daemon can reach.
    folder: str
    allow: tuple[str, ...]
    # The command that runs qemu-nbd and qemu-img.
    sandbox: tuple[str, ...] = ()
    secrets_dir: Optional[str] = None
    start_seconds: float = 30
    # Whom the helper becomes: name, uid and gid; None if it stays what it is.
    account: Optional[tuple[str, int, int]] = None
    # True if the daemon is another user, of the group of the folder.
    is_shared: bool = False

    def encode(self) -> bytes:
        """Return them for decode()."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Settings:
        """Return what encode() was given."""
        values = json.loads(data)
        account = values["account"] and tuple(values["account"])
        return cls(
            **{**values, "allow": tuple(values["allow"]), "sandbox": tuple(values["sandbox"]), "account": account}
        )
