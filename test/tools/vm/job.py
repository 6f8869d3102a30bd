"""What a guest gets with it: an archive, which is its second disk. The first program there unpacks it and runs `job`.

Knows what of this checkout belongs to it; knows nothing of qemu.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

__all__ = ["PACKAGES", "TESTS", "pack"]

# The daemon and the library come from the packages only.
PACKAGES = ("build/deb/*.deb",)

# The tests, and what they look at.
TESTS = (*PACKAGES, "build/rpm/RPMS/noarch/*.rpm", "conf", "data", "docs", "test", ".pytest.ini")


def pack(path: Path, root: Path, parts: Sequence[str], files: Mapping[str, bytes]) -> None:
    """Write an archive of parts of the checkout, and of files, all of which can be executed."""
    with tarfile.open(path, "w") as archive:
        for part in (found for pattern in parts for found in sorted(root.glob(pattern))):
            archive.add(part, str(part.relative_to(root)), filter=belongs)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))


def belongs(info: tarfile.TarInfo) -> Optional[tarfile.TarInfo]:
    """Return what of a file goes into the archive: it belongs to root there, and caches stay here."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return None if info.name.endswith(("__pycache__", ".pyc")) else info
