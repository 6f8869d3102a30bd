"""Imports go down only, and pure modules import nothing that touches the world.

The tables below are the architecture: to let a module know more, change them on purpose.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import source

BASE = {"base"}
GROUND = BASE | {"geometry", "measure"}
# What the pillars stand on.
FLOOR = GROUND | {"net", "relay", "qemu"}
PILLARS = {"storage", "nbd", "origin", "httpd"}

# Layer -> the other layers that it may import. Within one layer everything goes, but for circles.
LAYERS: dict[str, set[str]] = {
    "base": set(),
    "geometry": BASE,
    "measure": BASE,
    "config": BASE,
    "terminal": BASE,
    "net": GROUND,
    "relay": GROUND | {"net"},
    "qemu": GROUND | {"net"},
    "storage": GROUND | {"relay"},
    "nbd": GROUND | {"net", "relay"},
    "origin": GROUND | {"net", "relay"},
    "httpd": GROUND | {"net", "relay"},
    "backends": GROUND | {"net", "relay", "qemu"} | PILLARS - {"httpd"},
    "exports": GROUND | {"net", "qemu", "backends"},
    "ops": GROUND | {"relay", "storage", "nbd", "backends"},
    "auth": GROUND | {"net", "backends", "ops"},
    "sessions": GROUND | {"net", "origin", "backends", "auth"},
    "handlers": GROUND | {"relay", "backends", "ops", "auth", "sessions", "httpd"},
    "service": FLOOR
    | {
        "config",
        "storage",
        "nbd",
        "origin",
        "httpd",
        "backends",
        "exports",
        "ops",
        "auth",
        "sessions",
        "handlers",
        "terminal",
    },
    "client": FLOOR | PILLARS - {"httpd"} | {"backends", "ops", "terminal"},
    "admin": BASE | {"config", "net", "terminal"},
    "directio": GROUND | {"relay", "storage", "backends"},
    "_internal": {"directio", "nbd"},
}

# Modules at the top that are no layer of their own.
IN_BASE = {"", "errors", "units", "version"}

# Foreign modules that a layer may not know.
STRANGERS: dict[str, set[str]] = {
    "relay": {"http", "urllib", "ssl"},
    "nbd": {"http"},
    "storage": {"http", "urllib", "socket", "ssl"},
    "ops": {"http", "urllib", "ssl"},
    "handlers": {"fcntl", "mmap", "os", "select", "socket", "ssl", "threading"},
}

# Tested with bytes and numbers alone.
PURE = {
    "auth.agenda",
    "auth.lease",
    "auth.observer",
    "auth.record",
    "auth.ticket",
    "backends.allowed",
    "backends.writes",
    "client.backup.manifest",
    "client.presets",
    "client.records",
    "client.results",
    "errors",
    "geometry.blocks",
    "geometry.byteranges",
    "geometry.extent",
    "geometry.outline",
    "geometry.qcow2",
    "geometry.ranges",
    "nbd.address",
    "nbd.errors",
    "nbd.handshake",
    "nbd.ledger",
    "nbd.offer",
    "nbd.replies",
    "nbd.requests",
    "nbd.wire",
    "net.controls",
    "net.x509",
    "origin.abilities",
    "origin.jsonstream",
    "origin.url",
    "qemu.urls",
    "units",
    "version",
}

# What computes only. A module that is not here may reach for a socket, a file, a thread, a clock, a log or the dice.
PURE_LIBRARY = {
    "__future__",
    "abc",
    "array",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "codecs",
    "collections",
    "dataclasses",
    "enum",
    "errno",
    "functools",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "os.strerror",
    "posixpath",
    "re",
    "string",
    "struct",
    "sys.byteorder",
    "types",
    "typing",
    "urllib.parse",
}

# The modules that read the wall clock, which may be set: no time-out, ticket or duration may depend on it.
WALL_CLOCK = {
    # The time on the screen.
    "admin.top",
    # The name of a backup.
    "client.engine.vmbackup",
    # The Date of a response.
    "httpd.response",
    # Whether a certificate has ended, or will soon; and whether one of our own is due to be made again.
    "service.inspection",
    "service.process",
    "service.serve.certificate",
    # When the process started, as Prometheus wants it.
    "service.metrics",
    # A token says until what time of day it is good.
    "admin.signing",
    "sessions.sessions",
    "sessions.signed",
}

# What reads it always, and what reads it when it has fewer arguments than this.
READS_ALWAYS = {"time.time", "time.time_ns"}
READS_WITHOUT = {"time.ctime": 1, "time.gmtime": 1, "time.localtime": 1, "time.strftime": 2}


def layer_of(name: str) -> str:
    """Return the layer of a module."""
    if name in IN_BASE:
        return "base"
    return name.split(".")[0]


def find_faults(package: Path) -> Iterator[str]:
    """Yield a sentence for each import that should not be."""
    modules = source.read(package)
    graph = {}
    for name, module in modules.items():
        layer = layer_of(name)
        if layer not in LAYERS:
            yield f"{module.path}: {name} is in no layer that LAYERS knows"
            continue
        graph[name] = set()
        for found in source.imports(module, modules, package.name):
            place = module.place(found.line)
            if found.module.startswith(":"):
                yield from find_foreign_faults(name, found, place)
            elif found.module not in modules:
                yield f"{place}: there is no module {found.module}"
            else:
                graph[name].add(found.module)
                yield from find_own_faults(name, found.module, place)
    yield from find_circles(graph)


def find_own_faults(name: str, target: str, place: str) -> Iterator[str]:
    """Yield what is wrong when a module imports another one of the package."""
    layer, below = layer_of(name), layer_of(target)
    if below not in LAYERS[layer] | {layer}:
        yield f"{place}: {name} ({layer}) may not import {target} ({below})"
    if name in PURE and target not in PURE:
        yield f"{place}: {name} is pure, and may not import {target}, which is not"


def find_foreign_faults(name: str, found: source.Import, place: str) -> Iterator[str]:
    """Yield what is wrong when a module imports a foreign one."""
    foreign = found.module[1:]
    # `from urllib import parse` is the same as `import urllib.parse`.
    names = {foreign, foreign.split(".")[0], f"{foreign}.{found.name}"}
    if name in PURE and not names & PURE_LIBRARY:
        yield f"{place}: {name} is pure, and may not import {foreign}"
    if names & STRANGERS.get(layer_of(name), set()):
        yield f"{place}: {name} ({layer_of(name)}) may not know {foreign}"


def find_circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Yield each circle of imports once."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> Iterator[str]:
        if name in path:
            yield "Modules import one another: " + " -> ".join([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def find_wall_clocks(package: Path) -> set[str]:
    """Return the modules that read the wall clock."""
    modules = source.read(package).items()
    return {name for name, module in modules if any(map(reads_wall_clock, ast.walk(module.tree)))}


def reads_wall_clock(node: ast.AST) -> bool:
    """Does this node read the wall clock, or hide that it may?"""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return "datetime" in ast.unparse(node) or ast.unparse(node).startswith("from time ")
    if isinstance(node, ast.Call):
        return len(node.args) < READS_WITHOUT.get(ast.unparse(node.func), 0)
    return isinstance(node, ast.Attribute) and ast.unparse(node) in READS_ALWAYS


def test_layers():
    faults = list(dict.fromkeys(find_faults(source.PACKAGE)))
    assert not faults, "\n" + "\n".join(faults)


def test_no_two_layers_may_import_each_other():
    for layer, below in LAYERS.items():
        assert below <= LAYERS.keys() - {layer}
        assert all(layer not in LAYERS[other] for other in below), layer


def test_wall_clock():
    assert find_wall_clocks(source.PACKAGE) == WALL_CLOCK


@pytest.mark.parametrize(
    "text,reads",
    [
        ("now = time.time()", True),
        ("def f(now=time.time): pass", True),
        ("time.strftime('%H:%M')", True),
        ("time.strftime('%H:%M', time.gmtime(0))", False),
        ("from time import time", True),
        ("import datetime", True),
        ("time.monotonic()", False),
    ],
)
def test_planted_wall_clock(tmp_path, text, reads):
    (tmp_path / "module.py").write_text(text)
    assert find_wall_clocks(tmp_path) == ({"module"} if reads else set())


PLANTED = {
    "upward": ("nbd/client.py", "from ovirt_imageio.backends import base", "nbd.client (nbd) may not import"),
    "sideways": ("nbd/client.py", "import ovirt_imageio.httpd.server", "nbd.client (nbd) may not import"),
    "in a function": (
        "ops/checksum.py",
        "def f():\n    from ovirt_imageio.auth import store",
        "ops.checksum (ops) may not import auth.store",
    ),
    "for type checkers": (
        "relay/ring.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ovirt_imageio.nbd.client import Client",
        "relay/ring.py:3: relay.ring (relay) may not import nbd.client (nbd)",
    ),
    "relative": ("client/api.py", "from ..auth.store import Store", "client.api (client) may not import auth.store"),
    "relative in init": ("client/__init__.py", "from ..auth import store", "client (client) may not import auth.store"),
    "dynamic": (
        "client/api.py",
        'import importlib\nimportlib.import_module("ovirt_imageio.auth.store")',
        "client.api (client) may not import auth.store",
    ),
    "name of a module": ("admin/api.py", "from ovirt_imageio import relay", "admin.api (admin) may not import relay"),
    "config": ("auth/store.py", "from ovirt_imageio import config", "auth.store (auth) may not import config"),
    "lost module": ("ops/checksum.py", "from ovirt_imageio.backends.gone import x", "there is no module backends.gone"),
    "unknown layer": ("util.py", "", "util is in no layer"),
    "circle": ("errors.py", "from ovirt_imageio import units", "errors -> units -> errors"),
    "circle for type checkers": (
        "errors.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ovirt_imageio import units",
        "errors -> units -> errors",
    ),
    "pure: socket": ("nbd/wire.py", "import socket", "nbd.wire is pure, and may not import socket"),
    "pure: os.path": (
        "geometry/ranges.py",
        "from os.path import join",
        "geometry.ranges is pure, and may not import os.path",
    ),
    "pure: threading": ("auth/ticket.py", "import threading as t", "auth.ticket is pure, and may not import threading"),
    "pure: time": ("units.py", "def f():\n    import time", "units is pure, and may not import time"),
    "pure: urllib": ("nbd/address.py", "from urllib import request", "nbd.address is pure, and may not import urllib"),
    "pure: own": ("nbd/replies.py", "from ovirt_imageio.nbd import client", "may not import nbd.client, which is not"),
    "stranger": ("handlers/images.py", "import threading", "handlers.images (handlers) may not know threading"),
    "strange part": ("storage/direct.py", "import http.client", "storage.direct (storage) may not know http.client"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault(tmp_path, name):
    path, text, message = PLANTED[name]
    package = make_package(tmp_path)
    assert list(find_faults(package)) == []
    (package / path).write_text(text)
    assert message in "\n".join(find_faults(package))


def make_package(tmp_path: Path) -> Path:
    """Make a small package without faults."""
    package = tmp_path / "ovirt_imageio"
    files = {
        "errors.py": "",
        "config.py": "from ovirt_imageio import errors",
        "units.py": "from ovirt_imageio import errors",
        "geometry/extent.py": "from ovirt_imageio import errors",
        "relay/ring.py": "import socket",
        "nbd/wire.py": "import struct, urllib.parse\nfrom urllib import parse\nfrom ovirt_imageio.errors import Error",
        "nbd/client.py": "import socket\nfrom . import wire\nfrom ovirt_imageio.relay.ring import Sink",
        "httpd/server.py": "",
        "backends/base.py": "from ovirt_imageio.nbd import client",
        "auth/store.py": "import threading\nfrom ovirt_imageio import ops",
        "ops/checksum.py": "from ovirt_imageio.backends import base",
        "client/__init__.py": "from .api import upload",
        "client/api.py": "from ..backends import base",
        "service/process.py": "from ovirt_imageio import config\nfrom ovirt_imageio.auth.store import Store",
    }
    for path in ("admin", "handlers", "storage", *(file.rpartition("/")[0] for file in files)):
        (package / path).mkdir(parents=True, exist_ok=True)
        (package / path / "__init__.py").touch()
    for path, text in files.items():
        (package / path).write_text(text)
    return package
