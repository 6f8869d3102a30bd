"""`ovirt-imageio serve`: one command, and a disk image is served; Ctrl-C, and nothing of it is left."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from fakes.waiting import wait_until
from real import daemon, luks, network, sshd

from ovirt_imageio.net.pinned import PinnedContext, parse_fingerprint
from ovirt_imageio.qemu import img
from ovirt_imageio.service.serve import demo

pytestmark = pytest.mark.storage

MiB = 1024**2


@dataclasses.dataclass
class Serving:
    """A serve that showed its URL."""

    process: subprocess.Popen
    output: Path
    temp: Path

    def find(self, pattern):
        """Wait until the pattern was printed; return its group."""

        def look():
            has_ended = self.process.poll() is not None
            found = re.search(pattern, self.output.read_text())
            assert found or not has_ended, self.output.read_text()
            return found

        return wait_until(look, self.output.read_text).group(1)

    @property
    def url(self):
        return self.find(r"transfer URL: +(\S+)\n")

    @property
    def tls(self):
        return ssl.create_default_context(cafile=self.find(r"CA file: +(\S+)\n"))

    def open(self, data=None, method=None):
        return urllib.request.urlopen(urllib.request.Request(self.url, data, method=method), context=self.tls)

    def qemu_pids(self):
        """Return the processes that serve from our temporary directory."""
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    str(self.temp).encode() in (folder / "cmdline").read_bytes()
                    and int(folder.name) != self.process.pid
                ):
                    pids.append(int(folder.name))
        return pids

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(daemon.DEADLINE)


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts serve; what it started must be gone afterwards."""
    with contextlib.ExitStack() as scope:
        temp = tmp_path / "tmp"
        temp.mkdir()
        numbers = itertools.count()

        def serve(*arguments, stdout=None, wrapper=()):
            output = tmp_path / f"output-{next(numbers)}"
            environ = {
                **os.environ,
                "PYTHONPATH": str(daemon.ROOT),
                "XDG_STATE_HOME": str(tmp_path),
                "TMPDIR": str(temp),
            }
            command = [
                *wrapper,
                sys.executable,
                "-m",
                "ovirt_imageio.service.cli",
                "serve",
                # The last one counts.
                "--listen",
                "localhost:0",
                *arguments,
            ]
            with open(output, "wb") as file:
                process = subprocess.Popen(
                    command,
                    env=environ,
                    cwd=tmp_path,
                    stdout=stdout or file,
                    stderr=file,
                    start_new_session=True,
                )
            scope.callback(process.wait)
            scope.callback(process.terminate)
            return Serving(process, output, temp)

        yield serve
    assert list(temp.iterdir()) == []


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_upload_and_download(serve, tmp_path, name):
    serving = serve(name, "--size", "4m")
    data = os.urandom(MiB)
    assert serving.open(data, "PUT").status == 200
    with serving.open() as response:
        assert "disk.raw" in response.headers["content-disposition"]
        assert response.read() == data + bytes(3 * MiB)
    assert serving.stop() == 0
    assert serving.output.read_text().endswith("Stopped\n")
    assert img.info(str(tmp_path / name))["virtual-size"] == 4 * MiB


def test_read_only(serve, tmp_path):
    (tmp_path / "disk").write_bytes(b"disk" * 1024)
    serving = serve("disk", "--read-only", "--format", "raw")
    with serving.open() as response:
        assert response.read() == b"disk" * 1024
    with pytest.raises(urllib.error.HTTPError, match="403"):
        serving.open(b"x", "PUT")


def test_chosen_ticket(serve):
    serving = serve("disk", "--size", "1m", "--ticket-id", "my-disk")
    assert serving.url.endswith("/images/my-disk")
    with serving.open() as response:
        assert len(response.read()) == MiB
    serving.stop()


def test_without_tls(serve):
    serving = serve("disk", "--size", "1m", "--no-tls")
    assert serving.url.startswith("http://localhost:")
    with urllib.request.urlopen(serving.url) as response:
        assert len(response.read()) == MiB


def test_many_connections(serve):
    """More clients than a ticket advises, all of them idle but the last one."""
    serving = serve("disk.qcow2", "--size", "1m")
    path = urllib.parse.urlsplit(serving.url)
    with contextlib.ExitStack() as scope:
        for _ in range(20):
            connection = http.client.HTTPSConnection(
                "localhost", path.port, context=serving.tls, timeout=daemon.DEADLINE
            )
            scope.callback(connection.close)
            connection.request("GET", path.path)
            assert len(connection.getresponse().read()) == MiB


