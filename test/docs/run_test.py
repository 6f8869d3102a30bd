"""Runs the commands and the Python of each page, in the order in which a reader meets them, against real servers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from docs.pages import Block
from docs.scene import Scene
from real import daemon as real_daemon
from real.daemon import Daemon

from docs import pages, scenes

NEEDED = ("bash", "curl", "openssl", "qemu-img", "qemu-nbd", "qemu-io")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.storage,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}"),
]

# This one has a test of its own: it changes the system.
ELSEWHERE = {"docs/install.md"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all pages."""
    numbers = "[metrics]\nenable = true\nhost = localhost\nport = 0\n"
    with real_daemon.running(tmp_path_factory.mktemp("daemon"), numbers) as running:
        yield running


def runnable(page: str) -> list[Block]:
    """Return the blocks of a page that run, and what they print."""
    return [
        block
        for block in pages.blocks(page, pages.read(page))
        if (block.language in ("sh", "python") and block.note in ("", "until")) or block.note == "output"
    ]


PAGES = [page for page in pages.names() if page not in ELSEWHERE and runnable(page)]


@pytest.mark.parametrize("page", PAGES)
def test_page(tmp_path, daemon, page):
    with scenes.enter(page, tmp_path, daemon) as scene:
        for block in runnable(page):
            if block.note == "output":
                compare(block, scene.last_output)
            else:
                scene.run(block)


def compare(block: Block, printed: str) -> None:
    """Fail if what was printed has not the shape that the page shows: the keys of JSON, or a text with `...` in it."""
    if block.language == "json":
        assert is_alike(json.loads(printed), json.loads(block.text)), (str(block), printed)
    else:
        pattern = ".*".join(map(re.escape, block.text.strip().split("...")))
        assert re.search(pattern, printed, re.DOTALL), (str(block), printed)


def is_alike(printed: Any, shown: Any) -> bool:
    """Compare keys, not values; of lists only the first items, as they are all alike. A printed one may be empty."""
    if isinstance(printed, dict) and isinstance(shown, dict):
        return printed.keys() == shown.keys() and all(is_alike(printed[key], shown[key]) for key in shown)
    if isinstance(printed, list) and isinstance(shown, list):
        return not printed or (bool(shown) and is_alike(printed[0], shown[0]))
    return not isinstance(printed, (dict, list)) and not isinstance(shown, (dict, list))


def test_what_is_not_printed_is_found():
    for printed in ('{"b": [{"c": 1}]}', '{"a": 1}', '{"a": [{"b": 1}]}', '{"a": [1]}'):
        with pytest.raises(AssertionError):
            compare(Block("page.md", 1, "json", '{"a": [{"c": 2}]}', "output"), printed)
    compare(Block("page.md", 1, "json", '{"a": [{"c": 2}]}', "output"), '{"a": []}')
    with pytest.raises(AssertionError):
        compare(Block("page.md", 1, "text", "Ready...end", "output"), "Ready")
    compare(Block("page.md", 1, "text", "Ready...end", "output"), "Ready to\nend")


def test_failing_block_is_named(tmp_path):
    with Scene(tmp_path) as scene, pytest.raises(AssertionError, match=r"page\.md:7 failed:\s+lost"):
        scene.run(Block("page.md", 7, "sh", "echo lost\nfalse\necho not here\n"))
