"""Measure: run.py [--plot] [ONLY...]

Runs the lines whose names contain one of the words, all by default, and prints medians. All samples go to a JSON file
in .cache/bench; with --plot the figures of docs/performance are drawn, too. Close everything else: other work on the
machine is measured as well.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from bench import (  # noqa: E402  (the path comes first)
    attach_lines,
    client_lines,
    distance_lines,
    extents_lines,
    file_lines,
    httpd_lines,
    lossy_lines,
    memory_lines,
    nbd_lines,
    path_lines,
    proxy_lines,
    report,
    request_lines,
    ticket_lines,
)
from bench.arena import arena  # noqa: E402
from bench.lines import Line, Result  # noqa: E402

from ovirt_imageio.net import kernel_tls  # noqa: E402

# Each module offers LINES. Memory comes last: it is that of all lines before.
MODULES = [
    *(path_lines, request_lines, extents_lines, proxy_lines, attach_lines),
    *(client_lines, distance_lines, lossy_lines, file_lines, httpd_lines, nbd_lines, ticket_lines, memory_lines),
]

RESULTS = ROOT / ".cache" / "bench"
DOCS = ROOT / "docs" / "performance"


def main(arguments: list[str]) -> int:
    """Measure and print; return an exit status."""
    parser = argparse.ArgumentParser(description="Measure, and compare with others.")
    parser.add_argument("only", nargs="*", help="run only the lines whose name contains one of these words")
    parser.add_argument("--plot", action="store_true", help=f"write the figures to {DOCS.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    every = [line for module in MODULES for line in module.LINES]
    lines = [line for line in every if not options.only or any(word in line.name for word in options.only)]
    if not lines:
        print(f"No such line; there are: {', '.join(line.name for line in every)}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"TLS in the kernel: {kernel_tls.why_not() or 'yes'}")
    records, failed = [], []
    with arena.running():
        for line in lines:
            print(f"\n{line.name}: {line.about or line.unit}", flush=True)
            try:
                results = line.measure()
            except Exception:
                # The others are worth to know.
                traceback.print_exc()
                failed.append(line.name)
                continue
            show(line, results)
            records.append(report.record(line, results))
    path = report.save(RESULTS / time.strftime("%Y-%m-%d-%H%M%S.json"), report.run(records))
    print(f"\nTargets:\n{report.targets(records)}\n\nAll samples: {path.relative_to(ROOT)}")
    if options.plot:
        report.document(DOCS, report.run(records))
    if failed:
        print(f"These lines failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def show(line: Line, results: list[Result]) -> None:
    """Print what came out of one line, the processor that a GiB takes first."""
    costs = [f"{name} {seconds:.3f}" for name, seconds in line.cpu_per_gib(results)]
    if costs:
        print(f"  CPU s for a GiB: {', '.join(costs)}")
    for result in results:
        cpu = [f"{name} {result.cpu_median(name):.2f}" for name in result.cpu if result.samples]
        words = "" if result.missing else f" {line.unit}"
        print(f"  {result}{words}{',  CPU s: ' + ', '.join(cpu) if cpu else ''}")
    ratios = [f"{value:.2f} times {name}" for name, value in line.ratios(results)]
    if ratios:
        print(f"  {', '.join(ratios)}")
    for check in line.checks(results):
        print(f"  {check}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
