"""Log lines for the journal of systemd, with fields to look for: `journalctl TRANSFER=...`.

Speaks the protocol itself, so that nothing needs to be installed: a datagram for each line, as
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ says. Knows how we write names of transfers and connections into lines;
knows nothing of the configuration.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping

__all__ = ["JournalHandler", "is_behind"]

ADDRESS = "/run/systemd/journal/socket"

# A datagram is limited by the buffer of the socket, 208 KiB by default. Longer ones would have to go into files.
LONGEST = 64 * 1024

# The journal should take a line at once; if it hangs, we go on.
SECONDS = 1.0

# What a line says of what it is about, as in `CUT transfer=T connection=7: too slow`.
ABOUT = re.compile(r"\b(transfer|connection)=([^\s:,]+)")

# Those of syslog(3).
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalHandler(logging.Handler):
    """Sends each line to the journal.

    Threads: any.
    """

    def __init__(self, address: str = ADDRESS) -> None:
        super().__init__()
        self._address = address
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.settimeout(SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:LONGEST]
            self._sender.sendto(b"".join(encoded(fields(record, text))), self._address)
        except Exception:
            # As every handler of the library: a log that fails must not fail what is logged.
            self.handleError(record)

    def close(self) -> None:
        self._sender.close()
        super().close()


def fields(record: logging.LogRecord, text: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a line."""
    yield "MESSAGE", text
    yield "PRIORITY", str(PRIORITIES.get(record.levelno, 6))
    yield "SYSLOG_IDENTIFIER", "ovirt-imageio"
    yield "LOGGER", record.name
    yield "THREAD_NAME", record.threadName or ""
    # Of the first line: what follows is a traceback.
    for name, value in dict(ABOUT.findall(record.getMessage())).items():
        yield name.upper(), value


def encoded(pairs: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """Yield the fields as the journal reads them: a value with line feeds has its length before it."""
    for name, value in pairs:
        data = value.encode(errors="replace")
        if b"\n" in data:
            yield name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            yield name.encode() + b"=" + data + b"\n"


def is_behind(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Return True if what is written to this descriptor goes to the journal; see $JOURNAL_STREAM in systemd.exec(5)."""
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False
