"""A host and a proxy for each module, and an image on the host."""

from __future__ import annotations

import importlib.util

import pytest

# Without it the modules here skip themselves, and no test asks for a fixture.
if importlib.util.find_spec("cryptography"):
    from real.proxy import Image, run_host, run_proxy


@pytest.fixture(scope="module", params=[False, True], ids=["tcp", "unix"])
def any_host(request, tmp_path_factory):
    """A host that the proxy reaches over the network, or through the Unix socket of the host."""
    with run_host(tmp_path_factory.mktemp("host"), request.param) as host:
        yield host


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with run_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with run_proxy(tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def image(host, tmp_path):
    return Image(host, tmp_path)
