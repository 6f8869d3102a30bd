"""The tests of deployed vdsm versions look at disks in this way."""

from __future__ import annotations

import os
from urllib.parse import urlparse, urlsplit

import pytest
from fakes.nbdpeer import Peer

from ovirt_imageio._internal import nbd

SIZE = 100_000
CONTEXTS = ["base:allocation", "qemu:dirty-bitmap:backup"]


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
        call.status(request, [(200, 1), (800, 0)], 1)

    with Peer(script) as peer, nbd.open(urlparse(peer.url), dirty=True) as client:
        assert client.dirty_bitmap == "qemu:dirty-bitmap:backup"
        assert client.extents(0, 1000) == {
            "base:allocation": [nbd.Extent(400, False, False), nbd.Extent(600, True, False)],
            client.dirty_bitmap: [nbd.Extent(200, False, True), nbd.Extent(800, False, False)],
        }


def test_no_bitmap():
    with Peer(serving(bytearray(SIZE))) as peer, nbd.open(peer.url, dirty=True) as client:
        assert client.dirty_bitmap is None
