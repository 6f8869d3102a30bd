"""Fixtures for every test: real storage, and no test leaves a thread behind."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest
from fakes.waiting import DEADLINE
from real import storage

# How many examples of each property are tried: --hypothesis-profile=quick is what `make test` uses, "beside" is for the
# other Pythons. On a busy machine an example may be slow to make or to run: that says nothing about the code.
for profile, examples in {"house": 50, "beside": 10, "quick": 10}.items():
    hypothesis.settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
hypothesis.settings.load_profile("house")

# A script that starts us in the background lets us ignore Ctrl-C, and then so do all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=storage.ANY)
def any_storage(request: pytest.FixtureRequest) -> Iterator[storage.Storage]:
    """Run the test on every storage: see real/storage.py."""
    yield from _storage(request.param)


@pytest.fixture(params=storage.BLOCK)
def block_storage(request: pytest.FixtureRequest) -> Iterator[storage.Storage]:
    """Run the test on an empty block device of each sector size."""
    yield from _storage(request.param)


@pytest.fixture(params=storage.FILE)
def file_storage(request: pytest.FixtureRequest) -> Iterator[storage.Storage]:
    """Run the test with a fresh path on each file system that supports fallocate."""
    yield from _storage(request.param)


@pytest.fixture(params=storage.EXT2)
def ext2_storage(request: pytest.FixtureRequest) -> Iterator[storage.Storage]:
    """Run the test with a fresh path on a file system without fallocate."""
    yield from _storage(request.param)


STORAGE_FIXTURES = {"any_storage", "block_storage", "file_storage", "ext2_storage"}


def _storage(name: str) -> Iterator[storage.Storage]:
    try:
        with storage.using(name) as ready:
            yield ready
    except storage.Missing as reason:
        pytest.skip(str(reason))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let other Pythons run a few cases of each test: what differs between Pythons shows in the first ones."""
    parser.addoption("--cases", type=int, metavar="N", help="run at most N cases of each parametrized test")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark the tests that use real storage, so that they can be left out; then leave out all but --cases of each."""
    for item in items:
        if STORAGE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.storage)
    yield
    limit = config.getoption("--cases")
    if limit is not None:
        seen: Counter[str] = Counter()
        kept, left_out = [], []
        for item in items:
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            (kept if seen[test] <= limit else left_out).append(item)
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """Fail the test whose threads outlive it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + DEADLINE
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"The test left a thread behind: {thread}"
