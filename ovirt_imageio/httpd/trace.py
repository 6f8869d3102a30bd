"""The traceparent header (W3C Trace Context): of which work of others a request is a part.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version   the trace                  its part      flags

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

import re
from typing import Optional

__all__ = ["parse", "trace_of"]

# Versions after 00 may add fields. No version is called ff.
TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def parse(text: str) -> Optional[str]:
    """Return the header to pass on, in the version that we know; None if it is malformed, and so to be ignored."""
    match = TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    version, trace, part, flags, more = match.groups()
    if version == "00":
        return None if more else text
    # Of a newer version only the flag "sampled" is known.
    return f"00-{trace}-{part}-{int(flags, 16) & 1:02x}"


def trace_of(traceparent: str) -> str:
    """Return the id of the trace, for logs.

    >>> trace_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '4bf92f3577b34da6a3ce929d0e0e4736'
    """
    return traceparent.split("-")[1]
