"""Observers that remember what they were told."""

from __future__ import annotations

import inspect


class Called:
    """Keeps the names of the hooks that were called, each of which must exist: put it before the observer."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if inspect.ismethod(found):
            self.called.append(name)
        return found
