"""An engine whose tickets a real daemon serves, through each SDK: the fake one, and the real one where it is."""

from __future__ import annotations

import contextlib
import importlib.util
import sys

import pytest
from fakes.clock import FakeClock
from fakes.engine import PASSWORD, USER, Engine, serve
from fakes.enginesdk import make_sdk
from real import daemon

from ovirt_imageio.client.engine import connection as connections

HAS_SDK = importlib.util.find_spec("ovirtsdk4") is not None
# A test that asks for the real one by its name is skipped where that is missing, and tells why.
SDKS = ["fake", "real"] if HAS_SDK else ["fake"]


@pytest.fixture(scope="package")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture(params=SDKS)
def sdk(request):
    """Which SDK speaks to the engine."""
    if request.param == "real" and not HAS_SDK:
        pytest.skip("ovirt-engine-sdk-python is not installed; pip compiles it, that takes gcc and libxml2-dev")
    return request.param


@pytest.fixture
def make_url(sdk, monkeypatch):
    """Return how to get the URL of an engine."""
    with contextlib.ExitStack() as stack:

        def make(engine):
            if sdk == "real":
                return stack.enter_context(serve(engine))
            monkeypatch.setitem(sys.modules, "ovirtsdk4", make_sdk(engine))
            monkeypatch.setitem(sys.modules, "ovirtsdk4.types", make_sdk(engine).types)
            return "http://engine.example.com"

        yield make


@pytest.fixture
def engine(running, tmp_path, make_url):
    """An engine; its `url` leads to it."""
    made = Engine(running, tmp_path)
    made.url = make_url(made)
    yield made
    made.close()


@pytest.fixture
def connection(engine):
    """A connection to the engine, whose clock goes on with each look: that takes its time, too."""
    clock = FakeClock()
    login = connections.Login(engine.url, USER, PASSWORD)
    with connections.Engine(login, now=clock, sleep=lambda seconds: clock.advance(20 * seconds)) as connection:
        yield connection


@pytest.fixture
def login(engine, tmp_path, running):
    """The options that log in."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return [
        *("--engine-url", engine.url, "--username", USER, "--password-file", str(path)),
        *("--cafile", running.ca_file),
    ]
