"""Packaging: what is installed, what it needs, and the three programs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Return the version, read without importing the package that is about to be installed."""
    text = (HERE / "ovirt_imageio" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError('ovirt_imageio/version.py has no line like: __version__ = "1.2.3"')
    return found.group(1)


def description() -> str:
    """Return the README, where there is one: packagers may build without."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


# The library and the daemon run on Python alone; each of these adds one ability.
ABILITIES = {
    # sessions by signed token, and signed tickets
    "tokens": ["cryptography>=36", "pyjwt>=2.6"],
    # the profile resource of the control service
    "profile": ["yappi>=1.3"],
    # the QR code of serve
    "qr": ["segno>=1.4"],
    # the commands of ovirt-img that talk to an engine; pip builds it: that takes gcc and the headers of Python, libxml2
    # and, where pycurl has no wheel, libcurl
    "engine": ["ovirt-engine-sdk-python>=4.4"],
}

# The one place that names what development needs. "test" goes to every Python, "check" only to .venv; a compiler is
# needed only where there is no wheel of yappi.
# Formatter, linter and type checker are pinned: each developer must get the same answer.
DEVELOPMENT = {
    "test": [
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "hypothesis>=6.100",
        # A second opinion on HTTP.
        "h11>=0.16",
        "userstorage>=0.5.3",
        *ABILITIES["tokens"],
    ],
    "check": [
        "ruff==0.17.5",
        "mypy==2.4.1",
        "coverage>=7.10",
        "setuptools>=70.1",
        # docs/openapi.yaml: read it, lint it, and send what it permits, and what it does not, to a daemon.
        "pyyaml>=6",
        "openapi-spec-validator>=0.7",
        "schemathesis>=4.3",
        # data/kubernetes, against the schemas of each version.
        "kubernetes-validate>=1.31",
        # The page: Firefox is driven over a WebSocket, and axe tells what a screen reader would stumble over.
        "websockets>=13",
        "axe-core-python>=0.1",
        *ABILITIES["profile"],
        *ABILITIES["qr"],
    ],
}

setup(
    name="ovirt-imageio",
    version=version(),
    description="Move virtual disk images in and out of hosts over HTTPS",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="GPL-2.0-or-later",
    python_requires=">=3.9",
    packages=find_packages(include=["ovirt_imageio", "ovirt_imageio.*"]),
    package_data={"ovirt_imageio": ["py.typed", "service/view.html"]},
    extras_require={**ABILITIES, **DEVELOPMENT},
    entry_points={
        "console_scripts": [
            "ovirt-imageio = ovirt_imageio.service.cli:main",
            "ovirt-imageioctl = ovirt_imageio.admin.cli:main",
            "ovirt-img = ovirt_imageio.client.cli:main",
        ],
    },
)
