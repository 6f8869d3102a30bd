"""What a server tells of its connections and requests."""

from __future__ import annotations

import pytest
from fakes import toy
from fakes.observers import Called
from fakes.raw_client import connect

from ovirt_imageio.httpd.observer import Observer


class Recorder(Called, Observer):
    """Hooks that do nothing but count."""


@pytest.mark.parametrize("observer", [Recorder(), None])
def test_life_of_a_connection(observer):
    app = toy.application(observer=observer)
    with toy.serving(app, observer=observer) as server, connect(server) as client:
        assert client.get("/echo/a").status == 200
    if observer is not None:
        assert observer.called == ["connection_opened", "request_finished", "connection_closed"]
        assert set(observer.called) == {name for name in vars(Observer) if not name.startswith("_")}
