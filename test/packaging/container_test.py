"""The image of `make container`, which runs these tests: as a user without rights, with a read-only root."""

from __future__ import annotations

import json
import os
import subprocess
import uuid

import pytest
from fakes.waiting import wait_until
from real import certificates
from tools import source

from ovirt_imageio import version

ARCHIVE = os.environ.get("IMAGEIO_CONTAINER", "")

pytestmark = [
    pytest.mark.storage,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not ARCHIVE, reason="`make container` runs these, when it has made the image"),
]

MiB = 1024**2

# Also where the limits of the test runner are low, and where a cgroup cannot be made.
OPTIONS = (
    "--read-only",
    "--network=none",
    "--cgroups=disabled",
    "--ulimit=nofile=4096:4096",
    "--ulimit=nproc=1000:1000",
)


class Podman:
    """Containers of the image, with a storage of their own."""

    def __init__(self, folder):
        # A path of a socket in it must not be long.
        self._command = ["podman", f"--root={folder}/root", f"--runroot={folder}/run", "--cgroup-manager=cgroupfs"]
        self.run("load", f"--input={ARCHIVE}")
        self.image = f"localhost/ovirt-imageio:{version.__version__}"

    def try_run(self, *arguments):
        return subprocess.run([*self._command, *map(str, arguments)], capture_output=True, text=True, timeout=200)

    def run(self, *arguments):
        done = self.try_run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    folder = tmp_path_factory.mktemp("podman")
    podman = Podman(folder)
    first = podman.try_run("run", "--rm", *OPTIONS, podman.image, "--version")
    if first.returncode in (125, 126) and "crun" in first.stderr:
        pytest.skip(f"no container can be run here: {first.stderr}")
    assert first.stdout == f"ovirt-imageio {version.__version__}\n", first.stderr
    yield podman
    podman.run("rmi", "--force", podman.image)


@pytest.fixture
def folder(tmp_path):
    """Folders for a container: a disk, a certificate, and a configuration."""
    for name in ("disks", "conf.d", "pki"):
        (tmp_path / name).mkdir()
    disk = tmp_path / "disks/disk.raw"
    disk.write_bytes(os.urandom(4 * MiB))
    disk.chmod(0o666)
    certificate = certificates.certificate()
    for name in ("cert_file", "key_file", "ca_file"):
        with open(getattr(certificate, name), "rb") as file:
            (tmp_path / "pki" / name).write_bytes(file.read())
        (tmp_path / "pki" / name).chmod(0o644)
    text = (source.ROOT / "data/container/50-container.conf").read_text()
    text += "[tls]\n" + "".join(f"{name} = /pki/{name}\n" for name in ("cert_file", "key_file", "ca_file"))
    (tmp_path / "conf.d/50-test.conf").write_text(text)
    return tmp_path


@pytest.fixture
def start(podman):
    """Return a function that starts a container, which is healthy then, and returns its name."""
    names = []

    def start(*arguments, volumes):
        name = f"imageio-{uuid.uuid4()}"
        names.append(name)
        options = [f"--volume={folder}:{path}" for folder, path in volumes.items()]
        podman.run("run", "--detach", f"--name={name}", *OPTIONS, *options, podman.image, *arguments)
        wait_until(
            lambda: podman.try_run("healthcheck", "run", name).returncode == 0, lambda: podman.try_run("logs", name)
        )
        return name

    yield start
    for name in names:
        podman.run("rm", "--force", "--time=1", name)


def test_image(podman):
    (image,) = json.loads(podman.run("inspect", podman.image))
    config = image["Config"]
    assert config["User"] == "54322:54322"
    assert set(config["ExposedPorts"]) == {"54322/tcp"}
    assert image["Healthcheck"]["Test"][0] == "CMD"


def test_daemon(podman, start, folder):
    disk = folder / "disks/disk.raw"
    data = disk.read_bytes()
    paths = {folder / "disks": "/disks", folder / "conf.d": "/etc/ovirt-imageio/conf.d", folder / "pki": "/pki"}
    name = start(volumes=paths)
    assert podman.run("exec", name, "id", "--user", "--name").strip() == "ovirtimg"
    assert "Read-only file system" in podman.try_run("exec", "--user=root", name, "touch", "/x").stderr
    # Its control socket is there for others.
    url = podman.run("exec", name, "ovirt-imageioctl", "add-ticket", "--file", "/disks/disk.raw").strip()
    ca = "--cafile=/pki/ca_file"
    url = "https://localhost" + url[url.index(":54322") :]
    podman.run("exec", name, "ovirt-img", "download", ca, "--format=raw", url, "/tmp/copy.raw")
    podman.run("exec", name, "cmp", "/tmp/copy.raw", "/disks/disk.raw")
    podman.run("exec", name, "sh", "-c", "tr '\\0-\\377' '\\1-\\377\\0' </tmp/copy.raw >/tmp/new.raw")
    podman.run("exec", name, "ovirt-img", "upload", ca, "--format=raw", "/tmp/new.raw", url)
    assert disk.read_bytes() == bytes((byte + 1) % 256 for byte in data)
    podman.run("stop", "--time=60", name)
    assert json.loads(podman.run("inspect", name))[0]["State"]["ExitCode"] == 0


def test_serve(podman, start, folder):
    ticket = str(uuid.uuid4())
    name = start(
        "serve",
        "/disks/disk.raw",
        "--listen=localhost:54322",
        "--ticket-id",
        ticket,
        volumes={folder / "disks": "/disks"},
    )
    url = f"https://localhost:54322/images/{ticket}"
    podman.run("exec", name, "ovirt-img", "download", "--insecure", "--format=raw", url, "/tmp/copy.raw")
    podman.run("exec", name, "cmp", "/tmp/copy.raw", "/disks/disk.raw")


def test_a_container_without_a_certificate_says_so(podman):
    done = podman.try_run("run", "--rm", *OPTIONS, podman.image)
    assert done.returncode == 78
    assert "key_file" in done.stderr


def test_a_service_that_does_not_answer_is_not_healthy(podman, folder):
    done = podman.try_run(
        "run", "--rm", *OPTIONS, "--entrypoint=/usr/bin/python3", podman.image, "/usr/lib/ovirt-imageio/health"
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
