"""Requests that docs/openapi.yaml permits, and that it does not, made by schemathesis: api.py [--seconds N] [--seed N]

Boundary values first, then rounds of examples, each with another seed, until the time is over. A round that finds
something prints it, with the seed, and ends the hunt.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from interop import api


def main(arguments: list[str]) -> int:
    """Run rounds; return an exit status."""
    parser = argparse.ArgumentParser(prog="api")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--examples", type=int, default=50, help="of each request, in each round")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the first round")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + options.seconds
    seed = options.seed
    phases = "examples,coverage,fuzzing"
    while time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="soak-api-") as folder:
            found = api.run(Path(folder), examples=options.examples, seed=seed, phases=phases)
        print(f"seed {seed}, {phases}: {found or 'nothing'}", flush=True)
        if found:
            return 1
        phases = "fuzzing"
        seed += 1
    return 0
