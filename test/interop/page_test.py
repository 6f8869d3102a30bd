"""The page for people in real browsers: what it shows, what it uploads, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.chaos import ChaosProxy
from fakes.signing import key_pair
from fakes.waiting import wait_until
from real import daemon as real_daemon
from real import faulty
from real.browser import BROWSERS, Chromium, Page
from real.daemon import Daemon
from real.disks import gpt

from ovirt_imageio.net.jws import PrivateKey
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = [
    pytest.mark.storage,
    pytest.mark.slow,
    # A browser is large, and this machine may be busy.
    pytest.mark.timeout(300),
]

MIB = 1024**2
CONFIG = "[page]\nenable = true\n[local]\nenable = false\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory) -> Iterator[Daemon]:
    with real_daemon.running(tmp_path_factory.mktemp("daemon"), CONFIG) as running:
        yield running


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request, tmp_path_factory) -> Iterator[Page]:
    kind = BROWSERS[request.param]
    if kind.program is None:
        pytest.skip(f"{request.param} is not installed")
    with kind(tmp_path_factory.mktemp(request.param)) as page:
        yield page


@pytest.fixture
def page(browser, tmp_path) -> Iterator[Page]:
    """A page about which the browser does not complain. It is left before its disk, in the folder, is deleted."""
    browser.complaints.clear()
    yield browser
    browser.leave()
    assert browser.complaints == []


@pytest.fixture
def chromium(tmp_path) -> Iterator[Chromium]:
    if Chromium.program is None:
        pytest.skip("chromium is not installed")
    with Chromium(tmp_path / "profile", width=360) as narrow:
        yield narrow


def show(page: Page, daemon: Daemon, url: str, port: int = 0) -> None:
    """Open the page of a disk, and wait until it has looked at the disk."""
    page.open(f"https://localhost:{port or daemon.port}/view#{url.rpartition('/')[2]}")
    page.wait("!document.getElementById('disk').hidden")
    page.wait("!/looking|so far/.test(document.getElementById('data').textContent)")
    page.wait("document.getElementById('hex').textContent")


def upload(page: Page, path: Path) -> str:
    """Choose a file; return what the page says in the end."""
    page.choose("#file", path)
    page.wait("document.getElementById('put-result').className")
    page.wait("!upload.isRunning")
    return page.text("#put-result")


def result(page: Page) -> str:
    page.wait("!upload.isRunning && document.getElementById('put-result').className")
    return page.text("#put-result")


def forgive(page: Page) -> None:
    """Close the page; that its browser reports what failed is no fault."""
    page.leave()
    page.run("1")
    page.complaints.clear()


def pause_early(page: Page) -> None:
    """Let an upload stop after its first piece, as if the button had been pressed."""
    page.run(
        "upload.done = (done => function (id) { done.call(this, id); if (!this.isPaused) this.pause(); })"
        "(upload.done), 0"
    )


def make_disk(path: Path, size: int = 32 * MIB) -> bytes:
    """Make a file with data and zeroes, in pieces of any length; return what is in it."""
    chance = random.Random(7)
    content = bytearray(size)
    for start in range(0, size, 3 * MIB):
        part = chance.randbytes(chance.choice([1, 4096, 300_000, 2 * MIB]))[: size - start]
        content[start : start + len(part)] = part
    path.write_bytes(content)
    return bytes(content)


# --- What it shows ---


def test_a_disk(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(64 * MIB)
        file.write(gpt(64 * MIB, ("<b>boot</b>", 2048, 4095), ("root", 4096, 65535)))
        os.pwrite(file.fileno(), b"x" * MIB, 32 * MIB)
    url = daemon.add_ticket(url=f"file://{disk}", size=64 * MIB, filename="<img src=x>.raw", sparse=True)
    show(page, daemon, url)
    # A name is a name.
    assert page.text("h1") == page.run("document.title") == "<img src=x>.raw"
    assert page.text("#size") == "64 MiB (67,108,864 bytes)"
    assert page.text("#data").startswith("1 MiB, 2 % of the disk")
    assert page.text("#rights") == "read and write"
    assert "does not run while this page is open" in page.text("#left")
    assert page.text("#found") == "A GPT partition table."
    cells = page.run("Array.from(document.querySelectorAll('#partitions tbody td'), cell => cell.textContent)")
    assert cells == [
        *("1", "Linux data", "1 MiB (1048576)", "1 MiB", "<b>boot</b>"),
        *("2", "Linux data", "2 MiB (2097152)", "30 MiB", "root"),
    ]
    assert page.text("#hex").splitlines()[-1].endswith("U.")
    page.run("look.show(33554432)")
    page.wait("document.getElementById('hex').textContent.startsWith('0002000000  78 78')")


def test_the_map_with_a_keyboard(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(64 * MIB)
        os.pwrite(file.fileno(), b"x" * MIB, 63 * MIB)
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=64 * MIB))
    assert "1 MiB of 64 MiB is data" in page.run("document.getElementById('map').getAttribute('aria-label')")

    def press(key: str) -> str:
        page.run(f"document.getElementById('map').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}})) && 0")
        return page.text("#spot")

    assert press("ArrowRight").startswith("Offset 0 (0 bytes): zeroes, part of 63 MiB")
    assert "data, part of 1 MiB from offset 66060288 on" in press("End")
    assert press("Home").startswith("Offset 0")


def test_downloads(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    content = make_disk(disk)
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=32 * MIB, filename="disk.raw", ops=["read"]))
    page.wait("!document.getElementById('compact').hidden")
    assert page.run("document.getElementById('put').hidden")
    for link, name, check in [("raw", "disk.raw", is_same), ("qcow2", "disk.qcow2", is_qcow2)]:
        path = page.run(f"document.getElementById('{link}').getAttribute('href')")
        connection = daemon.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.headers["content-disposition"] == f"attachment; filename={name}"
            sent = answer.read()
            check(content, sent, tmp_path)
        finally:
            connection.close()
        # And what a click brings is the same, under that name.
        saved = page.downloads / name
        page.run(f"$('{link}').click(), 0")
        wait_until(lambda saved=saved, sent=sent: saved.exists() and saved.stat().st_size == len(sent))
        assert saved.read_bytes() == sent


def is_same(content: bytes, got: bytes, folder: Path) -> None:
    assert got == content


def is_qcow2(content: bytes, got: bytes, folder: Path) -> None:
    (folder / "got.qcow2").write_bytes(got)
    img.convert(str(folder / "got.qcow2"), "qcow2", str(folder / "got.raw"), "raw")
    assert (folder / "got.raw").read_bytes() == content


@pytest.mark.parametrize(
    "offset, length, words",
    [
        ("0", "1M", "1 MiB loaded"),
        ("64M", "1", "The disk ends at byte"),
        ("x", "1", "not a number of bytes"),
        ("0", "0", "Nothing was asked"),
    ],
)
def test_a_part(page, daemon, tmp_path, offset, length, words):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 * MIB))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=2 * MIB))
    page.run("HTMLAnchorElement.prototype.click = () => {}, 0")
    page.run(f"$('part-offset').value = '{offset}', $('part-length').value = '{length}', $('part').requestSubmit(), 0")
    page.wait("$('part-result').className")
    assert words in page.text("#part-result")


def test_a_huge_disk(page, daemon, tmp_path):
    image = str(tmp_path / "disk.qcow2")
    size = 16 * 1024**4
    img.create(image, "qcow2", size)
    subprocess.run(["qemu-io", "-c", f"write -P 120 {size - 65536} 64k", image], check=True, capture_output=True)
    with QemuNbd(image, "qcow2") as nbd:
        show(page, daemon, daemon.add_ticket(url=nbd.url, size=size))
        page.wait("!document.getElementById('compact').hidden")
        assert page.text("#size").startswith("16 TiB")
        assert page.text("#data").startswith("64 KiB")
        page.run(f"look.show({size - 512})")
        page.wait("document.getElementById('hex').textContent.startsWith('ffffffffe00  78 78')")
        page.leave()


def test_an_empty_disk(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    disk.touch()
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=0))
    assert page.text("#hex") == "The disk has no bytes."


# --- Upload ---


def test_an_upload_whose_connections_are_cut(page, daemon, tmp_path):
    """Three times; what was lost is sent again, and in the end the checksums agree."""
    source, disk = tmp_path / "source", tmp_path / "disk"
    content = make_disk(source, 40 * MIB + 12345)
    size = 48 * MIB
    disk.write_bytes(b"\xff" * size)
    url = daemon.add_ticket(url=f"file://{disk}", size=size)
    with ChaosProxy(("localhost", daemon.port), cuts=[2_000_000] * 8) as chaos:
        show(page, daemon, url, chaos.port)
        text = upload(page, source)
        assert chaos.cut
        forgive(page)
    assert "verified: the disk equals the file" in text, text
    assert disk.read_bytes() == content.ljust(size, b"\0")


def test_files_that_are_dropped(page, daemon, tmp_path):
    """One is refused, by its name, whatever that looks like; the other one is uploaded."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=MIB))

    def drop(content: str, name: str) -> str:
        page.run(
            f"((all) => {{ all.items.add(new File([{content}], '{name}')); $('put-result').className = '';"
            " $('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: all, cancelable: true})); })"
            "(new DataTransfer()), 0"
        )
        return result(page)

    assert drop("''", "<img src=x>") == "<img src=x> is empty."
    assert page.run("document.querySelectorAll('img').length") == 0
    assert "verified" in drop("'x'.repeat(5000)", "disk.raw")
    assert disk.read_bytes() == (b"x" * 5000).ljust(MIB, b"\0")
    page.run("poll()")
    assert page.text("#now").endswith("1 MiB uploaded so far")


