"""This machine as a host of the engine."""

from __future__ import annotations

import pytest
from fakes.engine import PASSWORD, USER

from ovirt_imageio.client.engine import hosts
from ovirt_imageio.client.engine.connection import Engine, EngineError, Login


@pytest.fixture
def connection(engine):
    with Engine(Login(engine.url, USER, PASSWORD)) as connection:
        yield connection


@pytest.fixture
def hardware_id(tmp_path, monkeypatch):
    path = tmp_path / "vdsm.id"
    monkeypatch.setattr(hosts, "HARDWARE_ID", path)
    return path


def test_not_a_host(engine, connection, hardware_id):
    assert hosts.find_host(connection, "data") is None
    hardware_id.write_bytes(b"\xff")
    assert hosts.find_host(connection, "data") is None
    assert engine.searches == []


def test_host(engine, connection, hardware_id):
    hardware_id.write_text("hardware-1\n")
    assert hosts.find_host(connection, "big disks") == engine.hosts["hardware-1"]
    assert engine.searches == [
        'storage.name="big disks"',
        'hw_id="hardware-1" and datacenter="Default" and status=Up',
    ]


def test_host_of_another_engine(connection, hardware_id):
    hardware_id.write_text("hardware-2\n")
    assert hosts.find_host(connection, "data") is None


def test_name_that_cannot_be_searched(engine, connection, hardware_id):
    hardware_id.write_text("hardware-1\n")
    assert hosts.find_host(connection, 'data" or name="x') is None
    assert engine.searches == []


def test_unknown_domain(connection, hardware_id):
    hardware_id.write_text("hardware-1\n")
    with pytest.raises(EngineError, match="No data center has a storage domain 'dtaa'"):
        hosts.find_host(connection, "dtaa")
