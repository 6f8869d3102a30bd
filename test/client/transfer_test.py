"""What is checked around a copy; the copies themselves are in integration/client_test.py."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from fakes.imageserver import ImageServer
from fakes.nbdpeer import Peer
from fakes.origin import DiskOrigin

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.client import errors as client_errors
from ovirt_imageio.client import transfer, ways
from ovirt_imageio.client.copy import plan
from ovirt_imageio.client.copy.reach import NEAR, reach
from ovirt_imageio.client.newqcow2 import NewQcow2
from ovirt_imageio.client.resume import decode, encode
from ovirt_imageio.client.transfer import Download, TransferOptions, Upload, check_size
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.geometry.outline import Outline
from ovirt_imageio.nbd.wire import Command, Mode
from ovirt_imageio.origin.image import Image
from ovirt_imageio.qemu import img

MIB = 1024**2
DATA = bytes(range(256)) * 4096
SMALL = len(DATA) // 2
DEFAULT = TransferOptions()
PATH = os.environ["PATH"]


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(DATA)
    return str(path)


def upload(image: str, origin: DiskOrigin, options: TransferOptions = DEFAULT, **arguments) -> None:
    Upload(image, origin.url, None, options, format="raw", **arguments).run()


def download(origin: DiskOrigin, path: str, options: TransferOptions = DEFAULT, **arguments) -> None:
    Download(origin.url, path, None, options, **{"format": "raw", **arguments}).run()


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"retries": -1}, "retries"), ({"bandwidth": 0}, "bandwidth"), ({"progress": 7}, "progress")],
)
def test_wrong_options(wrong, name):
    with pytest.raises(errors.InvalidValue, match=name):
        TransferOptions(**wrong)


@pytest.mark.parametrize(("limit", "wanted", "workers"), [(8, 4, 4), (1, 4, 1), (8, 0, 1), (8, -1, 1)])
def test_workers(limit, wanted, workers):
    assert TransferOptions(max_workers=wanted).workers(limit) == workers


@pytest.mark.parametrize(("limit", "wanted", "workers"), [(8, 4, 8), (7, 4, 7), (1, 4, 1), (8, 3, 3), (8, 6, 6)])
def test_more_workers_for_servers_that_are_far(limit, wanted, workers):
    assert TransferOptions(max_workers=wanted).workers(limit, reach(0.1)) == workers


def test_pieces_of_a_small_disk_are_not_small():
    """Else they would go by NBD."""
    for size in range(1, 200):
        copies = list(
            plan.plan([ZeroExtent(0, size * MIB, False, False)], plan.Rules(max_copy=NEAR.share_of(size * MIB, 4)))
        )
        assert size < 3 or not ways.are_small(copies, NEAR.max_copy)


def test_upload(image):
    with DiskOrigin(bytes(len(DATA))) as origin:
        upload(image, origin)
        assert origin.data == DATA


@pytest.mark.storage
def test_download(tmp_path):
    path = tmp_path / "copy.raw"
    with DiskOrigin(DATA) as origin:
        download(origin, str(path))
    assert path.read_bytes() == DATA


@pytest.fixture
def no_qemu(monkeypatch):
    """There is no qemu."""
    monkeypatch.setenv("PATH", "/nowhere")


def list_alternately(origin: DiskOrigin) -> None:
    """Let the server list 16 extents, each second one of zeroes, which are in the data, too."""
    origin.options["size"] = len(DATA)
    step = len(DATA) // 16
    for number in range(1, 16, 2):
        origin.data[number * step : (number + 1) * step] = bytes(step)
    origin.extents["zero"] = [
        {"start": number * step, "length": step, "zero": number % 2 == 1, "hole": number % 4 == 1}
        for number in range(16)
    ]


@pytest.mark.storage
@pytest.mark.parametrize("resume", [False, True])
def test_new_qcow2_needs_no_qemu(tmp_path, no_qemu, resume):
    with DiskOrigin(DATA) as origin:
        list_alternately(origin)
        download(origin, str(tmp_path / "copy"), TransferOptions(resume=resume), format="qcow2")
        assert content(tmp_path / "copy") == origin.data
    assert [item.name for item in tmp_path.iterdir()] == ["copy"]


def content(path):
    """Return the disk in a qcow2 image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", PATH)
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path], check=True)
        raw = path.with_name("raw")
        img.convert(str(path), "qcow2", str(raw), "raw")
    data = raw.read_bytes()
    raw.unlink()
    return data


