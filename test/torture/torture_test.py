"""A sample of the cases of `make soak T=torture`. The id of a test has its seed; a failure names its case.

To run one case again: make soak T='torture --case "NAME"'.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import socket

import pytest
from torture.cases import Case, Failure, Torturer
from torture.copies import COPIES, CopyTorturer
from torture.house import BACKENDS, LISTENERS, House, Leftover
from torture.operations import OPERATIONS
from torture.seam import Call, Seam

from ovirt_imageio.storage.direct import DirectFile

SEED = 1

# How many cases of each operation, on each backend and listener.
CASES = 3


@pytest.fixture(autouse=True)
def quiet():
    """What fails on purpose would be thousands of lines."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def seam():
    with Seam() as seam:
        yield seam


@pytest.mark.storage
@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_call_of_the_service_may_fail(tmp_path, seam, backend, listener, seed):
    dice = random.Random(seed)
    with House(tmp_path, backend) as house:
        torturer = Torturer(house, seam)
        with torturer.listening():
            for operation in OPERATIONS:
                cases = torturer.plan(listener, operation)
                for case in dice.sample(cases, CASES):
                    torturer.run(case)
    assert sum(torturer.outcomes.values()) == CASES * len(OPERATIONS)
    assert torturer.outcomes["not reached"] < sum(torturer.outcomes.values()) / 2


@pytest.mark.storage
@pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="qemu-nbd is missing")
@pytest.mark.parametrize("seed", [SEED])
@pytest.mark.parametrize("copy", COPIES)
def test_each_call_of_the_client_may_fail(tmp_path, seam, copy, seed):
    dice = random.Random(seed)
    with CopyTorturer(tmp_path, seam) as torturer:
        for case in dice.sample(torturer.plan(copy), CASES):
            torturer.run(case)
    assert sum(torturer.outcomes.values()) == CASES


# The method finds what is planted.


def find(tmp_path, seam, backend, operation, place, faults):
    """Return what is found when the calls of a place fail."""
    with House(tmp_path, backend) as house:
        torturer = Torturer(house, seam)
        with torturer.listening():
            for case in torturer.plan("unix", operation):
                if case.call.place == place and case.fault in faults:
                    try:
                        torturer.run(case)
                    except Failure as failure:
                        return str(failure)
    return "nothing"


def test_a_write_that_is_acknowledged_and_failed_is_found(tmp_path, seam, monkeypatch):
    write = DirectFile.write

    def careless(self, offset, view):
        with contextlib.suppress(OSError):
            write(self, offset, view)

    monkeypatch.setattr(DirectFile, "write", careless)
    found = find(tmp_path, seam, "file", "put", "storage.direct.write", ["EIO"])
    assert "acknowledged is not there" in found


def test_a_descriptor_that_is_left_is_found(tmp_path, seam):
    with House(tmp_path, "memory") as house:
        Torturer(house, seam)
        with socket.socket(), pytest.raises(Leftover, match="descriptors"):
            house.settle(patience=0.1)
        house.settle()


def test_names_of_cases():
    case = Case("file", "tls", "put-odd", Call("storage.direct.write", "os.pwritev", 2), "ENOSPC")
    assert str(case) == "file-tls-put-odd/storage.direct.write os.pwritev 2/ENOSPC"
    assert Case.parse(str(case)) == case


def test_seam_counts_what_the_package_asks_for_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    descriptor = os.open(path, os.O_RDWR)
    try:
        with Seam() as seam, seam.failing(Call("storage.direct.flush", "os.fsync", 1), "EIO"):
            os.fsync(descriptor)
            assert seam.failures == 0
            with pytest.raises(OSError, match="Input/output error"):
                DirectFile(descriptor, os.fstat(descriptor), 1).flush()
            assert seam.failures == 1
    finally:
        os.close(descriptor)
