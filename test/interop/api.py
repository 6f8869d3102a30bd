"""schemathesis: sends what docs/openapi.yaml permits, and what it does not, to a daemon, and looks at the answers.

    found = run(tmp_path, examples=2, seed=1, phases="examples,fuzzing")
    assert not found, found

The same file has the hook that schemathesis loads in its own process: each request goes to the listener of its path,
and most of them name a ticket that is there.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real import daemon, tokens

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "openapi.yaml"

# No 5xx, no status, header or body that is not documented, and 405 for a method that is not.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)

# Without TLS, which is not what is tested; with everything that can be enabled.
CONFIG = """\
[tls]
enable = false
[control]
transport = tcp
port = 0
remove_timeout = 1
[metrics]
enable = true
host = localhost
port = 0
[page]
enable = true
[sessions]
enable = true
engine_cert_file = {folder}/engine.cer
engine_ca_cert_file = {ca_file}
"""

MIB = 1024**2
SIZE = 2 * MIB

# Rights of the tickets that there are, by their ids.
TICKETS = {"0c0ffee0-both": ["read", "write"], "0decade0-read": ["read"]}

# The listener that a path is asked of, when it is not the remote one; by the beginning of the path.
LISTENERS = {"/tickets": "control", "/profile": "control", "/metrics": "metrics", "/health": "metrics"}

# For a method other than DELETE this is a ticket without an id: 400, where schemathesis would like 405.
LEFT_OUT = "/tickets/"

# The hook finds the ports of the listeners here, as JSON.
PORTS = "IMAGEIO_API_PORTS"


def run(folder: Path, *, examples: int, seed: int, phases: str) -> str:
    """Run schemathesis; return what it found, "" for nothing."""
    authority = tokens.make_authority("CA1")
    (folder / "engine.cer").write_bytes(tokens.issue("engine", tokens.rsa_key("engine"), authority).pem)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "disk").write_bytes(os.urandom(SIZE // 2) + bytes(SIZE // 2))
    config = CONFIG.format(folder=folder, ca_file=folder / "ca.pem")
    with daemon.running(folder, config) as running:
        for uuid, ops in TICKETS.items():
            url = f"file://{folder / 'disk'}"
            add_ticket(port_of(running, "control"), uuid=uuid, size=SIZE, url=url, ops=ops, timeout=3600, dirty=True)
        options = ["--phases", phases, "--max-examples", str(examples), "--seed", str(seed)]
        done = schemathesis(folder, running, options)
        failures = [done.stdout, done.stderr] if done.returncode else []
        return "\n".join(failures + re.findall(r".* ERROR .*", running.log()))


def port_of(running: daemon.Daemon, listener: str) -> str:
    """Return the port of a listener."""
    return running.addresses[listener].rpartition(":")[2]


def schemathesis(folder: Path, running: daemon.Daemon, options: list[str]) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against all listeners over TCP."""
    ports = {name: port_of(running, name) for name in ("remote", "control", "metrics")}
    # Coverage of schemathesis is not wanted, and costs time.
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'test'}",
        "SCHEMATHESIS_HOOKS": "interop.api",
        PORTS: json.dumps(ports),
    }
    command = [
        *(str(Path(sys.executable).with_name("st")), "run", str(DOCUMENT)),
        *("--url", f"http://localhost:{ports['remote']}", "--exclude-path", LEFT_OUT),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--warnings", "off", *options),
    ]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)


def add_ticket(port: str, **ticket: Any) -> None:
    """Add a ticket."""
    url = f"http://localhost:{port}/tickets/{ticket['uuid']}"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(ticket).encode(), method="PUT")).close()


# --- In the process of schemathesis -----------------------------------------------------------------------------------


def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Send a request to the listener of its path, with a ticket that is there in two of three cases."""
    first = "/" + case.operation.path.split("/")[1]
    # The only URL that schemathesis knows is that of the remote listener: the others play its proxy.
    port = json.loads(os.environ[PORTS])[LISTENERS.get(first, "remote")]
    kwargs["proxies"] = {"http": f"http://localhost:{port}"}
    uuid = next(UUIDS)
    if "id" in (case.path_parameters or {}):
        if first == "/tickets":
            # The disks of these tickets are not there: no image is asked for with one of them.
            uuid = "0managed"
        if uuid is not None:
            case.path_parameters["id"] = uuid
            if isinstance(case.body, dict) and "uuid" in case.body:
                case.body["uuid"] = uuid
    query = case.query or {}
    if str(query.get("wait", "")).isdigit():
        # We have no time.
        query["wait"] = "0"


UUIDS: Iterator[Any] = itertools.cycle([*TICKETS, None])

if PORTS in os.environ:
    importlib.import_module("schemathesis").hook(before_call)
