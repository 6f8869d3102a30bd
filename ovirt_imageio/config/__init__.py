"""The configuration of the daemon: typed, checked and frozen.

    config = load("/etc/ovirt-imageio")
    config.remote.port

Only `service` and `admin` may import this package: everyone else gets plain arguments.
"""

from ovirt_imageio.config.files import CONF_DIR, VENDOR_DIR, check, find_contradictions, load, read
from ovirt_imageio.config.sections import Config, to_dict

__all__ = ["CONF_DIR", "VENDOR_DIR", "Config", "check", "find_contradictions", "load", "read", "to_dict"]
