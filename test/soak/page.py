"""The page for people in real browsers, at sizes that take minutes.

page.py [--opens N] [--extents N] [--browser NAME] [--part NAME]

    upload    1 GiB, while its connections are cut three times or more: the disk equals the file, and the page says so
    map       200,000 extents, or as many as are asked for, drawn while they arrive; the page answers meanwhile
    opens     the page is opened again and again: the daemon keeps no descriptor, thread or connection

Everything is on loopback, and ends by itself.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from fakes.chaos import ChaosProxy
from fakes.waiting import wait_until
from real import daemon as real_daemon
from real.browser import BROWSERS, Page
from real.daemon import Daemon

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

CONFIG = "[page]\nenable = true\n[local]\nenable = false\n"

# For an upload on a busy machine.
LIMIT_SECONDS = 600

# What the daemon may keep of connections that a browser holds open.
SLACK = 10


def main(arguments: list[str]) -> int:
    """Run all parts in each browser; return an exit status."""
    parser = argparse.ArgumentParser(prog="page")
    parts = {"upload": upload, "map": show_map, "opens": reopen}
    parser.add_argument("--opens", type=int, default=100)
    parser.add_argument("--extents", type=int, default=200_000)
    parser.add_argument("--part", choices=list(parts), action="append")
    parser.add_argument("--browser", choices=sorted(BROWSERS), action="append")
    options = parser.parse_args(arguments)
    missing = [name for name in options.browser or BROWSERS if BROWSERS[name].program is None]
    if missing:
        print(f"Not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name, real_daemon.running(Path(name) / "daemon", CONFIG) as daemon:
        for browser in options.browser or BROWSERS:
            with BROWSERS[browser](Path(name) / browser) as page:
                say = lambda text, browser=browser: print(f"{browser}: {text}", flush=True)  # noqa: E731
                for part in map(parts.__getitem__, options.part or parts):
                    folder = Path(name) / f"{browser}-{part.__name__}"
                    folder.mkdir()
                    started = time.monotonic()
                    told = part(page, daemon, folder, options)
                    say(f"{told}, in {time.monotonic() - started:.0f} s")
                    page.leave()
    return 0


def show(page: Page, daemon: Daemon, url: str, port: int = 0) -> None:
    """Open the page of a disk."""
    page.open(f"https://localhost:{port or daemon.port}/view#{url.rpartition('/')[2]}")
    page.wait("!document.getElementById('disk').hidden")


def upload(page: Page, daemon: Daemon, folder: Path, options: argparse.Namespace) -> str:
    """Upload 1 GiB over connections that are cut."""
    source, disk = folder / "source", folder / "disk"
    block = random.Random(1).randbytes(8 * MIB)
    with open(source, "wb") as file:
        for index in range(GIB // len(block)):
            # Every fourth is a hole.
            if index % 4:
                os.pwrite(file.fileno(), block[index:] + block[:index], index * len(block))
        file.truncate(GIB)
    with open(disk, "wb") as file:
        file.truncate(GIB)
    url = daemon.add_ticket(url=f"file://{disk}", size=GIB, sparse=True)
    with ChaosProxy(("localhost", daemon.port), cuts=[100 * MIB] * 6) as chaos:
        show(page, daemon, url, chaos.port)
        page.choose("#file", source)
        page.wait("upload.isRunning")
        deadline = time.monotonic() + LIMIT_SECONDS
        while page.run("upload.isRunning"):
            assert time.monotonic() < deadline, page.text("#put-result")
            time.sleep(0.5)
        text = page.text("#put-result")
        assert "verified: the disk equals the file" in text, text
        cuts = chaos.cut
        assert cuts >= 3, cuts
        page.leave()
    assert filecmp.cmp(source, disk, shallow=False)
    source.unlink()
    disk.unlink()
    return f"1 GiB uploaded over connections that were cut {cuts} times: equal, and verified by the page"


def show_map(page: Page, daemon: Daemon, folder: Path, options: argparse.Namespace) -> str:
    """Draw a map of many extents."""
    disk = folder / "disk"
    count = options.extents
    with open(disk, "wb") as file:
        file.truncate(count // 2 * 8 * KIB)
        for index in range(count // 2):
            os.pwrite(file.fileno(), b"x" * 4 * KIB, index * 8 * KIB)
    url = daemon.add_ticket(url=f"file://{disk}", size=disk.stat().st_size, sparse=True)
    show(page, daemon, url)
    # The longest time in which the page did nothing that a person asks for.
    page.run(
        "(function watch() { let last = performance.now(); window.stall = 0; setInterval(() => {"
        " const now = performance.now(); window.stall = Math.max(window.stall, now - last - 10); last = now; }, 10);"
        " })(), 0"
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    while "%" not in page.text("#data"):
        assert time.monotonic() < deadline, page.text("#data")
        time.sleep(0.5)
    found = page.run("map.extents.count")
    assert found == count, found
    assert page.text("#data").endswith(", 50 % of the disk"), page.text("#data")
    disk.unlink()
    return f"a map of {found} extents; the page stood still for {page.run('window.stall'):.0f} ms at most"


def reopen(page: Page, daemon: Daemon, folder: Path, options: argparse.Namespace) -> str:
    """Open the page many times; nothing stays behind in the daemon."""
    disk = folder / "disk"
    disk.write_bytes(bytes(MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=MIB)
    show(page, daemon, url)
    process = Path(f"/proc/{daemon.process.pid}")
    before = count_of(process)
    for _ in range(options.opens):
        show(page, daemon, url)
    page.leave()
    wait_until(lambda: all(now <= then + SLACK for now, then in zip(count_of(process), before)))
    return f"{options.opens} opens; the daemon had {before} descriptors and threads before, {count_of(process)} after"


def count_of(process: Path) -> tuple[int, int]:
    """Return how many descriptors and threads a process has."""
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))
