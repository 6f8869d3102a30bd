"""What is left of a run: a JSON file with everything, a table, and a drawing.

Pure, but for save() and document(), which write files.
"""

from __future__ import annotations

import html
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from bench.lines import SERVER, Line, Result, digits

from ovirt_imageio.net import kernel_tls

__all__ = ["document", "plot", "record", "run", "save", "table", "targets"]

# A line as it is written: plain JSON.
Record = dict[str, Any]


def record(line: Line, results: Sequence[Result]) -> Record:
    """Return all that was measured of a line."""
    return {
        "name": line.name,
        "about": line.about,
        "unit": line.unit,
        "less_is_better": line.less_is_better,
        "sides": [side_record(result) for result in results],
        "cpu_per_gib": dict(line.cpu_per_gib(results)),
        "ratios": dict(line.ratios(results)),
        "targets": [
            {"target": check.target, "reached": check.reached, "good": check.is_good} for check in line.checks(results)
        ],
    }


def side_record(result: Result) -> Record:
    """Return one side of it."""
    if result.missing:
        return {"side": result.side, "missing": result.missing}
    cpu = {name: result.cpu_median(name) for name in result.cpu}
    return {"side": result.side, "median": result.median, "samples": list(result.samples), "cpu": cpu}


def run(records: Sequence[Record]) -> Record:
    """Return a whole run."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "machine": platform.machine(),
        # Who encrypts for the daemon of these lines.
        "tls": "in memory" if kernel_tls.why_not() else "in the kernel",
        "processors": os.cpu_count(),
        "lines": list(records),
    }


def save(path: Path, content: Record) -> Path:
    """Write it down; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def document(folder: Path, content: Record) -> None:
    """Write what the documentation shows: the table, the drawing, and the numbers behind them."""
    save(folder / "results.json", content)
    (folder / "results.md").write_text(table(content))
    (folder / "ratios.svg").write_text(plot(content["lines"]))
    (folder / "headline.svg").write_text(plot([line for line in content["lines"] if line["name"] in HEADLINE]))


def targets(records: Sequence[Record]) -> str:
    """Return what was reached of each target, a line each."""
    rows = [(line["name"], target) for line in records for target in line["targets"]]
    return "\n".join(f"  {name:<28} {target['target']:<32} {verdict(target)}" for name, target in rows) or "  none"


def verdict(target: Record) -> str:
    """Return what was reached of one target, in words."""
    if target["reached"] is None:
        return "not measured"
    return f"{number(target['reached'])} {'ok' if target['good'] else 'MISSED'}"


def number(value: float) -> str:
    """Return a value with as many decimals as make sense."""
    return f"{value:,.{2 if value < 10 else digits(value)}f}" if value >= 0.01 else f"{value:.1g}"


RELEASE = "release"

# What a stranger wants to know first: the usual transfers, and what did not become faster.
HEADLINE = (
    *("get-nbd-memory-unix-1", "put-nbd-memory-unix-1", "get-nbd-memory-https-1", "put-nbd-memory-https-1"),
    *("put-file-disk-https-4", "handshakes", "checksum"),
    *("client-upload-https", "client-download-https", "client-download-fragmented"),
)

HEAD = """\
# The last run

Measured with `make bench` until {date}: {processors} processors, {machine}, Linux {kernel}, Python {python}, TLS {tls}.
[../performance.md](../performance.md) tells what the lines are. Shown are medians; all samples are in
[results.json](results.json).

## The processor for a GiB

CPU seconds of the process that serves, and how many times that of the others ours are.

| line | ours | release | ratio | nginx | ratio |
|---|---|---|---|---|---|
{costs}

## The targets

Those that were missed come first.

| line | target | reached | | ours | release |
|---|---|---|---|---|---|
"""

LINES_HEAD = """
## The lines

| line | what | ours | others | ratio | CPU s, ours | CPU s, release |
|---|---|---|---|---|---|---|
"""


def table(content: Record) -> str:
    """Return all targets and all lines as tables in Markdown."""
    lines = content["lines"]
    aims = [(line, target) for line in lines for target in line["targets"]]
    aims.sort(key=lambda aim: aim[1]["good"])
    rows = [aim_row(*aim) for aim in aims] + [LINES_HEAD.rstrip("\n")] + [row(line) for line in lines]
    costs = "\n".join(cost_row(line) for line in lines if line["cpu_per_gib"])
    return HEAD.format(costs=costs, **content) + "\n".join(rows) + "\n"


def cost_row(line: Record) -> str:
    """Return what a GiB costs."""
    costs = line["cpu_per_gib"]
    ours = costs.get("ours")
    texts = [line["name"], seconds(ours)]
    for theirs in (costs.get(RELEASE), costs.get("nginx")):
        texts += [seconds(theirs), number(ours / theirs) if ours and theirs else ""]
    return cells(*texts)