def test_an_upload_that_goes_on_after_a_reload(page, daemon, tmp_path):
    source, disk = tmp_path / "source", tmp_path / "disk"
    content = make_disk(source)
    disk.write_bytes(bytes(32 * MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=32 * MIB)
    show(page, daemon, url)
    # It stops after a few pieces.
    pause_early(page)
    page.choose("#file", source)
    page.wait("upload.isPaused && JSON.parse(sessionStorage.getItem(upload.key())).pieces > 0")
    page.run("upload.isRunning = false, 0")
    page.run("sessionStorage.setItem('kept', sessionStorage.getItem(upload.key())), 0")
    show(page, daemon, url)
    page.run(
        "upload.resume = (resume => async function () { await resume.call(this); window.resumed = this.next; })"
        "(upload.resume), 0"
    )
    assert "verified" in upload(page, source)
    assert page.run("window.resumed") > 0
    assert disk.read_bytes() == content


def test_what_the_page_remembers_is_not_believed(page, daemon, tmp_path):
    """The disk is not what it was: the upload starts over."""
    source, disk = tmp_path / "source", tmp_path / "disk"
    content = make_disk(source)
    disk.write_bytes(bytes(32 * MIB))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=32 * MIB))
    changed = int(source.stat().st_mtime * 1000)
    for record in (f'{{"size": {32 * MIB}, "changed": {changed}, "pieces": 5}}', "nonsense"):
        page.run(f"sessionStorage.setItem(upload.key(), '{record}'), 0")
        assert "verified" in upload(page, source)
        assert disk.read_bytes() == content
        page.run("$('put-result').className = '', 0")


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("empty", b"", "is empty"),
        ("large", bytes(4 * MIB + 1), "does not fit"),
        ("disk.qcow2", b"QFI\xfb" + bytes(1000), "is a qcow2 image, not a raw image"),
        ("disk.vmdk", b"KDMV" + bytes(1000), "is a VMDK image"),
        ("disk.gz", b"\x1f\x8b\x08" + bytes(1000), "is compressed with gzip"),
        ("disk.xz", b"\xfd7zXZ\0" + bytes(1000), "is compressed with xz"),
    ],
)
def test_files_that_are_refused(page, daemon, tmp_path, name, content, words):
    source, disk = tmp_path / name, tmp_path / "disk"
    source.write_bytes(content)
    disk.write_bytes(b"\xff" * 4 * MIB)
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=4 * MIB))
    assert words in upload(page, source)
    assert disk.read_bytes() == b"\xff" * 4 * MIB


