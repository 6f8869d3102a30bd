"""How bytes move: a source, a sink, and the ways between them.

    source ──> slot ──> sink        bytes that pass through us: TLS, or data that must be looked at      ring.py
    source ──> pipe ──> sink        bytes that stay in the kernel: both ends are plain descriptors       pipe.py

Knows descriptors and views; knows nothing of disks, protocols and HTTP.
"""

from ovirt_imageio.relay.ends import Progress, Sink, Source, fill
from ovirt_imageio.relay.pipe import Pipe, splice_ahead
from ovirt_imageio.relay.ring import Tally, read_ahead, write_behind
from ovirt_imageio.relay.worker import Worker

__all__ = [
    "Pipe",
    "Progress",
    "Sink",
    "Source",
    "Tally",
    "Worker",
    "fill",
    "read_ahead",
    "splice_ahead",
    "write_behind",
]
