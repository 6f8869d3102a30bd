"""What serve makes of its arguments; that it serves is shown in test/integration/serve_test.py."""

import argparse
import dataclasses
import logging
import os
import socket

import pytest
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.config import Config, check
from ovirt_imageio.httpd.listener import ListenError
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import Server as QemuNbd
from ovirt_imageio.service import cli
from ovirt_imageio.service.serve import command
from ovirt_imageio.service.serve.progress import Traffic

needs_qemu = pytest.mark.storage

MiB = 1024**2


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Keep the certificates of this user out of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def options(*arguments) -> argparse.Namespace:
    return cli.parse(["serve", "disk.qcow2", *arguments])


# --- The image ---


@needs_qemu
@pytest.mark.parametrize(
    "name, format, expected",
    [
        ("disk.qcow2", None, "qcow2"),
        ("disk.QCOW2", None, "qcow2"),
        ("disk.img", None, "raw"),
        ("disk", None, "raw"),
        ("disk.img", "qcow2", "qcow2"),
        ("disk.vmdk", None, "vmdk"),
    ],
)
def test_create(tmp_path, name, format, expected):
    path = str(tmp_path / name)
    assert command.prepare(path, format, MiB, False) == command.Image(path, expected, MiB)


@needs_qemu
def test_existing_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    img.create("disk", "qcow2", MiB)
    assert command.prepare("disk", None, None, True) == command.Image(str(tmp_path / "disk"), "qcow2", MiB)


@needs_qemu
def test_size_of_an_existing_image(tmp_path, caplog):
    path = str(tmp_path / "disk.qcow2")
    command.prepare(path, None, MiB, False)
    with caplog.at_level(logging.WARNING):
        command.prepare(path, None, MiB, False)
        assert caplog.text == ""
        assert command.prepare(path, None, 2 * MiB, False).size == MiB
    assert "has 1.00 MiB: --size is not used" in caplog.text


@needs_qemu
def test_unknown_format(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="Unknown file format 'zip'"):
        command.prepare(str(tmp_path / "disk"), "zip", MiB, False)


def test_missing_image(tmp_path):
    with pytest.raises(errors.InvalidValue, match="add --size 10g, and it will be created"):
        command.prepare(str(tmp_path / "disk"), None, None, False)


def test_folder(tmp_path):
    with pytest.raises(errors.InvalidValue, match="but it is a folder"):
        command.prepare(str(tmp_path), None, None, False)


@pytest.mark.parametrize(
    "allowed, read_only, hint",
    [
        (os.R_OK, False, "a file that you may write; add --read-only"),
        (0, True, "a file that you may read; change its permissions"),
        (0, False, "a file that you may read; change its permissions"),
    ],
)
def test_no_permission(tmp_path, monkeypatch, allowed, read_only, hint):
    path = tmp_path / "disk"
    path.touch()
    # Root may do everything.
    monkeypatch.setattr(os, "access", lambda path, mode: mode & allowed == mode)
    with pytest.raises(errors.InvalidValue, match=hint):
        command.prepare(str(path), None, None, read_only)


@needs_qemu
def test_locked_image(tmp_path):
    image = command.prepare(str(tmp_path / "disk.qcow2"), None, MiB, False)
    message = r"lock.*; stop the virtual machine or program that uses it"
    with QemuNbd(image.path, image.format), pytest.raises(errors.BackendUnavailable, match=message):
        command.start(QemuNbd(image.path, image.format))


# --- The configuration ---


def test_configuration():
    config = command.configure(options())
    check(config)
    assert (config.remote.host, config.remote.port) == ("localhost", 54322)
    assert config.tls.enable
    assert os.path.exists(config.tls.key_file)
    assert config.local == dataclasses.replace(Config().local, socket="")
    assert not config.control.enable