def seconds(value: Optional[float]) -> str:
    """Return CPU seconds, of which thousandths are measured."""
    return "" if value is None else f"{value:.3f}"


def aim_row(line: Record, target: Record) -> str:
    """Return the row of one target."""
    reached = "not measured" if target["reached"] is None else number(target["reached"])
    sides = {side["side"]: side for side in line["sides"]}
    good = "yes" if target["good"] else "**no**"
    ours = line["sides"][0]
    return cells(line["name"], target["target"], reached, good, amount(line, ours), amount(line, sides.get(RELEASE)))


def amount(line: Record, side: Optional[Record]) -> str:
    """Return what a side reached, with its unit; nothing if it was not measured."""
    return "" if side is None or "missing" in side else f"{number(side['median'])} {line['unit']}"


def cells(*texts: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def row(line: Record) -> str:
    """Return the row of one line."""
    ours, *others = line["sides"]
    return cells(
        line["name"],
        line["about"],
        amount(line, ours),
        ", ".join(f"{side['side']} {number(side['median'])}" for side in others if "median" in side),
        ", ".join(number(value) for value in line["ratios"].values()),
        cpu_cell(ours),
        cpu_cell(next((side for side in others if side["side"] == RELEASE), {})),
    )


def cpu_cell(side: Record) -> str:
    """Return the CPU seconds of the processes of a side."""
    return ", ".join(f"{name} {value:.2f}" for name, value in side.get("cpu", {}).items())


# Of the drawing, in pixels.
ROW = 22
LEFT = 230
WIDTH = 620
TOP = 46
# What is more is cut, and its number tells.
MOST = 5.0


def plot(records: Sequence[Record]) -> str:
    """Return an SVG with bars for each line that was compared with the release: how many times as good we are.

    What a GiB takes of the processor has a bar of its own, above that of the line.
    """
    bars = [bar for line in records for bar in gains(line)]
    height = TOP + ROW * len(bars) + 14
    one = LEFT + x(1)
    title = "How many times as good as release 2.5.1"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f"  <title>{title}</title>",
        f'  <rect width="{LEFT + WIDTH + 60}" height="{height}" fill="#fff"/>',
        f'  <text x="10" y="20" font-size="14" font-weight="600" fill="#222">{title}</text>',
        f'  <text x="{one}" y="38" text-anchor="middle" fill="#555">1 x</text>',
        f'  <path d="M{one} {TOP - 4}V{height - 10}" stroke="#222" stroke-width="1"/>',
    ]
    for index, (name, better, target) in enumerate(bars):
        parts += draw(name, better, target, TOP + ROW * index)
    return "\n".join([*parts, "</svg>"]) + "\n"


def draw(name: str, better: float, target: float, top: int) -> Iterator[str]:
    """Yield one bar with its name, its number, and a mark where it should reach."""
    good = better >= (target or 1)
    yield f'  <text x="{LEFT - 8}" y="{top + 14}" text-anchor="end" fill="#222">{html.escape(name)}</text>'
    colour = "#3b6ea5" if good else "#c58a2b"
    yield f'  <rect x="{LEFT}" y="{top + 3}" width="{x(better)}" height="{ROW - 7}" fill="{colour}"/>'
    if target:
        yield f'  <path d="M{LEFT + x(target)} {top}v{ROW - 1}" stroke="#b03030" stroke-width="2.5"/>'
    # With a rim, as it may lie on a mark.
    rim = 'stroke="#fff" stroke-width="4" paint-order="stroke"'
    yield f'  <text x="{LEFT + x(better) + 12}" y="{top + 14}" {rim} fill="#222">{better:.2f}</text>'


def x(value: float) -> int:
    """Return how long a bar is."""
    return round(min(value, MOST) / MOST * WIDTH)


def gains(line: Record) -> Iterator[tuple[str, float, float]]:
    """Yield a name, how many times as good as the release we are, and should be: more is always better.

    Nothing if the release was not measured.
    """
    costs = line["cpu_per_gib"]
    if costs.get("ours") and RELEASE in costs:
        yield f"{line['name']}, CPU", costs[RELEASE] / costs["ours"], wanted(line, f"CPU of {SERVER} ")
    ratio = line["ratios"].get(RELEASE)
    if ratio:
        yield line["name"], 1 / ratio if line["less_is_better"] else ratio, wanted(line)


def wanted(line: Record, what: str = "") -> float:
    """Return how many times as good as the release a line, or `what` of it, should be, 0 if that is not known."""
    for target in line["targets"]:
        if not target["target"].startswith(what):
            continue
        sign, factor, *rest = target["target"][len(what) :].split()
        if rest == ["x", "release"]:
            return 1 / float(factor) if sign == "<=" else float(factor)
    return 0
