"""Tell another size each time: the list is longer than the disk was."""

from __future__ import annotations

from fakes.liar import Honest

EXPECTED = None


class Lie(Honest):
    """See the module."""

    def listed(self):
        return [*super().listed(), {"start": len(self.data), "length": 2**40, "zero": False, "hole": False}]
