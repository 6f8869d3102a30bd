"""The measurements behind decisions, with few rounds: what they compare does the same."""

from __future__ import annotations

import shutil

import pytest
from bench import decisions


@pytest.mark.slow
@pytest.mark.parametrize("serve", [decisions.serve_with_threads, decisions.serve_with_asyncio])
def test_both_servers_answer(serve):
    assert decisions.take(serve, 100_000, 3) > 0


def test_both_parsers_understand_the_head():
    assert decisions.parse_with_head(1) > 0
    assert decisions.parse_with_email(1) > 0


def test_ratio():
    assert decisions.ratio(lambda: 3.0, lambda: 2.0) == 1.5


@pytest.mark.slow
@pytest.mark.storage
@pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="qemu-nbd is not installed")
def test_both_ways_read():
    with decisions.random_reads() as reads:
        assert reads.by_http(3) > 0
        assert reads.by_nbd(20, 16) > 0
