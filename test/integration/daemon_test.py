"""The real daemon: it starts, serves, reloads, drains and ends."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import urllib.request

import pytest
from real import certificates, daemon

MiB = 1024**2


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def image(tmp_path):
    """A file of a few MiB that is different everywhere."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(4 * MiB))
    return path


def test_three_listeners(running):
    assert set(running.addresses) == {"remote", "local", "control"}


def test_download(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(url, context=running.tls) as response:
        assert response.read() == image.read_bytes()


def test_local_download(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with contextlib.closing(running.connect_unix(running.local_socket)) as connection:
        connection.request("GET", url.partition(str(running.port))[2])
        assert connection.getresponse().read() == image.read_bytes()


def test_upload(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    data = os.urandom(4 * MiB)
    request = urllib.request.Request(url, data, method="PUT")
    with urllib.request.urlopen(request, context=running.tls) as response:
        assert response.status == 200
    assert image.read_bytes() == data


def test_local_socket_is_offered(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(urllib.request.Request(url, method="OPTIONS"), context=running.tls) as response:
        assert json.load(response)["unix_socket"] == running.local_socket
