"""A small disk to try things with: a file system with a text in it.

Made without root: mke2fs fills a file system from a folder. Where it is not installed, the text is the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ovirt_imageio import units
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.node import location

__all__ = ["create"]

SIZE = 16 * units.MiB

TEXT = """\
This disk was made by `ovirt-imageio serve --demo`, and you have just downloaded it.

Upload a disk of your own in its place, or serve another image:

    ovirt-imageio serve disk.qcow2
"""

# For ordinary users PATH has no folders of administrators.
ADMIN_FOLDERS = "/usr/sbin:/sbin"


def create(path: str, format: str) -> None:
    """Create a demo disk in an image of the format. Raises errors.BackendUnavailable, OSError."""
    with tempfile.TemporaryDirectory(prefix="imageio-") as name:
        folder, raw = Path(name, "content"), Path(name, "disk.raw")
        folder.mkdir()
        (folder / "README.txt").write_text(TEXT)
        raw.touch()
        os.truncate(raw, SIZE)
        if not make_file_system(raw, folder):
            with open(raw, "r+b") as file:
                file.write(TEXT.encode())
        img.convert(str(raw), "raw", location(path), format)


def make_file_system(raw: Path, folder: Path) -> bool:
    """Make a file system with what is in the folder; return False if no program here can do that."""
    program = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:{ADMIN_FOLDERS}")
    if program is None:
        return False
    # Without a journal there is less to download.
    command = [program, "-q", "-t", "ext4", "-O", "^has_journal", "-L", "demo", "-d", str(folder), str(raw)]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
