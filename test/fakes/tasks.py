"""Tasks of a copy, each of one piece."""

from __future__ import annotations

from ovirt_imageio.client.copy.plan import COPY, ZERO, Task

__all__ = ["copy", "ignore", "zero"]


def copy(start: int, length: int) -> Task:
    return Task(COPY, start, length, ((start, length),))


def zero(start: int, length: int) -> Task:
    return Task(ZERO, start, length, ((start, length),))


def ignore(count: int) -> None:
    """Progress that nothing looks at."""
