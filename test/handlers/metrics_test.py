"""/metrics over the real server."""

import json
import re

import pytest
from fakes.controlserver import ControlServer

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"

SAMPLE = re.compile(r'([a-z_]+)(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? (-?[0-9.e+-]+|NaN)')


def scrape(client):
    """Return the samples of a page, after checking every line."""
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {}
    for line in answer.text.splitlines():
        if line.startswith("# "):
            assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+", line)
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        assert f"{name}{labels or ''}" not in samples
        samples[f"{name}{labels or ''}"] = float(value)
    return samples, answer.text


@pytest.fixture
def server(tmp_path):
    with ControlServer(tmp_path) as server:
        yield server


def test_everything(server):
    ticket = {"uuid": UUID, "size": 1024, "url": "file:///disk", "ops": ["write"], "timeout": 300, "transfer_id": "t"}
    with server.client() as client:
        client.put(f"/tickets/{UUID}", json.dumps(ticket).encode())
        assert client.get(f"/images/{UUID}").status == 200
        assert client.put(f"/images/{UUID}", b"x" * 100).status == 200
        samples, text = scrape(client)
        assert samples["imageio_tickets_added_total"] == 1
        assert samples["imageio_tickets_removed_total"] == 0
        assert samples['imageio_transfers{state="idle"}'] == 1
        assert samples['imageio_transfers{state="active"}'] == 0
        assert samples['imageio_transfer_bytes_total{backend="memory",direction="out"}'] == 1024
        assert samples['imageio_transfer_bytes_total{backend="memory",direction="in"}'] == 100
        assert samples['imageio_operations_total{backend="memory",operation="read",result="success"}'] == 1
        assert samples['imageio_requests_total{route="/images/{id}",method="GET",status="200"}'] == 1
        assert samples['imageio_request_seconds_count{route="/images/{id}",method="PUT"}'] == 1
        assert samples["imageio_connections"] == 1
        assert samples["process_cpu_seconds_total"] > 0
        assert samples["process_resident_memory_bytes"] > 1024**2
        assert samples["process_threads"] >= 2
        assert UUID[:18] not in text
        client.get(f"/tickets/{UUID}", method="DELETE")
        samples, _ = scrape(client)
        assert samples["imageio_tickets_removed_total"] == 1
        assert samples['imageio_transfers{state="idle"}'] == 0


def test_labels_are_few(server):
    with server.client() as client:
        for number in range(20):
            client.get(f"/unknown/{number}")
            with server.client() as other:
                other.get("/tickets", method=f"METHOD{number}")
        _, text = scrape(client)
    assert "METHOD" not in text
    assert "unknown" not in text
