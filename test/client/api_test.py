"""The functions that callers see."""

from __future__ import annotations

import hashlib
import inspect
import ssl
import tracemalloc
from pathlib import Path

import pytest
from fakes import liar
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.scripts import load
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import client
from ovirt_imageio.client.copy import pace
from ovirt_imageio.net.pinned import format_fingerprint
from ovirt_imageio.net.tls import ServerContext

MiB = 1024**2

# Blocks of 4 MiB; the file begins with "data".
VECTORS = {
    0: (
        "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ),
    3 * MiB: (
        "42f3b76772a6d3dcffae2a24697721687975e2c60ddfd4ba7831ea9ce772ca71",
        "6cba43b908381be45a55ab9b4361f8370b928354",
    ),
    4 * MiB: (
        "f426bb2cf1e1901fe4e87423950944ecfed6d9d18a09e6e802aa4912e1c9b2d6",
        "3ed03b375b6658d99b63ced1867a95aeef080b79",
    ),
    5 * MiB: (
        "0da53b583fc1fbbac7edea14454c79f84a8107613e614f2c7a47071dfdcf41a6",
        "d3936edd8e3a8ff10e8257a9f460d8da67838549",
    ),
}


@pytest.mark.storage
@pytest.mark.parametrize("size", VECTORS)
def test_checksum_vectors(tmp_path, size):
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.write(b"data" if size else b"")
        file.truncate(size)
    blake, sha1 = VECTORS[size]
    assert client.checksum(str(path)) == {"algorithm": "blake2b", "block_size": 4 * MiB, "checksum": blake}
    assert client.checksum(str(path), algorithm="sha1", detect_zeroes=False)["checksum"] == sha1


@pytest.mark.storage
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (6 * 1024 * MiB, "b1305582f6d479eedc68d4bf28c41950a82ac1351340c9f1aacd073d6495297a"),
        (6 * 1024 * MiB + 512, "5838862c67e5455d619a334bc86f35b609aab4f46c1a4dca9bdb6eaa738fb703"),
    ],
)
def test_checksum_of_zeroes(tmp_path, size, expected):
    path = tmp_path / "disk"
    with open(path, "wb") as file:
        file.truncate(size)
    assert client.checksum(str(path))["checksum"] == expected


@pytest.mark.parametrize("algorithm", ["none", "shake_128", ""])
def test_algorithm_that_does_not_work(algorithm):
    with pytest.raises(client.InvalidValue, match="sha256"):
        client.checksum("disk", algorithm=algorithm)


@pytest.mark.parametrize("block_size", [0, -1])
def test_wrong_block_size(block_size):
    with pytest.raises(client.InvalidValue, match="block_size"):
        client.checksum("disk", block_size=block_size)


def test_checksum_on_a_server():
    with DiskOrigin(b"a") as origin:
        assert client.checksum(origin.url, block_size=4 * MiB)["checksum"] == "abc123"


def test_checksum_on_a_server_that_cannot():
    data = bytes(range(256))
    inner = hashlib.sha256(data).digest()
    with DiskOrigin(data, features=("extents",)) as origin:
        found = client.checksum(origin.url, algorithm="sha256")
    assert found["checksum"] == hashlib.sha256(inner).hexdigest()


def test_extents_on_a_server():
    with DiskOrigin(b"a" * 100) as origin:
        origin.extents["dirty"] = [{"start": 0, "length": 100, "dirty": True, "zero": False}]
        assert list(client.extents(origin.url)) == [client.ZeroExtent(0, 100, False, False)]
        assert list(client.extents(origin.url, dirty=True)) == [client.DirtyExtent(0, 100, True, False)]


def test_extents_open_nothing_before_they_are_asked_for():
    assert inspect.isgenerator(client.extents("/no/such/file"))
    with pytest.raises(client.BackendUnavailable):
        next(client.extents("/no/such/file"))


def test_refusal_of_a_server():
    with DiskOrigin(b"a") as origin:
        origin.refusals[("OPTIONS", "")] = (403, "No such ticket", {})
        with pytest.raises(client.ServerError, match="403") as error:
            client.checksum(origin.url)
    assert error.value.code == 403