def test_a_file_that_changes_while_it_is_read(page, daemon, tmp_path):
    source, disk = tmp_path / "source", tmp_path / "disk"
    make_disk(source)
    disk.write_bytes(bytes(32 * MIB))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=32 * MIB))
    pause_early(page)
    page.choose("#file", source)
    page.wait("upload.isPaused")
    source.write_bytes(b"short")
    page.run("upload.pause(), 0")
    assert "changed while it was read" in result(page)


def test_two_pages_upload_to_one_disk(page, daemon, tmp_path):
    source, disk = tmp_path / "source", tmp_path / "disk"
    source.write_bytes(b"x" * MIB)
    disk.write_bytes(bytes(MIB))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=MIB))
    page.run("navigator.locks.request(`upload ${ticket}`, () => new Promise(() => {})), 0")
    assert "Another page of this browser" in upload(page, source)
    assert disk.read_bytes() == bytes(MIB)


def test_a_ticket_that_ends_amid_an_upload(page, daemon, tmp_path):
    source, disk = tmp_path / "source", tmp_path / "disk"
    make_disk(source)
    disk.write_bytes(bytes(32 * MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=32 * MIB)
    show(page, daemon, url)
    pause_early(page)
    page.choose("#file", source)
    page.wait("upload.isPaused")
    daemon.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")
    page.run("upload.pause(), 0")
    assert "This ticket has ended" in result(page)
    forgive(page)


def test_storage_that_fails_amid_an_upload_and_a_download(page, daemon, tmp_path):
    """The page says so, once all that it sent was answered; then the same file goes on."""
    if not faulty.available():
        pytest.skip("nbdkit and its plugins are not installed, or this user may not mount")
    source = tmp_path / "source"
    with faulty.file(tmp_path, 16 * MIB) as disk, contextlib.ExitStack() as scope:
        content = make_disk(source, disk.size)
        url = daemon.add_ticket(url=f"file://{disk.path}", size=disk.size)
        # The file is mounted while the daemon has it open.
        scope.callback(daemon.control, "DELETE", f"/tickets/{url.rpartition('/')[2]}")
        show(page, daemon, url)
        page.run("window.done = upload.done, 0")
        pause_early(page)
        page.choose("#file", source)
        page.wait("upload.isPaused")
        disk.fail()
        page.run("upload.pause(), 0")
        assert "The upload stopped; choose the same file again to go on" in result(page)
        assert page.run("document.getElementById('going').hidden && !document.getElementById('file').disabled")
        page.run("document.getElementById('part').requestSubmit(), 0")
        page.wait("document.getElementById('part-result').className")
        assert re.search("Storage failed|The answer broke off", page.text("#part-result"))
        disk.mend()
        page.run("$('put-result').className = '', upload.done = done, 0")
        assert "verified" in upload(page, source)
        assert Path(disk.path).read_bytes() == content
        forgive(page)


def test_a_download_that_breaks_off(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 32 * MIB)
    url = daemon.add_ticket(url=f"file://{disk}", size=32 * MIB)
    with ChaosProxy(("localhost", daemon.port), cuts=[2_000_000] * 8) as chaos:
        show(page, daemon, url, chaos.port)
        page.run("$('part-length').value = '32M', $('part').requestSubmit(), 0")
        page.wait("document.getElementById('part-result').className")
        assert "The answer broke off" in page.text("#part-result")
        forgive(page)


def test_two_files_one_after_the_other(page, daemon, tmp_path):
    """The first one fails while it is paused: the second one is whole, and what is offered is about it."""
    first, second, disk = tmp_path / "first", tmp_path / "second", tmp_path / "disk"
    make_disk(first, 24 * MIB)
    # Neither a multiple of a piece, nor of a sector.
    size = 24 * MIB + 1234
    second.write_bytes(b"2" * (9 * MIB + 77))
    disk.write_bytes(bytes(size))
    show(page, daemon, daemon.add_ticket(url=f"file://{disk}", size=size))
    page.wait("!document.getElementById('compact').hidden")
    page.run(
        "window.offers = 0, window.offerCompact = (offer => () => { offers += 1; return offer(); })(offerCompact), 0"
    )
    page.run("window.put = upload.put, window.asked = [], 0")
    page.run("upload.put = function (...piece) { if (!this.isPaused) this.pause(); throw new Error('It failed.'); }, 0")
    assert upload(page, first).startswith("It failed.")
    page.run("upload.put = function (...piece) { asked.push(this.flush); return put.apply(this, piece); }, 0")
    page.run("$('put-result').className = '', disk.max_writers = 1, 0")
    # Another one is dropped before the page knows what this one is.
    page.run("window.check = upload.check, 0")
    page.run(
        "upload.check = async function (file) {"
        " upload.check = check; upload.choose(new File(['x'], 'dropped')); return check.call(upload, file); }, 0"
    )
    page.choose("#file", second)
    assert "verified" in result(page)
    assert page.run("document.getElementById('pause').textContent") == "Pause"
    assert page.run("asked.every(flush => flush)")
    assert disk.read_bytes() == second.read_bytes().ljust(size, b"\0")
    # How large an image of its data is was asked again, once.
    assert page.run("offers") == 1


def test_another_ticket_before_the_first_one_answered(page, daemon, tmp_path):
    slow, fast = tmp_path / "slow", tmp_path / "fast"
    slow.write_bytes(bytes(MIB))
    fast.write_bytes(bytes(2 * MIB))
    urls = [daemon.add_ticket(url=f"file://{path}", size=2 * MIB, filename=path.name) for path in (slow, fast)]
    show(page, daemon, urls[1])
    page.run(
        "window.real = describe, describe = async () => { const found = await real();"
        " if (found.size === 1048576) await new Promise(resolve => { window.release = resolve; }); return found; }, 0"
    )
    page.run(f"location.hash = '{urls[0].rpartition('/')[2]}', 0")
    page.wait("window.release")
    page.run(f"location.hash = '{urls[1].rpartition('/')[2]}', 0")
    page.wait("!document.getElementById('disk').hidden")
    page.run("window.release(), new Promise(resolve => setTimeout(resolve))")
    assert page.run("disk.size") == 2 * MIB
    assert page.text("h1") == "fast"


# --- What it cannot show ---


@pytest.mark.parametrize("ticket", ["", "unknown", "%E0%A4%A"])
def test_no_such_ticket(page, daemon, ticket):
    page.open(f"https://localhost:{daemon.port}/view#{ticket}")
    page.wait("!document.getElementById('ask').hidden")
    assert page.run("document.getElementById('disk').hidden")
    if ticket:
        page.wait("document.getElementById('message').textContent")
        assert "This ticket has ended, or never existed" in page.text("#message")
    forgive(page)


def test_a_transfer_url_is_pasted(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=MIB)
    page.open(f"https://localhost:{daemon.port}/view")
    page.wait("!document.getElementById('ask').hidden")
    page.run(f"$('ticket').value = '{url}', $('ask').requestSubmit(), 0")
    page.wait("!document.getElementById('disk').hidden")


def test_a_signed_ticket_is_pasted(page, tmp_path):
    """Its URL has the name in the path, and the proof in the query."""
    private, public = key_pair()
    (tmp_path / "key.pem").write_bytes(public)
    config = f"{CONFIG}[signed_tickets]\nenable = true\nkey_file = {tmp_path}/key.pem\naudience = imageio\n"
    content = make_disk(tmp_path / "source", 4 * MIB)
    (tmp_path / "disk").write_bytes(bytes(4 * MIB))
    claims = {"jti": "one", "aud": "imageio", "exp": time.time() + 600, "size": 4 * MIB, "ops": ["read", "write"]}
    token = PrivateKey(private).sign({**claims, "url": f"file://{tmp_path}/disk"})
    with real_daemon.running(tmp_path / "daemon", f"{config}allow = file://{tmp_path}/*\n") as signed:
        page.open(f"https://localhost:{signed.port}/view")
        page.wait("!document.getElementById('ask').hidden")
        url = f"https://localhost:{signed.port}/images/one?ticket={token}"
        page.run(f"$('ticket').value = '{url}', $('ask').requestSubmit(), 0")
        page.wait("document.getElementById('hex').textContent && !document.getElementById('compact').hidden")
        links = page.run("['raw', 'qcow2'].map(id => document.getElementById(id).search)")
        assert links == [f"?ticket={token}", f"?format=qcow2&ticket={token}"]
        assert "verified" in upload(page, tmp_path / "source")
        page.leave()
        assert token not in signed.log()
    assert (tmp_path / "disk").read_bytes() == content


def test_a_server_that_goes_away(page, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    with real_daemon.running(tmp_path / "daemon", CONFIG) as running:
        show(page, running, running.add_ticket(url=f"file://{disk}", size=MIB))
    page.run("poll()")
    assert "The server cannot be reached" in page.text("#message")
    forgive(page)


# --- For all people ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stops_a_screen_reader(chromium, daemon, tmp_path, scheme):
    """At 360 pixels, in both colors; and nothing is wider than the window."""
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(64 * MIB)
        file.write(gpt(64 * MIB, ("boot", 2048, 4095)))
    chromium.emulate(scheme)
    show(chromium, daemon, daemon.add_ticket(url=f"file://{disk}", size=64 * MIB))
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    chromium.run(f"{axe}; 0")
    found = chromium.run("axe.run().then(all => all.violations.map(one => [one.id, one.nodes.map(node => node.html)]))")
    assert found == []
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.complaints == []


def test_the_ticket_reaches_no_log(page, daemon, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=MIB)
    show(page, daemon, url)
    assert url.rpartition("/")[2] not in daemon.log()