@pytest.mark.storage
@pytest.mark.parametrize("limit", ["MAX_CHANGES", "MAX_TABLES"])
def test_qemu_writes_what_is_too_long_to_be_known_before(tmp_path, monkeypatch, limit):
    """The list is given up in its middle; then it is asked for again."""
    monkeypatch.setattr(transfer, limit, 4)
    with DiskOrigin(DATA) as origin:
        list_alternately(origin)
        download(origin, str(tmp_path / "copy"), format="qcow2")
        assert sum("/extents" in path for _, path, _ in origin.requests) == 2
        assert content(tmp_path / "copy") == origin.data


@pytest.mark.storage
def test_verify_reads_the_new_image_as_qemu_does(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        transfer.verify, "compare", lambda here, there: seen.append((type(here), here.size(), there.size()))
    )
    with DiskOrigin(DATA) as origin:
        download(origin, str(tmp_path / "copy"), TransferOptions(verify=True), format="qcow2")
    assert seen == [(NBDBackend, len(DATA), len(DATA))]


@pytest.mark.storage
@pytest.mark.parametrize("changes", [False, True])
def test_new_qcow2_goes_on_while_the_extents_are_the_same(tmp_path, changes):
    """The first download ends within its second half; with other extents the data would have other places."""
    path, state = tmp_path / "copy", tmp_path / "copy.resume"
    step = len(DATA) // 16
    with DiskOrigin(DATA) as origin:
        list_alternately(origin)
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(path), TransferOptions(resume=True), format="qcow2")
        assert path.read_bytes()[:4] == bytes(4)
        origin.refusals.clear()
        # As if the first half had come, and been flushed.
        journal = decode(state.read_bytes())
        outline = Outline(len(DATA), [ZeroExtent(**item) for item in origin.extents["zero"]], 100)
        image = NewQcow2(str(path), outline)
        with pytest.raises(ZeroDivisionError), image.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
            for number in range(0, 8, 2):
                disk.write(number * step, memoryview(origin.data)[number * step : (number + 1) * step])
                journal.done.add(number * step, (number + 1) * step)
            raise ZeroDivisionError
        image.close()
        state.write_bytes(encode(journal))
        if changes:
            origin.extents["zero"][0]["zero"] = True
            origin.data[:step] = bytes(step)
        origin.requests.clear()
        download(origin, str(path), TransferOptions(resume=True, max_workers=1), format="qcow2")
        asked = [headers.get("range") for method, _, headers in origin.requests if method == "GET"]
        # Gaps are read along, so one request has what is missing; samples are much shorter.
        assert f"bytes={(2 if changes else 8) * step}-{15 * step - 1}" in asked, asked
        assert content(path) == origin.data
    assert not state.exists()


def test_size_that_fits():
    with DiskOrigin(DATA) as origin, contextlib.closing(Image(origin.url)) as image:
        assert check_size(image, len(DATA)) == len(DATA)
        assert check_size(image, SMALL) == len(DATA)
        # This one grows: it was asked, with a request that changes nothing.
        assert check_size(image, 2 * len(DATA)) == len(DATA)
        assert origin.data == DATA + bytes(len(DATA))


def test_size_that_does_not_fit(image):
    with DiskOrigin(DATA[:SMALL]) as origin:
        origin.refusals[("PATCH", "")] = (416, "Out of range", {"Content-Range": f"bytes */{SMALL}"})
        with pytest.raises(client_errors.SizeMismatch, match=f"only {SMALL}"):
            upload(image, origin)
        assert "PUT" not in origin.methods()


