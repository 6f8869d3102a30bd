"""Settings arrive at the other process as they were."""

from __future__ import annotations

import pytest

from ovirt_imageio.exports.settings import Settings


@pytest.mark.parametrize(
    "settings",
    [
        Settings("/run/x", ()),
        Settings(
            "/run/x", ("rbd:vms/*", "file:///a/*"), ("bwrap", "--"), "/etc/secrets", 0.5, ("qemu", 107, 107), True
        ),
    ],
)
def test_there_and_back(settings):
    assert Settings.decode(settings.encode()) == settings
