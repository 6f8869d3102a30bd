"""Allow a million connections: the caller decides how many there are."""

from __future__ import annotations

from fakes.liar import Honest

EXPECTED = None


class Lie(Honest):
    """See the module."""

    def abilities(self):
        return {**super().abilities(), "max_readers": 10**6}