def test_verify_needs_a_whole_disk(image, tmp_path):
    with DiskOrigin(DATA) as origin:
        with pytest.raises(client_errors.InvalidArgument, match="backing_chain"):
            upload(image, origin, TransferOptions(verify=True), backing_chain=False)
        with pytest.raises(client_errors.InvalidArgument, match="backing_file"):
            download(origin, str(tmp_path / "copy"), TransferOptions(verify=True), format="qcow2", incremental=True)
        assert origin.requests == []


def test_existing_file_is_kept_before_anybody_is_asked(tmp_path):
    path = tmp_path / "copy"
    path.write_bytes(b"precious")
    with DiskOrigin(DATA) as origin, pytest.raises(client_errors.ImageExists):
        download(origin, str(path), overwrite=False)
    assert origin.requests == []
    assert path.read_bytes() == b"precious"


@pytest.mark.storage
def test_failed_download_leaves_nothing(tmp_path):
    with DiskOrigin(DATA) as origin:
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(tmp_path / "copy"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.storage
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("wrong", [{"format": "nope"}, {"format": "qcow2", "backing_file": "/no/such/file"}])
def test_existing_file_is_kept_when_qemu_refuses(tmp_path, wrong, resume):
    path = tmp_path / "copy"
    path.write_bytes(b"precious")
    with DiskOrigin(DATA) as origin, pytest.raises(errors.StorageError):
        download(origin, str(path), TransferOptions(resume=resume), **wrong)
    assert path.read_bytes() == b"precious"
    assert [item.name for item in tmp_path.iterdir()] == ["copy"]


@pytest.mark.storage
def test_new_image_on_top_of_itself(tmp_path):
    full = tmp_path / "full.qcow2"
    with DiskOrigin(DATA) as origin:
        download(origin, str(full), format="qcow2")
        before = full.read_bytes()
        with pytest.raises(errors.StorageError):
            download(origin, str(full), format="qcow2", backing_file=str(full), backing_format="qcow2")
    assert full.read_bytes() == before


@pytest.mark.parametrize("path", ["/dev/null", "/dev"])
def test_what_is_no_image_is_left_alone(path):
    with DiskOrigin(DATA) as origin, pytest.raises(client_errors.InvalidArgument, match="block device"):
        download(origin, path)
    assert origin.requests == []


@pytest.mark.storage
def test_failed_download_keeps_the_link_to_the_image(tmp_path):
    link, path = tmp_path / "link", tmp_path / "target"
    link.symlink_to(path)
    with DiskOrigin(DATA) as origin:
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(link))
    assert [item.name for item in tmp_path.iterdir()] == ["link"]


