"""Tell abilities of every wrong type; what makes no sense counts as not told."""

from __future__ import annotations

from fakes.liar import Honest

EXPECTED = None


class Lie(Honest):
    """See the module."""

    def abilities(self):
        return {
            **super().abilities(),
            "max_readers": -5,
            "max_writers": "many",
            "features": ["extents", 7, None, {}],
            "size": len(self.data),
        }
