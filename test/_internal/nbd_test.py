"""The tests of deployed vdsm versions look at disks in this way."""

from __future__ import annotations

import os
from urllib.parse import urlparse, urlsplit

import pytest
from fakes.nbdpeer import Peer

from ovirt_imageio._internal import nbd
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

SIZE = 100_000
CLUSTER = 64 * 1024
CONTEXTS = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:backup"]


def serving(disk, contexts=("base:allocation",)):
    def script(call):
        call.negotiate(size=len(disk), contexts=contexts)
        call.serve(disk)

    return script


@pytest.mark.parametrize("parse", [str, urlparse, urlsplit])
def test_read_and_write(parse):
    disk = bytearray(os.urandom(SIZE))
    with Peer(serving(disk)) as peer, nbd.open(parse(peer.url)) as client:
        assert client.export_size == client.export.size == SIZE
        assert client.read(10, 1000) == disk[10:1010]
        client.write(5, b"hello")
        client.zero(100, 50)
        client.flush()
        assert disk[5:10] == b"hello"
        assert not any(disk[100:150])


def test_extents():
    def script(call):
        call.negotiate(size=SIZE, contexts=CONTEXTS)
        request = call.request()
        call.status(request, [(400, 0), (600, 3)], 0, done=False)
        call.status(request, [(300, 1), (500, 2), (200, 0)], 1, done=False)
        call.status(request, [(200, 1), (800, 0)], 2)

    with Peer(script) as peer, nbd.open(urlparse(peer.url), dirty=True) as client:
        assert client.dirty_bitmap == "qemu:dirty-bitmap:backup"
        assert client.extents(0, 1000) == {
            "base:allocation": [nbd.Extent(400), nbd.Extent(600, zero=True)],
            "qemu:allocation-depth": [nbd.Extent(300), nbd.Extent(500), nbd.Extent(200, hole=True)],
            client.dirty_bitmap: [nbd.Extent(200, dirty=True), nbd.Extent(800)],
        }


@pytest.mark.storage
def test_holes_of_qcow2(tmp_path):
    """What vdsm's tests of detected zeroes look at."""
    path = str(tmp_path / "disk.qcow2")
    img.create(path, "qcow2", 3 * CLUSTER)
    with QemuNbd(path, "qcow2") as server, nbd.open(urlparse(server.url)) as client:
        client.write(0, b"x" * CLUSTER)
        client.zero(CLUSTER, CLUSTER, punch_hole=False)
        client.flush()
        extents = client.extents(0, 3 * CLUSTER)
    assert [(e.length, e.zero) for e in extents["base:allocation"]] == [(CLUSTER, False), (2 * CLUSTER, True)]
    assert [(e.length, e.hole) for e in extents["qemu:allocation-depth"]] == [(2 * CLUSTER, False), (CLUSTER, True)]


def test_no_bitmap():
    with Peer(serving(bytearray(SIZE))) as peer, nbd.open(peer.url, dirty=True) as client:
        assert client.dirty_bitmap is None
