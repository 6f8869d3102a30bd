"""What serve makes of its arguments; that it serves is shown in test/integration/serve_test.py."""

import argparse
import dataclasses
import os
import re
import socket

import pytest
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.auth import ticket as tickets
from ovirt_imageio.config import Config, check
from ovirt_imageio.httpd.listener import ListenError
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd
from ovirt_imageio.service import cli
from ovirt_imageio.service.serve import command, reach
from ovirt_imageio.service.serve.images import ServedImage, Wanted
from ovirt_imageio.service.serve.progress import Traffic

MiB = 1024**2

HERE = reach.Reach(["localhost"], ["localhost", "127.0.0.1"], False)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Keep the certificates of this user out of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def options(*arguments) -> argparse.Namespace:
    return cli.parse(["serve", "disk.qcow2", *arguments])


def test_wanted():
    assert command.wanted(options()) == Wanted("disk.qcow2")
    everything = options("--format", "raw", "--size", "1m", "--demo", "--read-only", "--file")
    assert command.wanted(everything) == Wanted("disk.qcow2", "raw", MiB, True, True, True)


@pytest.mark.storage
def test_locked_image(tmp_path):
    path = str(tmp_path / "disk.qcow2")
    img.create(path, "qcow2", MiB)
    message = rf"{path}: .*lock.*; stop the virtual machine or program that uses it"
    with QemuNbd(path, "qcow2"), pytest.raises(errors.BackendUnavailable, match=message):
        command.start(QemuNbd(path, "qcow2"), path)


# --- The configuration ---


def test_configuration():
    config = command.configure(options(), HERE)
    check(config)
    assert (config.remote.host, config.remote.port) == ("localhost", 54322)
    assert config.tls.enable
    assert os.path.exists(config.tls.key_file)
    assert config.local == dataclasses.replace(Config().local, socket="")
    assert not config.control.enable


def test_certificate_is_made_again_when_the_names_change():
    first = command.configure(options(), HERE)
    assert command.configure(options(), HERE) == first
    moved = HERE._replace(names=[*HERE.names, "192.0.2.9"])
    assert command.configure(options(), moved).tls.cert_file != first.tls.cert_file


def test_own_certificate():
    made = certificates.certificate()
    config = command.configure(options("--cert", made.cert_file, "--key", made.key_file), HERE)
    assert (config.tls.cert_file, config.tls.key_file) == (made.cert_file, made.key_file)
    # Who made it is not known: clients compare it alone.
    known = command.trust(options("--cert", made.cert_file, "--key", made.key_file), config)
    assert known.ca_file is None


def test_key_in_the_same_file():
    config = command.configure(options("--cert", "both.pem"), HERE)
    assert (config.tls.cert_file, config.tls.key_file) == ("both.pem", "both.pem")


def test_without_tls():
    config = command.configure(options("--no-tls", "--listen", "0.0.0.0:8080"), HERE)
    assert not config.tls.enable
    assert (config.remote.host, config.remote.port) == ("0.0.0.0", 8080)
    assert command.trust(options("--no-tls"), config) is None


def test_host_without_port():
    config = command.configure(options("--listen", "[::]"), HERE)
    assert (config.remote.host, config.remote.port) == ("::", 54322)


def test_usual_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        chosen = options("--no-tls", "--listen", f"127.0.0.1:{other.getsockname()[1]}")
        config = command.configure(chosen, HERE)
        listeners = command.bind(options("--no-tls"), config, Traffic())
        assert listeners.remote.port != config.remote.port
        listeners.stop()
        with pytest.raises(ListenError, match="in use"):
            command.bind(chosen, config, Traffic())


def test_address_of_another_machine():
    """No port helps: that is not what is complained about."""
    elsewhere = options("--no-tls", "--listen", "192.0.2.1")
    with pytest.raises(ListenError, match=r"Cannot listen on 192\.0\.2\.1:54322: cannot assign"):
        command.bind(elsewhere, command.configure(elsewhere, HERE), Traffic())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--cert", "/nowhere"], "Invalid --cert '/nowhere': expected a file that we can read: no such file"),
        (["--cert", "{text}"], "Invalid --cert '{text}': expected a PEM certificate"),
        (
            ["--cert", "{cert}"],
            "Invalid --cert '{cert}': expected a PEM private key in it, too; or name its file with --key",
        ),
        (["--cert", "{cert}", "--key", "{text}"], "Invalid --key '{text}': expected a PEM private key"),
        (
            ["--cert", "{cert}", "--key", "/nowhere"],
            "Invalid --key '/nowhere': expected a file that we can read: no such",
        ),
    ],
)
def test_wrong_certificate(tmp_path, arguments, message):
    """The user named an argument, and knows no section of a configuration."""
    files = {"cert": certificates.certificate().cert_file, "text": str(tmp_path / "text")}
    (tmp_path / "text").write_text("no certificate")
    wrong = options("--listen", "127.0.0.1:0", *(word.format(**files) for word in arguments))
    with pytest.raises(errors.InvalidValue, match=f"^{re.escape(message.format(**files))}"):
        command.bind(wrong, command.configure(wrong, HERE), Traffic())


# --- The ticket ---


IMAGE = ServedImage("/images/my disk.qcow2", "qcow2", MiB)


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


def test_long_name():
    image = IMAGE._replace(path=f"/images/{'x' * 255}")
    assert tickets.parse(command.make_ticket(options(), image, "nbd:unix:/sock")).transfer_id.startswith("serve/xxx")


def test_chosen_ticket():
    ticket = command.make_ticket(options("--read-only", "--ticket-id", "me"), IMAGE, "nbd:unix:/sock")
    assert (ticket["uuid"], ticket["ops"]) == ("me", ["read"])


def test_ticket_of_a_file():
    """A write into the middle of a qcow2 file would only break it."""
    ticket = command.make_ticket(options(), IMAGE._replace(format="file"), "file:///x")
    assert (ticket["ops"], ticket["filename"]) == (["read"], "my disk.qcow2")


def test_transfer_urls():
    where = HERE._replace(hosts=["localhost", "::1"])
    config = command.configure(options(), HERE)
    assert command.transfer_urls(config, where, 1, "a/b") == [
        "https://localhost:1/images/a%2Fb",
        "https://[::1]:1/images/a%2Fb",
    ]
    plain = command.configure(options("--no-tls"), HERE)
    assert command.transfer_urls(plain, HERE, 1, "x") == ["http://localhost:1/images/x"]
