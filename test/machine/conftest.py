"""Tests of an installed service, in a machine with systemd that they may break: `make vm` runs them in a guest.

There they are root, the packages are installed, and nothing is configured. Nowhere else are they collected.
"""

from __future__ import annotations

import os

collect_ignore_glob = [] if "IMAGEIO_MACHINE" in os.environ else ["*_test.py"]
