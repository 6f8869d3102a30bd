"""This machine, if the engine knows it as a host: a transfer there goes through a Unix socket.

Knows the search of the engine; knows nothing of disks and transfers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional

from ovirt_imageio.client.engine.connection import Engine, EngineError

__all__ = ["find_host"]

log = logging.getLogger(__name__)

# Where vdsm keeps by what id the engine knows the host.
HARDWARE_ID = Path("/etc/vdsm/vdsm.id")


def find_host(engine: Engine, domain: str) -> Optional[str]:
    """Return the id of this host; None: the engine may take any host that has the storage domain."""
    try:
        identity = HARDWARE_ID.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        log.debug("This machine is not a host: %s", error)
        return None
    if '"' in domain or '"' in identity:
        log.debug("The engine cannot search for a name with quotes, it takes any host")
        return None
    with engine.asking("find this host"):
        centers = engine.system.data_centers_service().list(search=f'storage.name="{domain}"', case_sensitive=True)
    if not centers:
        raise EngineError(f"No data center has a storage domain {domain!r}")
    search = f'hw_id="{identity}" and datacenter="{centers[0].name}" and status=Up'
    with engine.asking("find this host"):
        hosts = engine.system.hosts_service().list(search=search, case_sensitive=True)
    if not hosts:
        log.debug("This host is not up in data center %s", centers[0].name)
        return None
    return str(hosts[0].id)
