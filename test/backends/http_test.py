"""The http backend, against origins that behave, old ones, and ones that do not."""

from __future__ import annotations

import pytest
from backends.contract import Contract, Disk
from fakes.origin import DiskOrigin

from ovirt_imageio.backends.http import HttpBackend


class OriginDisk(Disk):
    """A disk behind an origin."""

    can_grow = True

    def __init__(self, origin: DiskOrigin) -> None:
        self._origin = origin

    def open(self, *, writable=True, sparse=False):
        return HttpBackend(self._origin.url, writable=writable)

    def content(self):
        return bytes(self._origin.data)

    def fill(self, data):
        self._origin.data[:] = data


class TestContract(Contract):
    @pytest.fixture
    def disk(self):
        with DiskOrigin() as origin:
            yield OriginDisk(origin)


class TestOldContract(Contract):
    """An origin that can only GET and PUT."""

    @pytest.fixture
    def disk(self):
        with DiskOrigin() as origin:
            origin.options = None
            yield OriginDisk(origin)
