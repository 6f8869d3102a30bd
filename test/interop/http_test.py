"""Programs that know nothing of us but HTTP: curl, wget, aria2, qemu and nbdkit on the transfer URL."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from real import daemon

pytestmark = pytest.mark.storage

KiB = 1024
MiB = 1024**2
SIZE = 5 * MiB + 512


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def image(tmp_path):
    """A raw image with data, a hole, and data to its odd end."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as f:
        f.write(os.urandom(2 * MiB))
        f.seek(SIZE - MiB)
        f.write(os.urandom(MiB))
    return path


@pytest.fixture
def url(running, image):
    return running.add_ticket(url=f"file://{image}", size=SIZE)


def run(*command, **options):
    """Run a program, return its output; a failure shows what it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def curl(running, *arguments, **options):
    return run("curl", "-sS", "--fail-with-body", "--cacert", running.ca_file, *arguments, **options)


# --- curl ---


def test_curl_downloads(running, url, image, tmp_path):
    curl(running, "-o", tmp_path / "out", url)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("spec", ["0-0", "1000-2000", "-100", f"{SIZE - 10}-", f"{SIZE - 10}-{SIZE}"])
def test_curl_downloads_a_range(running, url, image, spec):
    first, _, last = spec.partition("-")
    data = image.read_bytes()
    expected = data[-int(last) :] if not first else data[int(first) : int(last) + 1 if last else None]
    assert curl(running, "-r", spec, url) == expected


def test_curl_asks_for_the_size(running, url):
    head = curl(running, "-I", url).decode().lower()
    assert f"content-length: {SIZE}\r\n" in head
    assert "accept-ranges: bytes\r\n" in head
    assert head.startswith("http/1.1 200 ")


def test_curl_takes_the_name_of_the_file(running, image, tmp_path):
    url = running.add_ticket(url=f"file://{image}", size=SIZE, filename="Fedora 42.raw")
    curl(running, "-OJ", url, cwd=tmp_path)
    assert (tmp_path / "Fedora 42.raw").read_bytes() == image.read_bytes()


def test_curl_resumes_a_download(running, url, image, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(image.read_bytes()[: 3 * MiB + 1])
    curl(running, "-C", "-", "-o", part, url)
    assert part.read_bytes() == image.read_bytes()


def test_curl_uploads(running, url, image, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    # Above 1 MiB curl asks before it sends.
    curl(running, "-T", source, url)
    assert image.read_bytes() == source.read_bytes()


def test_curl_uploads_what_has_no_length(running, url, image):
    data = os.urandom(3 * MiB + 7)
    curl(running, "-T", "-", url, input=data)
    assert image.read_bytes()[: len(data)] == data


def test_curl_uploads_the_rest(running, url, image, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    before = image.read_bytes()
    curl(running, "-T", source, "-C", str(2 * MiB), url)
    assert image.read_bytes() == before[: 2 * MiB] + source.read_bytes()[2 * MiB :]


def test_curl_hears_why_before_it_sends_everything(running, tmp_path):
    source = tmp_path / "source"
    with source.open("wb") as f:
        f.truncate(64 * MiB)
    for expect in ([], ["-H", "Expect:"]):
        done = subprocess.run(
            ["curl", "-sS", "--cacert", running.ca_file, *expect, "-T", source, running.url("unknown")],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"No such ticket" in done.stdout, done.stderr


def test_curl_zeroes_and_flushes(running, url, image):
    before = image.read_bytes()
    curl(running, "-X", "PATCH", "-d", '{"op": "zero", "offset": 1000, "size": 100000, "flush": true}', url)
    assert image.read_bytes() == before[:1000] + bytes(100_000) + before[101_000:]
    curl(running, "-X", "PATCH", "-d", '{"op": "flush"}', url)


def test_curl_lists_extents(running, url, image):
    extents = json.loads(curl(running, f"{url}/extents"))
    assert sum(extent["length"] for extent in extents) == SIZE
    data = image.read_bytes()
    for extent in extents:
        if extent["zero"]:
            assert not any(data[extent["start"] : extent["start"] + extent["length"]])


def test_curl_over_the_unix_socket(running, url, image):
    path = url.partition("/images/")[2]
    name = running.local_socket[1:]
    data = run("curl", "-sS", "-f", "--abstract-unix-socket", name, f"http://localhost/images/{path}")
    assert data == image.read_bytes()


def test_curl_keeps_its_connection(running, url):
    opened = running.log().count(" OPEN ")
    curl(running, "-o", os.devnull, "-o", os.devnull, "-o", os.devnull, url, f"{url}/extents", url)
    assert running.log().count(" OPEN ") == opened + 1


def test_curl_speaks_http_1_0(running, url, image):
    assert curl(running, "-0", url) == image.read_bytes()
    assert curl(running, "-0", "-r", "5-9", url) == image.read_bytes()[5:10]


def test_curl_is_told_of_plain_http(running, url):
    assert b"HTTPS" in run("curl", "-sS", url.replace("https", "http"))


def test_odd_credentials_are_ignored(running, url, image):
    headers = ["-H", "Authorization: Bearer x", "-H", "Cookie: a=b", "-H", "PUT: junk", "--compressed"]
    assert curl(running, *headers, url) == image.read_bytes()


# --- wget, aria2 ---


def test_wget_goes_on(running, url, image, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(image.read_bytes()[:MiB])
    run("wget", "-q", "-c", "--ca-certificate", running.ca_file, "-O", part, url)
    assert part.read_bytes() == image.read_bytes()


def test_wget_has_nothing_left_to_do(running, url, image, tmp_path):
    part = tmp_path / "part"
    part.write_bytes(image.read_bytes())
    run("wget", "-q", "-c", "--ca-certificate", running.ca_file, "-O", part, url)
    assert part.read_bytes() == image.read_bytes()


def test_aria2_uses_several_connections(running, url, image, tmp_path):
    options = ["-q", "-x4", "-s4", "-k1M", "--file-allocation=none", f"--ca-certificate={running.ca_file}"]
    run("aria2c", *options, "-d", tmp_path, "-o", "out", url)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()


# --- qemu, nbdkit ---


def qemu_node(running, url):
    """qemu's curl driver reads no CA file: trust comes from the environment, so it is told not to verify."""
    return "json:" + json.dumps({"driver": "raw", "file": {"driver": "https", "url": url, "sslverify": False}})


def test_qemu_img_inspects(running, url):
    info = json.loads(run("qemu-img", "info", "--output=json", qemu_node(running, url)))
    assert info["virtual-size"] == SIZE


def test_qemu_img_compares(running, url, image):
    run("qemu-img", "compare", "-f", "raw", qemu_node(running, url), image)


def test_nbdkit_reads(running, url, image, tmp_path):
    # It asks for one byte more than it needs, also at the end.
    script = f'nbdcopy "$uri" {tmp_path}/out'
    run("nbdkit", "-U", "-", "curl", url, f"cainfo={running.ca_file}", "--run", script)
    assert (tmp_path / "out").read_bytes()[:SIZE] == image.read_bytes()
