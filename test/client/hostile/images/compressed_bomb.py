"""A small file that is a large disk; its memory is bounded, and it is what it says."""

from __future__ import annotations

import subprocess

from fakes import images

EXPECTED = None
DISK = images.BOMB


def make(folder, secret):
    plain = folder / "plain"
    plain.write_bytes(b"\xaa" * images.BOMB)
    bomb = folder / "a.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", plain, bomb], check=True)
    plain.unlink()
    assert bomb.stat().st_size < images.BOMB // 100
    return {"filename": bomb}
