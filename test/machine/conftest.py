"""Tests of an installed service, in a machine with systemd that they may break: `make vm` runs them in a guest.

There they are root, the packages are installed, and nothing is configured. Nowhere else are they collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from machine.service import UNIT, Service, output_of, run

from docs import pages

collect_ignore_glob = [] if "IMAGEIO_MACHINE" in os.environ else ["*_test.py"]

ROOT = Path(__file__).parents[2]


class Page(NamedTuple):
    """What became of the commands of docs/install.md."""

    steps: list[str]

    # What systemd said of the unit after the last one: the tests before this one have used it since.
    enabled: str
    active: str


@pytest.fixture(scope="session")
def page() -> Page:
    """What an administrator pastes from docs/install.md, but for the first block: packages did that. It is done."""
    found = pages.blocks("docs/install.md", pages.read("docs/install.md"))
    steps = [block.text for block in found if block.language == "sh" and not block.note]
    output_of("bash", "-euxc", "\n".join(steps[1:]), cwd="/root", timeout=600)
    return Page(steps, *(run("systemctl", verb, UNIT).stdout.strip() for verb in ("is-enabled", "is-active")))


@pytest.fixture
def running(page: Page) -> Iterator[Service]:
    """The service as the page configured it, running; it may have run for a while."""
    service = Service()
    service.systemctl("start", UNIT)
    yield service
    service.restore()


@pytest.fixture
def service(page: Page) -> Iterator[Service]:
    """The service as the page configured it, not running yet."""
    service = Service()
    service.stop()
    yield service
    service.restore()