PARAMETERS = {
    "upload": "filename url cafile buffer_size secure progress proxy_url max_workers member backing_chain disk_is_zero",
    "download": "url filename cafile fmt incremental buffer_size secure progress proxy_url max_workers backing_file "
    "backing_format",
    "info": "filename member",
    "measure": "filename dst_fmt member",
    "checksum": "filename member block_size algorithm detect_zeroes",
    "extents": "filename member bitmap",
    "ImageioClient": "transfer_url cafile secure proxy_url buffer_size",
    "ProgressBar": "phase error_phase size output format step width now",
}
DEFAULTS = {
    "upload": {"buffer_size": 4 * MiB, "secure": True, "max_workers": 4, "backing_chain": True, "disk_is_zero": False},
    "download": {"fmt": "qcow2", "incremental": False, "max_workers": 4, "backing_file": None},
    "checksum": {"block_size": 4 * MiB, "algorithm": "blake2b", "detect_zeroes": True},
    "ProgressBar": {"error_phase": "command failed", "format": "text", "width": 79},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_signatures_that_callers_rely_on(name):
    parameters = inspect.signature(getattr(client, name)).parameters
    wanted = PARAMETERS[name].split()
    assert list(parameters)[: len(wanted)] == wanted
    for key, value in DEFAULTS.get(name, {}).items():
        assert parameters[key].default == value


def test_everything_public_is_there():
    assert all(hasattr(client, name) for name in client.__all__)
    assert client.BUFFER_SIZE == 4 * MiB
    assert client.MAX_WORKERS == 4


@pytest.mark.storage
def test_fingerprint_is_trusted_everywhere(tmp_path):
    made = certificates.self_signed("api")
    with open(made.cert_file) as file:
        trust = {"fingerprint": format_fingerprint(ssl.PEM_cert_to_DER_cert(file.read()))}
    path = tmp_path / "disk.raw"
    path.write_bytes(b"b" * 4096)
    with DiskOrigin(b"a" * 4096, context=ServerContext(made.cert_file, made.key_file)()) as origin:
        with pytest.raises(client.BackendUntrusted):
            client.checksum(origin.url)
        assert client.checksum(origin.url, **trust)["checksum"] == "abc123"
        assert sum(extent.length for extent in client.extents(origin.url, **trust)) == 4096
        with client.ImageioClient(origin.url, **trust) as connection:
            assert connection.size() == 4096
        client.upload(path, origin.url, None, format="raw", **trust)
        assert origin.data == b"b" * 4096
        client.download(origin.url, tmp_path / "copy.raw", None, fmt="raw", **trust)
    assert (tmp_path / "copy.raw").read_bytes() == b"b" * 4096


# Scripts, one for each way to lie; fakes/liar.py is what they begin with.
HOSTILE = sorted(Path(__file__).parent.joinpath("hostile").glob("*.py"))

# More connections than a transfer makes, also when it tries again.
CONNECTIONS = 20

# What a download may take: buffers, and what Python itself needs.
MOST_MEMORY = 64 * MiB


@pytest.mark.storage
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_server_that_lies(path, tmp_path, monkeypatch):
    """A lie is found, in words, soon, with little memory, and without a file that looks like a disk."""
    monkeypatch.setattr(pace, "BACKOFF", 0.001)
    script = load(path)
    copy, image = tmp_path / "copy.raw", tmp_path / "image.raw"
    image.write_bytes(liar.DATA)
    options = {"retries": 2, "read_timeout": getattr(script, "READ_TIMEOUT", DEADLINE)}
    commands = {
        "download": lambda url: client.download(url, copy, None, fmt="raw", **options),
        "verify": lambda url: client.download(url, copy, None, fmt="raw", verify=True, **options),
        "upload": lambda url: client.upload(image, url, None, format="raw", **options),
    }
    run = commands[getattr(script, "COMMAND", "download")]
    tracemalloc.start()
    try:
        with ScriptedOrigin(*[script.Lie().serve] * CONNECTIONS) as origin:
            if script.EXPECTED is None:
                run(origin.url)
                assert copy.read_bytes() == liar.DATA
            else:
                with pytest.raises(script.EXPECTED, match=script.MESSAGE):
                    run(origin.url)
                assert not copy.exists()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert image.read_bytes() == liar.DATA


# What they tell of a disk decides where its data is in a new image.
OF_EXTENTS = [path for path in HOSTILE if path.stem.startswith(("extents_", "larger_"))]


@pytest.mark.storage
@pytest.mark.parametrize("path", OF_EXTENTS, ids=lambda path: path.stem)
def test_server_that_lies_of_extents_of_a_new_qcow2(path, tmp_path, monkeypatch):
    """Nothing is written anywhere else, and no image is left."""
    monkeypatch.setattr(pace, "BACKOFF", 0.001)
    script = load(path)
    copy = tmp_path / "copy.qcow2"
    tracemalloc.start()
    try:
        with ScriptedOrigin(*[script.Lie().serve] * CONNECTIONS) as origin:
            timeout = getattr(script, "READ_TIMEOUT", DEADLINE)
            with pytest.raises(script.EXPECTED, match=script.MESSAGE):
                client.download(origin.url, copy, None, retries=2, read_timeout=timeout)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    assert not copy.exists()


@pytest.mark.parametrize("command", ["read", "extents", "checksum", "write", "zero"])
def test_server_that_leaves_within_its_answer(command):
    """At each byte of each answer: what was cut is never taken for the whole."""

    class Cut(liar.Honest):
        """Sends so many bytes, then leaves."""

        def __init__(self, left):
            self.left = left

        def serve(self, wire):
            send = wire.send

            def send_some(data):
                send(data[: max(0, self.left)])
                self.left -= len(data)
                if self.left < 0:
                    liar.leave(wire)

            wire.send = send_some
            super().serve(wire)

    def run(connection):
        view = memoryview(bytearray(100))
        if command == "read":
            connection.read(1000, view)
            return view.tobytes()
        if command == "extents":
            return [extent._asdict() for extent in connection.extents("zero")]
        if command == "write":
            return connection.write(0, view)
        if command == "zero":
            return connection.zero(0, 100)
        return None

    def attempt(left):
        lie = Cut(left)
        with ScriptedOrigin(*[lie.serve] * 3) as origin:
            if command == "checksum":
                found = client.checksum(origin.url)["checksum"]
            else:
                with client.ImageioClient(origin.url, read_timeout=DEADLINE) as connection:
                    found = run(connection)
        return found, left - lie.left

    whole, length = attempt(10**6)
    assert length > 100
    for left in range(length):
        with pytest.raises((client.BackendUnavailable, client.BackendUntrusted)):
            attempt(left)
    assert attempt(length)[0] == whole
