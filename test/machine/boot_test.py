"""The machine itself."""

from __future__ import annotations

import subprocess


def test_nothing_failed():
    said = subprocess.run(
        ["systemctl", "--failed", "--plain", "--no-legend"], capture_output=True, text=True, timeout=60
    )
    assert said.stdout == ""
