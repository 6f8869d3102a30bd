"""Make the pictures of the page for the docs: screenshots.py

A real daemon, a disk with partitions and data here and there, and Chromium without a window. Look at them.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from real import daemon as real_daemon  # noqa: E402
from real.browser import Chromium  # noqa: E402
from real.disks import gpt  # noqa: E402

GIB = 1024**3
MIB = 1024**2
SIZE = 2 * GIB

PICTURES = {"page.png": (900, "light"), "page-dark.png": (390, "dark")}


def make_disk(path: Path) -> None:
    """Make a disk as an installed system leaves it: a boot partition, much data at first, less later."""
    chance = random.Random(3)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        file.write(gpt(SIZE, ("boot", 2048, 1050623), ("root", 1050624, 4192255)))
        for start in range(MIB, SIZE, MIB):
            share = 0.9 if start < 200 * MIB else 0.6 if 512 * MIB < start < GIB else 0.08
            if chance.random() < share:
                os.pwrite(file.fileno(), chance.randbytes(4096) * chance.choice([32, 128, 256]), start)


def main() -> int:
    """Make them all; return an exit status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_disk(folder / "disk")
        with real_daemon.running(folder / "daemon", "[page]\nenable = true\n[local]\nenable = false\n") as daemon:
            url = daemon.add_ticket(url=f"file://{folder}/disk", size=SIZE, filename="web-server.raw", timeout=86000)
            for picture, (width, scheme) in PICTURES.items():
                with Chromium(folder / picture, width=width) as page:
                    page.emulate(scheme)
                    page.open(f"https://localhost:{daemon.port}/view#{url.rpartition('/')[2]}")
                    page.wait("/%/.test(document.getElementById('data').textContent)")
                    page.wait(
                        "!document.getElementById('compact').hidden && document.getElementById('hex').textContent"
                    )
                    page.run("$('map').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'})), 0")
                    page.run("$('hex').textContent = $('hex').textContent.split('\\n').slice(-6).join('\\n'), 0")
                    path = ROOT / "docs" / "images" / picture
                    path.write_bytes(page.screenshot())
                    print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
