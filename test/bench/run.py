"""Measure: run.py [ONLY...]

Runs the lines whose names contain one of the words, all by default, and prints medians. Close everything else: other
work on the machine is measured, too.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from bench import client_lines, file_lines, httpd_lines, nbd_lines, proxy_lines, ticket_lines  # noqa: E402  (the path comes first)
from bench.lines import Line  # noqa: E402

# Each module offers LINES.
MODULES = [client_lines, file_lines, httpd_lines, nbd_lines, proxy_lines, ticket_lines]


def main(only: list[str]) -> int:
    """Measure and print; return an exit status."""
    lines = [line for module in MODULES for line in module.LINES if not only or any(word in line.name for word in only)]
    if not lines:
        names = ", ".join(line.name for module in MODULES for line in module.LINES)
        print(f"No such line; there are: {names}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for line in lines:
        show(line)
    return 0


def show(line: Line) -> None:
    """Measure one line, print what came out."""
    print(f"\n{line.name}: {line.about or line.unit}", flush=True)
    results = line.measure()
    for result in results:
        print(f"  {result} {line.unit}")
    verdict = line.verdict(results)
    if verdict:
        print(f"  {verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
