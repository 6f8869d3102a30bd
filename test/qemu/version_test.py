"""Which qemu-nbd there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import version as versions


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a qemu-nbd that prints `text` when it is asked for its version."""

    def install(text: str, status: int = 0) -> None:
        path: Path = tmp_path / "qemu-nbd"
        path.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
        path.chmod(0o755)
        monkeypatch.setenv("QEMU_NBD", str(path))

    return install


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("qemu-nbd 4.2.0", (4, 2, 0)),
        ("qemu-nbd 7.2.15 (Debian 1:7.2+dfsg-7)", (7, 2, 15)),
        ("qemu-nbd version 10.0.2", (10, 0, 2)),
        ("of no version", ()),
    ],
)
def test_version(installed, text, version):
    installed(text)
    assert versions.version() == version


def test_versions_are_ordered():
    assert () < (4, 2, 0) < versions.DEPTH_SINCE <= (5, 2, 0) < (10, 0, 2)


def test_fails(installed):
    installed("broken", status=1)
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run .*install it"):
        versions.version()


def test_not_installed(monkeypatch):
    monkeypatch.setenv("QEMU_NBD", "/nowhere/qemu-nbd")
    assert versions.program() == "/nowhere/qemu-nbd"
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run /nowhere/qemu-nbd.*set QEMU_NBD"):
        versions.version()


def test_default_program(monkeypatch):
    monkeypatch.delenv("QEMU_NBD", raising=False)
    assert versions.program() == "qemu-nbd"


@pytest.mark.parametrize(
    "text, advice",
    [
        ("Unknown driver 'rbd'", "install qemu-block-extra (Debian) or qemu-block-rbd (Fedora and others)"),
        ("Could not open 'x': Unknown protocol 'https'", "or qemu-block-curl (Fedora and others)"),
        ("Unknown driver 'sheep'", None),
    ],
)
def test_driver_that_is_not_installed(text, advice):
    assert (advice or text) in versions.explained(text)
    assert (versions.explained(text) == text) == (advice is None)
