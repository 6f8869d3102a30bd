from __future__ import annotations

from ovirt_imageio.httpd.limits import Limits


def test_idle_connections_survive_a_minute():
    # Clients open all their connections first, and use some of them much later.
    assert Limits().idle_timeout >= 60


def test_a_header_has_less_time_than_a_body():
    assert Limits().header_timeout < Limits().io_timeout