@pytest.mark.parametrize("host", ["localhost", "[::]"])
def test_commands_work(serve, tmp_path, host):
    """As they are printed, in a shell that does not know where ovirt-img is."""
    serving = serve("disk.qcow2", "--size", "1m", "--listen", f"{host}:0")
    upload = serving.find(r"\n  (curl .* -T .*)\n")
    download = serving.find(r"\n  (curl .* -o .*)\n")
    data = os.urandom(MiB)
    raw, qcow2 = tmp_path / "disk-copy.raw", tmp_path / "disk-copy.qcow2"

    def run(command):
        environ = {**os.environ, "PYTHONPATH": str(daemon.ROOT)}
        subprocess.run(command, shell=True, check=True, cwd=tmp_path, capture_output=True, env=environ)

    raw.write_bytes(data)
    run(upload)
    raw.unlink()
    run(download)
    assert raw.read_bytes() == data
    run(serving.find(r"\n  (\S*/ovirt-img download .*)\n"))
    assert img.info(str(qcow2))["format"] == "qcow2"
    raw.write_bytes(bytes(MiB))
    run(upload)
    run(serving.find(r"\n  (\S*/ovirt-img upload .*)\n"))
    raw.unlink()
    run(download)
    assert raw.read_bytes() == data


def test_record_for_scripts(serve):
    serving = serve("disk.qcow2", "--size", "1m", "--json")
    record = json.loads(serving.find(r"^(\{.*\})\n"))
    assert record["pid"] == serving.process.pid
    [image] = record["images"]
    trusting = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.pin(parse_fingerprint(record["fingerprint"]))
    with urllib.request.urlopen(image["url"], context=trusting) as response:
        assert len(response.read()) == image["size"] == MiB
    assert serving.stop() == 0
    # Nothing else is printed.
    assert len(serving.output.read_text().splitlines()) == 1


def test_quiet(serve):
    serving = serve("disk.qcow2", "--size", "1m", "--quiet")
    with serving.open() as response:
        response.read()
    assert serving.stop() == 0
    text = serving.output.read_text()
    assert "transfer URL" in text
    assert "received" not in text


def test_line_for_each_transfer(serve):
    """However small: the log tells that a client was there."""
    serving = serve("disk.qcow2", "--size", "1m")
    with serving.open() as response:
        response.read()
    serving.find(r"(received 0 bytes, sent 1.00 MiB, idle)")
    assert serving.open(b"x" * 4096, "PUT").status == 200
    serving.stop()
    text = serving.output.read_text()
    assert len(re.findall("^received", text, re.MULTILINE)) == 2
    assert re.findall(r"^  (\S+)  (\w+)  HTTP ", text, re.MULTILINE) == [("127.0.0.1", "out"), ("127.0.0.1", "both")]


def test_reader_that_leaves(serve, tmp_path):
    """`serve | head` goes on serving, and never shows a traceback."""
    reader, writer = os.pipe()
    try:
        serving = serve("disk.qcow2", "--size", "1m", stdout=writer)
        os.close(writer)
        url = re.search(rb"transfer URL: +(\S+)\n", os.read(reader, 100000))[1].decode()
    finally:
        os.close(reader)
    ca_file = next(tmp_path.glob("ovirt-imageio/certificates/*/cert.pem"))
    tls = ssl.create_default_context(cafile=ca_file)
    with urllib.request.urlopen(url, context=tls) as response:
        assert len(response.read()) == MiB
    assert serving.stop() == 0
    assert serving.output.read_text() == ""