@pytest.mark.storage
def test_failed_download_that_may_be_resumed_is_marked(tmp_path):
    with DiskOrigin(DATA) as origin:
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(tmp_path / "copy"), TransferOptions(resume=True))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "copy.resume"]
        origin.refusals.clear()
        download(origin, str(tmp_path / "copy"), TransferOptions(resume=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


@pytest.mark.storage
@pytest.mark.parametrize("left", [0, 512, 4096, len(DATA) - 512])
def test_file_that_was_cut_is_not_resumed(tmp_path, left):
    """Also where what is missing would read as zero, as it is on the server."""
    path, state = tmp_path / "copy", tmp_path / "copy.resume"
    data = DATA[:512] + bytes(len(DATA) - 512)
    with DiskOrigin(data) as origin:
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(path), TransferOptions(resume=True))
        origin.refusals.clear()
        journal = decode(state.read_bytes())
        journal.done.add(0, len(data))
        state.write_bytes(encode(journal))
        path.write_bytes(data[:left])
        download(origin, str(path), TransferOptions(resume=True))
    assert path.read_bytes() == data
    assert not state.exists()


@pytest.mark.storage
def test_state_file_where_the_caller_wants_it(tmp_path):
    state = tmp_path / "elsewhere"
    with DiskOrigin(DATA) as origin:
        origin.refusals[("GET", "")] = (403, "No such ticket", {})
        with pytest.raises(errors.OriginError):
            download(origin, str(tmp_path / "copy"), TransferOptions(resume=str(state)))
    assert state.exists()


def test_state_file_may_be_a_path_object(tmp_path):
    journal = TransferOptions(resume=tmp_path / "elsewhere").journal("image", {})
    assert journal is not None
    assert journal.path == str(tmp_path / "elsewhere")


def test_device_that_is_too_small(block_storage):
    with DiskOrigin(b"a") as origin:
        origin.options["size"] = 1024**4
        with pytest.raises(client_errors.SizeMismatch):
            download(origin, block_storage.path)


def test_device_with_old_data_is_overwritten(block_storage):
    with open(block_storage.path, "r+b") as device:
        device.write(b"old" * 10000)
    with DiskOrigin(bytes(1024**2)) as origin:
        origin.extents["zero"] = [{"start": 0, "length": 1024**2, "zero": True, "hole": True}]
        download(origin, block_storage.path)
    with open(block_storage.path, "rb") as device:
        assert not any(device.read(1024**2))


@pytest.fixture
def breaking(tmp_path):
    """A server whose disk does not answer in time once, as an NBD server that died; another one follows it."""

    class Breaking(MemoryBackend):
        can_recover = True

        def receive_from(self, source, offset, length, progress):
            super().receive_from(source, offset, length, progress)
            server.offsets.append(offset)
            if offset == server.breaks_at:
                server.breaks_at = None
                self.writes.note_break()
                raise errors.BackendTimeout("write", "the NBD server did not answer in time")
            self.writes.note_write()

        def flush(self):
            self.writes.check()

    disk = bytearray(4 * SMALL)
    with ImageServer(tmp_path, port=0) as server:
        server.add("disk", lambda: Breaking(disk), size=len(disk), ops=["write"])
        server.offsets = []
        yield server


@pytest.fixture
def two_parts(tmp_path):
    """An image with data at its beginning and in its middle."""
    path = tmp_path / "parts.raw"
    with open(path, "wb") as file:
        file.write(DATA[:SMALL])
        file.seek(2 * SMALL)
        file.write(DATA[SMALL:])
        file.truncate(4 * SMALL)
    return str(path)


@pytest.fixture
def by_http(monkeypatch):
    monkeypatch.setattr(ways, "SMALL", 0)


def test_time_out_is_repeated(two_parts, breaking, by_http):
    breaking.breaks_at = 0
    Upload(two_parts, breaking.url("disk"), None, DEFAULT, format="raw").run()
    assert breaking.offsets.count(0) > 1


def test_upload_fails_when_acknowledged_data_were_lost(two_parts, breaking, by_http):
    """Though the request that failed is repeated, over a new connection."""
    breaking.breaks_at = 2 * SMALL
    with pytest.raises(errors.OriginError, match="write again what was written"):
        Upload(two_parts, breaking.url("disk"), None, DEFAULT, format="raw").run()
    assert breaking.offsets.count(2 * SMALL) > 1


@pytest.mark.parametrize("breaks", [True, False])
def test_upload_by_nbd_fails_when_acknowledged_data_were_lost(two_parts, tmp_path, monkeypatch, breaks):
    """The NBD server behind the server died, and another one follows it: what the first one acknowledged is lost."""
    monkeypatch.setattr(ways, "SMALL", 2**63)
    disk = bytearray(4 * SMALL)
    written: list[int] = []

    def script(call):
        call.negotiate(size=len(disk), mode=Mode.SIMPLE)
        while True:
            request = call.request()
            if request.kind == Command.WRITE:
                written.append(request.offset)
                if breaks and len(written) == 2:
                    call.hang_up()
                    return
                call.done(request)
            elif request.kind == Command.READ:
                call.simple(request, 0, bytes(request.length))
            elif request.kind != Command.DISCONNECT:
                call.done(request)

    with Peer(script) as peer, ImageServer(tmp_path, port=0) as server:
        server.add("disk", lambda: NBDBackend(peer.url, writable=True), size=len(disk), ops=["write"])
        upload = Upload(two_parts, server.url("disk"), None, TransferOptions(max_workers=1), format="raw")
        if breaks:
            with pytest.raises(errors.StorageError, match="flush"):
                upload.run()
            assert len(written) > 2
        else:
            upload.run()
            assert len(written) == 2
