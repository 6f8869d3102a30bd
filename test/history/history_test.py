"""What is read from a disk that many clients use at once could have been: on each kind of disk, over HTTP and NBD.

`make soak T=history` does it for longer, and kills processes meanwhile.
"""

from __future__ import annotations

import pytest
from history import disks
from history.campaign import run
from real import storage


@pytest.mark.parametrize("kind", disks.MEMORY)
def test_memory(kind, tmp_path):
    counts = run(kind, tmp_path, seed=1, count=60, removals=2)
    assert counts["put"] and counts["get"] and counts["nbd write"] and counts["nbd read"]


@pytest.mark.storage
@pytest.mark.parametrize("kind", disks.DAEMON)
def test_daemon(kind, tmp_path):
    try:
        counts = run(kind, tmp_path, seed=1, count=40, removals=1)
    except storage.Missing as reason:
        pytest.skip(str(reason))
    assert counts["put"] and counts["get"] and counts["nbd write"] and counts["nbd read"]
