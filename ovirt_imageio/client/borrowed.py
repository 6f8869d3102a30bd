"""A disk that is read, and belongs to others: what the views of one have in common.

Knows nothing of what is shown of it.
"""

from __future__ import annotations

from ovirt_imageio.backends.base import Backend

__all__ = ["BorrowedDisk"]


class BorrowedDisk(Backend):
    """Writes nothing, and closes nothing."""

    def write(self, offset: int, view: memoryview) -> None:
        """Never called."""
        raise AssertionError("a borrowed disk is only read")

    def zero(self, offset: int, length: int) -> None:
        """Never called."""
        raise AssertionError("a borrowed disk is only read")

    def flush(self) -> None:
        """Never called."""
        raise AssertionError("a borrowed disk is only read")

    def close(self) -> None:
        """Close nothing: it belongs to others."""