def test_folder(serve, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.img").write_bytes(b"a" * 4096)
    img.create(str(images / "b.qcow2"), "qcow2", MiB)
    serving = serve(str(images))
    for name, content in (("a.img", b"a" * 4096), ("b.qcow2", bytes(MiB))):
        url = serving.find(rf"\n  {name} .*\n    \S+/view#\S+ .*\n    (https:\S+)\n")
        with urllib.request.urlopen(url, context=serving.tls) as response:
            assert response.read() == content
    assert serving.stop() == 0
    assert serving.qemu_pids() == []


def test_file_as_it_is(serve, tmp_path):
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", MiB)
    serving = serve("disk.qcow2", "--file")
    with serving.open() as response:
        assert response.read() == path.read_bytes()
        assert "disk.qcow2" in response.headers["content-disposition"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        serving.open(b"x", "PUT")
    assert serving.qemu_pids() == []


# --- Other machines ---


@pytest.mark.skipif(not network.available(), reason="no network namespaces")
def test_other_machine(serve, tmp_path):
    """A name, IPv4 and IPv6: what is printed works there, with nothing copied."""
    with network.apart() as apart:
        serving = serve("disk.qcow2", "--demo", "--listen", "[::]:0", "--json")
        record = json.loads(serving.find(r"^(\{.*\})\n"))
        [image] = record["images"]
        by_host = {urllib.parse.urlsplit(url).hostname: url for url in image["urls"]}
        assert {apart.address, apart.address6} <= set(by_host)
        by_name = by_host[apart.address].replace(apart.address, apart.name)
        for url in (by_host[apart.address], by_host[apart.address6], by_name):
            run_there(
                apart, tmp_path, "curl", "-sSf", "-k", "--pinnedpubkey", record["public_key_pin"], "-o", "raw", url
            )
            assert (tmp_path / "raw").stat().st_size == image["size"]
            # The certificate is good for each of them.
            run_there(apart, tmp_path, "curl", "-sSf", "--cacert", record["ca_file"], "-o", "raw", url)
            command = [sys.executable, "-m", "ovirt_imageio.client.cli", "download"]
            run_there(apart, tmp_path, *command, "--fingerprint", record["fingerprint"], url, "copy.qcow2")
            assert img.info(str(tmp_path / "copy.qcow2"))["virtual-size"] == image["size"]
        with pytest.raises(subprocess.CalledProcessError):
            wrong = "sha256//" + "A" * 43 + "="
            run_there(apart, tmp_path, "curl", "-sSf", "-k", "--pinnedpubkey", wrong, "-o", "raw", by_name)


@pytest.mark.skipif(not network.available(), reason="no network namespaces")
def test_printed_commands_on_another_machine(serve, tmp_path):
    with network.apart() as apart:
        serving = serve("disk.qcow2", "--demo", "--listen", f"{apart.address}:0")
        run_there(apart, tmp_path, "sh", "-c", serving.find(r"\n  (curl .* -o .*)\n"))
        assert demo.TEXT.encode() in (tmp_path / "disk-copy.raw").read_bytes()
        run_there(apart, tmp_path, "sh", "-c", serving.find(r"\n  (\S*/ovirt-img download .*)\n"))


def run_there(apart, folder, *command):
    environ = {**os.environ, "PYTHONPATH": str(daemon.ROOT)}
    subprocess.run([*apart.command, *command], check=True, cwd=folder, env=environ, capture_output=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_in_the_middle(serve, number):
    """The first signal lets the download finish; a terminal sends Ctrl-C to qemu-nbd as well, which must not care."""
    serving = serve("disk.raw", "--size", "64m")
    with serving.open() as response:
        assert response.read(1)
        os.killpg(serving.process.pid, number)
        assert serving.find(r"Waiting up to (30) seconds for 1 transfer: serve/disk.raw; Ctrl-C again ends")
        assert len(response.read()) == 64 * MiB - 1
    assert serving.process.wait(daemon.DEADLINE) == 0
    assert serving.qemu_pids() == []


def test_second_signal_cuts(serve):
    serving = serve("disk.raw", "--size", "64m")
    with serving.open() as response:
        assert response.read(1)
        serving.process.send_signal(signal.SIGINT)
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(daemon.DEADLINE) == 0


def test_killed(serve):
    """qemu-nbd ends with us, so that the image can be served again."""
    serving = serve("disk.qcow2", "--size", "1m")
    assert serving.url
    assert serving.qemu_pids()
    assert serving.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not serving.qemu_pids())
    # No process was left to remove it.
    for folder in serving.temp.iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    again = serve("disk.qcow2")
    assert again.url


def test_qemu_dies(serve):
    serving = serve("disk.qcow2", "--size", "1m")
    assert serving.url
    for pid in serving.qemu_pids():
        os.kill(pid, signal.SIGKILL)
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert "qemu-nbd ended by itself" in serving.output.read_text()


@pytest.mark.slow
def test_nobody_comes(serve):
    serving = serve("disk.qcow2", "--size", "1m", "--timeout", "1")
    assert serving.process.wait(daemon.DEADLINE) == 0
    assert "The disk was not used for 1s" in serving.output.read_text()


def test_missing_image(serve):
    serving = serve("disk")
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert serving.output.read_text() == (
        "ovirt-imageio: Invalid image 'disk': expected a file that exists; or add --size 10g, and it will be created\n"
    )


# --- Images on storage of a network ----------------------------------------------------------------------------------


@pytest.fixture
def chained(tmp_path):
    """Return two qcow2 images, of which the first one stands on the second."""
    top, base = tmp_path / "top.qcow2", tmp_path / "base.qcow2"
    img.create(str(base), "qcow2", MiB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", str(base)], check=True, capture_output=True)
    img.create(str(top), "qcow2", backing_file="base.qcow2", backing_format="qcow2")
    return top, base


def test_image_of_another_server(serve, chained):
    """Over HTTP, from a daemon of our own."""
    first = serve(str(chained[1]), "--file", "--no-tls")
    url = first.url
    second = serve(url, "--read-only", "--no-tls")
    with urllib.request.urlopen(second.url) as response:
        assert response.read() == b"\7" * 65536 + bytes(MiB - 65536)
    assert "(qcow2, 1.00 MiB)" in second.output.read_text()


def test_json(serve, chained):
    """For what no URL can say: here, not to verify the certificate."""
    first = serve(str(chained[1]), "--file")
    node = {"driver": "https", "url": first.url, "sslverify": False}
    second = serve(f"json:{json.dumps(node)}", "--format", "qcow2", "--read-only", "--no-tls")
    with urllib.request.urlopen(second.url) as response:
        assert response.read(65536) == b"\7" * 65536


def test_server_that_is_not_trusted(serve, chained):
    first = serve(str(chained[1]), "--file")
    second = serve(first.url, "--read-only")
    assert second.process.wait(daemon.DEADLINE) == 1
    assert "certificate" in second.output.read_text()


def test_storage_that_cannot_be_written(serve, chained):
    first = serve(str(chained[1]), "--file", "--no-tls")
    second = serve(first.url)
    assert second.process.wait(daemon.DEADLINE) == 1
    assert "add --read-only" in second.output.read_text()


@pytest.mark.skipif(not sshd.available(), reason="no sshd, or no mount namespaces")
def test_ssh(serve, tmp_path):
    """With a real server: written, read, and cut amid a transfer."""
    disk, data = tmp_path / "disk", os.urandom(MiB)
    disk.write_bytes(bytes(MiB))
    with sshd.Server(tmp_path) as server:
        url = server.url(disk)
        serving = serve(url, "--format", "raw", "--no-tls", wrapper=server.command)
        with urllib.request.urlopen(urllib.request.Request(serving.url, data, method="PUT")):
            pass
        assert disk.read_bytes() == data
        with urllib.request.urlopen(serving.url) as response:
            assert response.read() == data
        server.known_hosts.write_text("")
        stranger = serve(url, "--format", "raw", wrapper=server.command)
        assert stranger.process.wait(daemon.DEADLINE) == 1
        assert "no host key was found in known_hosts" in stranger.output.read_text()
    # It is gone, with all its connections.
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(serving.url)
    assert serving.stop() == 0


@pytest.mark.slow
def test_encrypted(serve, tmp_path):
    secret, disk = tmp_path / "a,b", tmp_path / "disk.luks"
    luks.create(disk, "passphrase", secret)
    serving = serve(str(disk), "--secret", str(secret), "--no-tls")
    data = os.urandom(MiB)
    with urllib.request.urlopen(urllib.request.Request(serving.url, data, method="PUT")):
        pass
    with urllib.request.urlopen(serving.url) as response:
        assert response.read() == data
    assert serving.stop() == 0
    assert data[:4096] not in disk.read_bytes()
    serving = serve(str(disk))
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert "add --secret FILE" in serving.output.read_text()
    secret.write_text("passphrase\n")
    serving = serve(str(disk), "--secret", str(secret))
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert "a line break at its end, too" in serving.output.read_text()


@pytest.mark.parametrize(
    "image, words",
    [
        ("rbd:vms/disk:log_file=/x", "expected rbd:POOL"),
        ("json:{}", "a JSON object after json:"),
        ("nbd:unix:/nowhere", "No such file"),
        ("https://user:secret@localhost/x", "without user and password"),
    ],
)
def test_bad_place(serve, image, words):
    serving = serve(image)
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert words in serving.output.read_text()
    assert "secret" not in serving.output.read_text()


def test_missing_secret(serve, tmp_path):
    serving = serve("--demo", str(tmp_path / "disk"), "--secret", "/nowhere")
    assert serving.process.wait(daemon.DEADLINE) == 1
    assert "a file that you may read, with a passphrase" in serving.output.read_text()
