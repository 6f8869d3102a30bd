"""Disk images over HTTPS: see docs/architecture.md for the map of this package."""

from ovirt_imageio.version import __version__

__all__ = ["__version__"]
