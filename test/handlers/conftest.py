"""What serves images is asked directly, and through a proxy: a client must see no difference."""

from __future__ import annotations

import pytest
from fakes.imageserver import ImageServer, ProxyServer


@pytest.fixture(params=[ImageServer, ProxyServer], ids=["direct", "proxied"])
def image_server(request: pytest.FixtureRequest) -> type[ImageServer]:
    """Run the test with each of them; returns what to make the server with."""
    kind: type[ImageServer] = request.param
    return kind
