"""Manage the tickets of a daemon on this host, over its control service.

from ovirt_imageio import admin

cfg = admin.load_config(admin.DEFAULT_CONF_DIR)
with admin.Client(cfg) as client:
    client.add_ticket({"uuid": ..., "size": ..., "url": "file:///disk.img", "timeout": 300, "ops": ["read"]})
    client.get_ticket(...)
    client.mod_ticket(..., {"timeout": 600})
    client.del_ticket(...)
"""

from ovirt_imageio.admin.api import (
    DEFAULT_CONF_DIR,
    Client,
    ClientError,
    Error,
    ServerError,
    load_config,
)
from ovirt_imageio.version import __version__

__all__ = [
    "DEFAULT_CONF_DIR",
    "Client",
    "ClientError",
    "Error",
    "ServerError",
    "__version__",
    "load_config",
]
