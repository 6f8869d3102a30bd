"""Send a disk as a qcow2 image that holds only its data.

Knows backends and the layout of the image; knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.geometry.qcow2 import DiskRange, Qcow2Layout
from ovirt_imageio.ops.operations import Operation
from ovirt_imageio.relay import Sink

__all__ = ["ReadQcow2"]


class ReadQcow2(Operation):
    """Send a range of the image to a sink.

    `offset`, `length` and `done` count bytes of the image. What was moved is what the range has of the disk.

    Threads: those of Operation.
    """

    name = "read"
    is_answering = True

    def __init__(self, backend: Backend, sink: Sink, layout: Qcow2Layout, offset: int, length: int) -> None:
        super().__init__(backend, offset, length)
        self._sink = sink
        self._layout = layout

    def run(self) -> None:
        """Send the range; raises errors.PartialContent if the disk ends before its data does."""
        for part in self._layout.parts(self.offset, self.length):
            if isinstance(part, DiskRange):
                self._backend.send_to(self._sink, part.offset, part.length, self.advance)
            else:
                self._sink.write(memoryview(part))
                self.advance(len(part))

    def moved_since(self, done: int) -> Iterable[tuple[int, int]]:
        """Yield the ranges of the disk that were moved since `done` had this value."""
        return self._layout.disk_ranges(self.offset + done, self.done - done)

    def __str__(self) -> str:
        return f"{super().__str__()} as qcow2"