def test_own_certificate():
    made = certificates.certificate()
    config = command.configure(options("--cert", made.cert_file, "--key", made.key_file))
    assert (config.tls.cert_file, config.tls.key_file) == (made.cert_file, made.key_file)


def test_key_in_the_same_file():
    config = command.configure(options("--cert", "both.pem"))
    assert (config.tls.cert_file, config.tls.key_file) == ("both.pem", "both.pem")


def test_without_tls():
    config = command.configure(options("--no-tls", "--listen", "0.0.0.0:8080"))
    assert not config.tls.enable
    assert (config.remote.host, config.remote.port) == ("0.0.0.0", 8080)


@pytest.mark.parametrize("host", ["::", "0.0.0.0", ""])
def test_names_of_a_wildcard(host):
    assert command.server_names(host)[0] == socket.gethostname()


def test_names():
    names = command.server_names("192.0.2.1")
    assert names[0] == "192.0.2.1"
    assert {"localhost", "127.0.0.1", "::1"} <= set(names)
    assert len(names) == len(set(names))


def test_usual_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = command.configure(options("--no-tls", "--listen", f"127.0.0.1:{other.getsockname()[1]}"))
        listeners = command.bind(config, Traffic(), is_port_chosen=False)
        assert listeners.remote.port != config.remote.port
        listeners.stop()
        with pytest.raises(ListenError, match="in use"):
            command.bind(config, Traffic(), is_port_chosen=True)


# --- The ticket ---


IMAGE = command.Image("/images/my disk.qcow2", "qcow2", MiB)


def test_ticket():
    ticket = command.make_ticket(options("--timeout", "7"), IMAGE, "nbd:unix:/sock")
    assert len(ticket.pop("uuid")) == 36
    assert ticket == {
        "transfer_id": "serve/my disk.qcow2",
        "url": "nbd:unix:/sock",
        "size": MiB,
        "ops": ["read", "write"],
        "timeout": 7,
        "sparse": True,
        "filename": "my disk.raw",
    }


def test_chosen_ticket():
    ticket = command.make_ticket(options("--read-only", "--ticket-id", "me"), IMAGE, "nbd:unix:/sock")
    assert (ticket["uuid"], ticket["ops"]) == ("me", ["read"])


@pytest.mark.parametrize(
    "host, url",
    [("localhost", "https://localhost:1/images/a%2Fb"), ("::1", "https://[::1]:1/images/a%2Fb")],
)
def test_transfer_url(host, url):
    config = dataclasses.replace(Config(), remote=dataclasses.replace(Config().remote, host=host))
    assert command.transfer_url(config, 1, "a/b") == url


# --- What the user reads ---


def test_greeting():
    config = command.configure(options())
    text = command.greet(IMAGE, "https://localhost:1/images/x", config, read_only=False)
    ca = config.tls.cert_file
    assert "Serving /images/my disk.qcow2 (qcow2, 1.00 MiB)" in text
    assert f"CA file:       {ca}" in text
    assert "(SHA-256)" in text
    assert f"\n  curl --fail --cacert {ca} -o 'my disk-copy.raw' https://localhost:1/images/x\n" in text
    assert f"\n  curl --fail --cacert {ca} -T 'my disk-copy.raw' https://localhost:1/images/x\n" in text
    assert f"\n  ovirt-img download --cafile {ca} https://localhost:1/images/x 'my disk-copy.qcow2'\n" in text
    assert f"\n  ovirt-img upload --cafile {ca} 'my disk-copy.qcow2' https://localhost:1/images/x\n" in text


def test_greeting_for_downloads_without_tls():
    config = command.configure(options("--no-tls"))
    text = command.greet(IMAGE, "http://localhost:1/images/x", config, read_only=True)
    assert "-T" not in text
    assert "CA file" not in text
    assert "\n  curl --fail -o 'my disk-copy.raw' http://localhost:1/images/x\n" in text
    assert "\n  ovirt-img download http://localhost:1/images/x 'my disk-copy.qcow2'\n" in text
