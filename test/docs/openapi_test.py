"""docs/openapi.yaml says what the code does: routes, methods, statuses, keys; and linters have nothing to say."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

import pytest
from fakes.connections import FakeConnection
from tools import source
from tools.source import PACKAGE, ROOT

from docs import pages
from ovirt_imageio.auth import ticket
from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.handlers.images import READ_FEATURES, WRITE_FEATURES
from ovirt_imageio.handlers.status import STATUS
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.service import routes
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.service.profiler import Profiler
from ovirt_imageio.sessions.sessions import Sessions

PAGE = b"<style></style><script></script>"

yaml = pytest.importorskip("yaml")

PATH = ROOT / "docs" / "openapi.yaml"
DOCUMENT = yaml.load(PATH.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
SCHEMAS = DOCUMENT["components"]["schemas"]

METHODS = {"get", "head", "put", "patch", "post", "delete", "options"}

# The linter from npm, which `make check` brings where there is npm.
REDOCLY = ROOT / ".cache" / "node" / "node_modules" / ".bin" / "redocly"

# What sends a status that is a literal.
SENDERS = {"Refusal", "send", "send_json", "send_text", "start", "opening"}


def applications() -> dict[str, Application]:
    """Return what each listener serves, where everything is enabled."""
    store, metrics = Store(lambda ticket, line, traceparent: MemoryBackend(bytearray())), Metrics()
    return {
        "remote": routes.with_sessions(store, metrics, None, Sessions(store, None, None), PAGE),
        "local": routes.images(store, metrics, None, PAGE),
        "control": routes.control(store, metrics, Profiler("/nowhere"), 0),
        "metrics": routes.numbers(metrics, lambda: False),
    }


def operations(service: str) -> Iterator[tuple[str, str, dict]]:
    """Yield the paths that the document has for a listener, their methods, and what is said of them."""
    for path, item in DOCUMENT["paths"].items():
        if service in item["x-services"]:
            for method in METHODS & item.keys():
                # A page of a browser asks about no service but those of images.
                if not (method == "options" and service in ("control", "metrics")):
                    yield path, method.upper(), item[method]


@pytest.mark.parametrize("service", applications())
def test_routes(service):
    """Each path and method of the document has a route, and each route is in the document with all its methods."""
    told: dict[str, set[str]] = {}
    application = applications()[service]
    for path, method, _ in operations(service):
        route = next(route for route in application.routes if route.match(path.replace("{id}", "x")))
        told.setdefault(route.name, set()).add(method)
    assert told == {route.name: set(route.verbs) for route in application.routes}


def test_services():
    assert {service for item in DOCUMENT["paths"].values() for service in item["x-services"]} == set(applications())


def test_statuses():
    """Each status that the code can send is in the document, and no other one is."""
    sent = {int(status) for status in STATUS.values()} | {200, 101}
    for module in source.read(PACKAGE).values():
        if module.path.relative_to(PACKAGE).parts[0] in ("httpd", "handlers"):
            sent |= set(literal_statuses(module.tree))
    told = {
        int(status) for service in applications() for *_, says in operations(service) for status in says["responses"]
    }
    # A method that is not there is none of the document; but the OPTIONS of some listeners.
    assert told | {405} == sent


def literal_statuses(tree: ast.AST) -> Iterator[int]:
    """Yield the statuses that calls name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in SENDERS:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and type(inner.value) is int and 100 <= inner.value <= 599:
                    yield inner.value


def test_each_answer_that_asks_to_come_back_says_when():
    for name in ("503", "429"):
        for service in applications():
            for path, method, says in operations(service):
                response = says["responses"].get(name)
                if response is not None:
                    assert "Retry-After" in resolve(response)["headers"], (path, method)


