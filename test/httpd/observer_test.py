from __future__ import annotations

from ovirt_imageio.httpd.observer import Observer


def test_hooks_do_nothing():
    observer = Observer()
    assert observer.connection_opened(None) is None
    assert observer.connection_closed(None) is None
    assert observer.request_finished("/info/", "GET", 200, 0.1) is None
