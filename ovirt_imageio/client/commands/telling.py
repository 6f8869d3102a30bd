"""What programs and people get to read of a command.

Knows streams and records; knows nothing of what the commands do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from typing import IO, Any, Optional

from ovirt_imageio.client import meter, records, results
from ovirt_imageio.client.options import STREAM
from ovirt_imageio.client.progress import ProgressCounter, Route
from ovirt_imageio.terminal import output

__all__ = ["existing", "progress_of", "record_stream", "show", "tell", "tell_copy"]


def tell(options: argparse.Namespace, kind: str, **fields: Any) -> None:
    """Tell what came of a command: programs get a record, people the lines that it deserves."""
    fields = {"command": options.command, **fields}
    if getattr(options, "output", "text") == "json":
        # A reader that left misses nothing.
        with contextlib.suppress(OSError):
            stream = record_stream(options)
            stream.write(records.to_line(kind, fields))
            stream.flush()
        return
    for line in results.lines(kind, fields):
        print(line)


def tell_copy(options: argparse.Namespace, progress: ProgressCounter, **fields: Any) -> None:
    """Tell what came of a copy, and which way it went."""
    route = progress.route
    way = dataclasses.asdict(route) if route else dict.fromkeys(field.name for field in dataclasses.fields(Route))
    done = {"transferred": progress.done, "elapsed": round(progress.elapsed, 3)}
    if isinstance(progress, meter.Bar) and route:
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            print(route, file=sys.stderr)
    tell(options, "result", **done, **{**way, **fields})


def record_stream(options: argparse.Namespace) -> IO[str]:
    """Return where records go: to standard output, unless a disk goes there."""
    is_taken = options.command == "download" and options.filename == STREAM
    return sys.stderr if is_taken else sys.stdout


def progress_of(options: argparse.Namespace, phase: str) -> ProgressCounter:
    """Return what shows the progress: records for programs, a bar on a terminal, nothing elsewhere."""
    if options.quiet:
        return ProgressCounter(phase)
    if options.output == "json":
        return meter.Records(phase, record_stream(options))
    return ProgressCounter(phase) if output.width(sys.stderr) is None else meter.Bar(phase, sys.stderr)


def show(options: argparse.Namespace, kind: str, document: Any) -> None:
    """Tell a document: people get it as it is."""
    if options.output == "json":
        tell(options, "result", **{kind: document})
    else:
        print(json.dumps(document, indent=2))


def existing(path: str) -> Optional[str]:
    """Return a path if there is something."""
    return path if os.path.lexists(path) else None
