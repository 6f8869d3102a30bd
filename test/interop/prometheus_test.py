"""What Prometheus says of the metrics, and of docs/monitoring/."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tools.source import ROOT

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.service.metrics import STATES, Metrics

FOLDER = ROOT / "docs" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
DASHBOARD = FOLDER / "dashboard.json"
ALERT_TESTS = Path(__file__).with_name("alerts.yml")

NAME = re.compile(r"\b(?:imageio|process)_[a-z_]+\b")

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Prometheus")


def render() -> str:
    """Return what a service tells that has done something of each kind."""
    metrics = Metrics()
    metrics.watch(Store(lambda ticket, line, traceparent: None))
    metrics.watch_certificate(lambda: 1)
    metrics.request_finished("/images/{id}", "GET", 200, 0.5)
    metrics.bytes_moved("file", "read", 1)
    metrics.operation_finished("file", "read", errors.NoSpace("write", "full"))
    return metrics.registry.render()


def promtool(*command, **options):
    """Run promtool; it must have nothing to say."""
    done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions() -> list[str]:
    """Return the queries of the dashboard, with values for its variables."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m").replace("$instance", ".*") for query in queries]


@needs_promtool
@pytest.mark.storage
def test_metrics():
    assert promtool("check", "metrics", input=render()) == ""


@needs_promtool
@pytest.mark.storage
def test_alerts(tmp_path):
    promtool("check", "rules", ALERTS)
    tests = tmp_path / "tests.yml"
    tests.write_text(ALERT_TESTS.read_text().replace("RULES", str(ALERTS)))
    promtool("test", "rules", tests)


@needs_promtool
@pytest.mark.storage
def test_dashboard(tmp_path):
    """Each query can be read: recording rules take the same language, and JSON is YAML."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules" in promtool("check", "rules", path)


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD, ALERT_TESTS], ids=lambda path: path.name)
def test_metrics_that_are_named_are_there(path):
    known = set(re.findall(r"^(\w+)", render(), re.MULTILINE))
    named = set(NAME.findall(path.read_text()))
    assert named and named <= known


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_values_of_labels_that_are_named_are_there(path):
    text = path.read_text().replace('\\"', '"')
    assert set(re.findall(r'state="(\w+)"', text)) <= set(STATES)
    for pattern in re.findall(r'error=~?"([^"]+)"', text):
        assert any(re.fullmatch(pattern, name) for name in errors.__all__), pattern


def test_each_alert_is_explained():
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    told = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in names if f"`{name}`" not in told] == []
