"""The page for people: one file, view.html beside this module, which is sent as it is."""

from __future__ import annotations

import pkgutil

__all__ = ["load"]


def load() -> bytes:
    """Return the page."""
    content = pkgutil.get_data("ovirt_imageio.service", "view.html")
    assert content is not None
    return content
