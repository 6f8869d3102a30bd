"""What was written and not flushed yet, and whether it may be lost.

Pure: knows no disk.
"""

from __future__ import annotations

import errno

from ovirt_imageio import errors

__all__ = ["UnflushedWrites"]


class UnflushedWrites:
    """The writes of one client since its last flush. It outlives the backend that made them.

    What breaks may take with it what was acknowledged and not flushed. Then a flush fails, and so does its repetition,
    until the client, which was told, has written something again.

    Threads: one at a time.
    """

    __slots__ = ("_has_told", "_is_lost", "_is_pending")

    def __init__(self) -> None:
        self._is_pending = False
        self._is_lost = False
        self._has_told = False

    @property
    def is_empty(self) -> bool:
        """True if nothing was acknowledged that a flush would have to make safe."""
        return not self._is_pending and not self._is_lost

    @property
    def is_lost(self) -> bool:
        """True if something may be lost, and no flush has told the client."""
        return self._is_lost and not self._has_told

    def note_write(self) -> None:
        """Note that something was written."""
        self._is_pending = True
        if self._has_told:
            self._is_lost = self._has_told = False

    def forget(self) -> None:
        """Note that nothing of what was written was acknowledged: its client knows that it must write it again."""
        self._is_pending = self._is_lost = self._has_told = False

    def note_break(self) -> None:
        """Note that the way to the disk broke: the server at its end may have died."""
        if self._is_pending:
            self._is_pending = False
            self.note_loss()

    def note_loss(self) -> None:
        """Note that something may be lost of which the client must be told."""
        self._is_lost = True
        self._has_told = False

    def pass_on_loss(self) -> bool:
        """Return whether something may be lost of which no flush has told the client: another one will."""
        was_lost = self.is_lost
        self._is_lost = self._is_lost and not was_lost
        return was_lost

    def note_flush(self) -> None:
        """Note that everything written so far is safe."""
        self._is_pending = False

    def check(self) -> None:
        """Raise errors.StorageError if a flush could not make safe what was written."""
        if self._is_lost:
            self._has_told = True
            reason = "the connection broke before they were flushed: write again what was written since the last flush"
            raise errors.StorageError("flush the last writes", reason, errno.EIO)
