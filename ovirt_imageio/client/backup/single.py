"""A backup in one file, from a transfer URL: the whole disk, or what changed, on top of an earlier backup.

    FILE.partial      while it is written; what a program leaves that is killed is overwritten by the next one
    FILE              when all is there, and flushed

Knows files and downloads; knows nothing of engines.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Optional

from ovirt_imageio.client import local
from ovirt_imageio.client.backup.folder import PARTIAL, digest, flush, writing
from ovirt_imageio.client.errors import ImageExists, InvalidArgument
from ovirt_imageio.client.transfer import Download, TransferOptions

__all__ = ["Backup", "publish"]


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup. With `base`, the image of an earlier one, it is what changed since; the server must know that."""

    url: str
    filename: str
    cafile: Optional[str]
    options: TransferOptions
    base: Optional[str] = None

    def run(self) -> None:
        """Make it. Raises ImageExists if there is something at filename."""
        download = self._download()
        download.run()
        partial, path = Path(download.filename), Path(self.filename)
        with writing(f"write {path}"):
            flush(partial)
            publish(partial, path)
            flush(path.absolute().parent)

    def describe(self) -> dict[str, Any]:
        """Return what there is to tell of it, once it is made."""
        path = Path(self.filename)
        found = {"size": local.info(self.filename)["virtual-size"], "bytes": path.stat().st_size}
        return {"filename": self.filename, "base": self.base, **found, "sha256": digest(path)}

    def rehearse(self) -> int:
        """Check what can be checked before anything is created; return the size of the disk."""
        return self._download().rehearse()

    def _download(self) -> Download:
        local.check_path(self.filename)
        if os.path.lexists(self.filename):
            raise ImageExists(self.filename)
        base, base_format = None, None
        if self.base is not None:
            image = local.find(self.base)
            if image.format not in ("qcow2", "raw"):
                raise InvalidArgument("base", self.base, f"a backup, in the format qcow2 or raw, not {image.format}")
            # Seen from the new image, so that both can be moved together.
            folder = os.path.dirname(os.path.realpath(self.filename))
            base, base_format = os.path.relpath(os.path.realpath(self.base), folder), image.format
        return Download(
            self.url,
            f"{self.filename}{PARTIAL}",
            self.cafile,
            self.options,
            incremental=self.base is not None,
            backing_file=base,
            backing_format=base_format,
        )


def publish(partial: Path, path: Path) -> None:
    """Give a file its name. Raises ImageExists if another program has taken it meanwhile."""
    try:
        # Not rename(): that would replace what is there.
        os.link(partial, path)
    except FileExistsError:
        raise ImageExists(str(path)) from None
    except OSError:
        # Not all file systems know links.
        os.rename(partial, path)
    else:
        partial.unlink()