def resolve(item: dict) -> dict:
    """Follow a reference."""
    if "$ref" not in item:
        return item
    found = DOCUMENT
    for name in item["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def test_components_are_named_after_statuses():
    """One component has one status, wherever it is used."""
    used: dict[str, set[str]] = {}
    for service in applications():
        for *_, says in operations(service):
            for status, response in says["responses"].items():
                HTTPStatus(int(status))
                if "$ref" in response:
                    used.setdefault(response["$ref"], set()).add(status)
    assert {name: statuses for name, statuses in used.items() if len(statuses) > 1} == {}


def test_ticket():
    example = DOCUMENT["paths"]["/tickets/{id}"]["put"]["requestBody"]["content"]["application/json"]["example"]
    parsed = ticket.parse(example)
    assert SCHEMAS["Ticket"]["properties"].keys() == vars(parsed).keys()
    for name in SCHEMAS["Ticket"]["required"]:
        with pytest.raises(Exception, match=name):
            ticket.parse({key: value for key, value in example.items() if key != name})
    assert set(SCHEMAS["TicketChanges"]["properties"]) == set(ticket.CHANGEABLE)


def test_ticket_state():
    store = Store(lambda ticket, line, traceparent: MemoryBackend(bytearray()))
    store.add({"uuid": "x", "size": 1, "url": "file:///x", "ops": ["read"], "timeout": 1, "filename": "x"})
    (listed,) = store.list()
    told = SCHEMAS["TicketState"]["properties"].keys()
    assert told == store.info("x").keys() | listed.keys()
    with store.use("x", "read", FakeConnection()):
        (client,) = store.info("x")["clients"]
    clients = SCHEMAS["TicketState"]["properties"]["clients"]["items"]
    assert client.keys() == clients["properties"].keys() == set(clients["required"])
    assert set(SCHEMAS["TicketState"]["required"]) == told - {"filename", "transferred", "uuid", "uuid_prefix"}


def test_features():
    (example,) = SCHEMAS["Abilities"]["properties"]["features"]["examples"]
    assert example == WRITE_FEATURES and set(READ_FEATURES) <= set(example)


# Requests in blocks that run_test.py runs, and what their URLs stand for.
PAGES = ("docs/images.md", "docs/tickets.md", "docs/proxy.md", "docs/attach.md")
URL = re.compile(r"(\$disk|\$url|https://host:54322|http://localhost(?::54325)?|\$proxy)((?:/[^\s\"?]*)?)")
SHORT = {"$disk": "/images/x", "$url": "/images/x"}


def examples() -> Iterator[tuple[str, str]]:
    """Yield method and path of each request that the pages send with curl."""
    for page in PAGES:
        blocks = [block for block in pages.blocks(page, pages.read(page)) if block.language == "sh" and not block.note]
        for line in "\n".join(block.text for block in blocks).replace("\\\n", "").splitlines():
            found = URL.search(line)
            if found and re.search(r"\b(curl|control)\b", line):
                yield method_of(line), SHORT.get(found[1], "") + found[2]


def method_of(command: str) -> str:
    """Return the method that curl uses."""
    named = re.search(r"-X ([A-Z]+)", command)
    if named:
        return named[1]
    return {"-T": "PUT", "-I": "HEAD"}.get((re.findall(r" (-[TI]) ", command) or [""])[0], "GET")


def test_each_request_has_an_example_that_runs():
    sent = set(examples())
    missing = set()
    for path, item in DOCUMENT["paths"].items():
        pattern = re.compile(re.escape(path).replace(r"\{id\}", "[^/]+") + "/?").fullmatch
        for method in METHODS & item.keys():
            # HEAD is like GET, and OPTIONS only for browsers, but for images.
            is_alike = method in ("head", "options") and path != "/images/{id}"
            if not is_alike and not any(m == method.upper() and pattern(p) for m, p in sent):
                missing.add((method, path))
    # The page for people is no request for programs.
    assert missing <= {("get", "/view")}


def test_version():
    version = re.search(r'__version__ = "(\d+\.\d+)', (PACKAGE / "version.py").read_text())
    assert version and DOCUMENT["info"]["version"] == version[1]


lint = partial(subprocess.run, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.skipif(REDOCLY.exists(), reason="redocly looks at all that this one looks at")
def test_validator_is_quiet():
    pytest.importorskip("openapi_spec_validator")
    done = lint([sys.executable, "-m", "openapi_spec_validator", PATH])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.storage
@pytest.mark.skipif(not REDOCLY.exists() or not shutil.which("node"), reason="needs npm")
def test_redocly_is_quiet():
    # A ticket without an id is all tickets: that path ends in a slash.
    done = lint([REDOCLY, "lint", "--skip-rule=no-path-trailing-slash", "--format=json", PATH])
    assert json.loads(done.stdout)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, done.stdout
