"""/profile/ over the real server."""

import pytest
from fakes.controlserver import ControlServer

from ovirt_imageio import errors


class FakeProfiler:
    """Remembers what was asked of it."""

    def __init__(self):
        self.running = False
        self.clocks = []
        self.is_installed = True

    def is_running(self):
        if not self.is_installed:
            raise errors.NotFound("profiler")
        return self.running

    def start(self, clock):
        if self.running:
            raise errors.InvalidValue("run", "y", "n")
        self.running = True
        self.clocks.append(clock)

    def stop(self):
        if not self.running:
            raise errors.InvalidValue("run", "n", "y")
        self.running = False


@pytest.fixture
def profiler():
    return FakeProfiler()


@pytest.fixture
def client(tmp_path, profiler):
    with ControlServer(tmp_path, profiler=profiler) as server, server.client() as client:
        yield client


def test_start_and_stop(client, profiler):
    assert client.get("/profile/").json == {"running": False}
    answer = client.get("/profile/?run=y", method="POST")
    assert (answer.status, answer.body) == (200, b"")
    assert client.get("/profile/").json == {"running": True}
    assert client.get("/profile/?run=n", method="POST").status == 200
    assert client.get("/profile").json == {"running": False}
    assert profiler.clocks == ["cpu"]


def test_clock(client, profiler):
    assert client.get("/profile/?run=y&clock=wall", method="POST").status == 200
    assert profiler.clocks == ["wall"]


@pytest.mark.parametrize("query", ["", "?run=", "?run=x", "?run=y&clock=moon", "?clock=cpu", "?run=n"])
def test_bad_query(client, query):
    assert client.get(f"/profile/{query}", method="POST").status == 400
    assert client.get("/profile/").json == {"running": False}


def test_started_twice(client):
    assert client.get("/profile/?run=y", method="POST").status == 200
    assert client.get("/profile/?run=y", method="POST").status == 400


def test_not_installed(client, profiler):
    profiler.is_installed = False
    assert client.get("/profile/").status == 404
    for query in ("", "?run=y", "?run=x", "?run=n"):
        assert client.get(f"/profile/{query}", method="POST").status == 404
