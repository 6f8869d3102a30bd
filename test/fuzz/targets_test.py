"""The targets of the fuzzer take what they begin with, and the first half of it."""

from __future__ import annotations

import pytest
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    run, seeds = TARGETS[name]
    for seed in seeds:
        run(seed)
        run(seed[: len(seed) // 2])
    run(b"")
