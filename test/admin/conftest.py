"""A control service with a store of tickets, without the rest of a daemon."""

from __future__ import annotations

import pytest
from fakes.controlserver import ControlServer


@pytest.fixture
def server(tmp_path):
    with ControlServer(tmp_path) as server:
        yield server
