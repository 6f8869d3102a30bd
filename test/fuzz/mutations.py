"""Good bytes with a few changes: closer to what a parser accepts than random ones."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["mutated"]


def mutated(data, draw):
    """Return the bytes with a few changes, each of which `draw` chooses."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if change == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 20))]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
    return bytes(data)
