"""Images that are encrypted with LUKS, made by qemu-img.

luks.create(path, "passphrase", secret_file)
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from fakes.waiting import wait_until

__all__ = ["create"]


def create(path: Path, passphrase: str, secret: Path, size: str = "1M") -> None:
    """Create an image, and the file with its passphrase."""
    secret.write_text(passphrase)
    key = ["--object", f"secret,id=s,file={str(secret).replace(',', ',,')}", "-o", "key-secret=s,iter-time=10"]
    command = ["qemu-img", "create", "-q", "-f", "luks", *key, str(path), size]

    def try_it() -> bool:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # It measures how fast the processor is, and gives up where that is busy.
        assert done.returncode == 0 or "CPU usage" in done.stderr, done.stderr
        return done.returncode == 0

    wait_until(try_it)
