"""What people read can be pasted, what scripts read can be parsed."""

import json
import os
import shlex
import sys

import pytest

from ovirt_imageio.service.serve import greeting
from ovirt_imageio.service.serve.greeting import Share, Tools, Trust
from ovirt_imageio.service.serve.images import ServedImage

MiB = 1024**2

IMAGE = ServedImage("/images/my disk.qcow2", "qcow2", MiB)
URL = "https://localhost:1/images/x"
TRUST = Trust("AB:CD", "sha256//KEY=", "/state/cert.pem")
TOOLS = Tools(True, "ovirt-img")


OFFERS = (Share(IMAGE, [URL]),)


def greet(offers=OFFERS, trust=TRUST, *, is_public=False, read_only=False, tools=TOOLS):
    return greeting.greet(list(offers), trust, is_public=is_public, read_only=read_only, tools=tools)


def commands(text):
    return [line.strip() for line in text.splitlines() if line.startswith(("  curl", "  ovirt-img"))]


def test_this_machine():
    text = greet()
    assert "Serving /images/my disk.qcow2 (qcow2, 1.00 MiB)" in text
    assert "transfer URL:  https://localhost:1/images/x\n" in text
    assert "CA file:       /state/cert.pem" in text
    assert "fingerprint:   AB:CD (SHA-256)" in text
    assert "Only this machine can reach it" in text
    assert commands(text) == [
        "curl --fail --cacert /state/cert.pem -o 'my disk-copy.raw' https://localhost:1/images/x",
        "ovirt-img download --cafile /state/cert.pem https://localhost:1/images/x 'my disk-copy.qcow2'",
        "curl --fail --cacert /state/cert.pem -T 'my disk-copy.raw' https://localhost:1/images/x",
        "ovirt-img upload --cafile /state/cert.pem 'my disk-copy.qcow2' https://localhost:1/images/x",
    ]


def test_other_machines():
    """They have no CA file, and more than one way to get here."""
    urls = ["https://192.0.2.1:1/images/x", "https://[2001:db8::1]:1/images/x"]
    text = greet([Share(IMAGE, urls)], is_public=True)
    assert "also at:       https://[2001:db8::1]:1/images/x" in text
    assert "Only this machine" not in text
    assert commands(text)[:2] == [
        "curl --fail --insecure --pinnedpubkey sha256//KEY= -o 'my disk-copy.raw' https://192.0.2.1:1/images/x",
        "ovirt-img download --fingerprint AB:CD https://192.0.2.1:1/images/x 'my disk-copy.qcow2'",
    ]


def test_certificate_of_the_user():
    """Who knows which authority signed it? The key is enough."""
    text = greet(trust=TRUST._replace(ca_file=None))
    assert "CA file" not in text
    assert all("--pinnedpubkey" in line or "--fingerprint" in line for line in commands(text))


def test_downloads_without_tls():
    text = greet(trust=None, read_only=True)
    assert commands(text) == [
        "curl --fail -o 'my disk-copy.raw' https://localhost:1/images/x",
        "ovirt-img download https://localhost:1/images/x 'my disk-copy.qcow2'",
    ]


def test_what_is_not_installed():
    assert all(line.startswith("ovirt-img") for line in commands(greet(tools=Tools(False, "ovirt-img"))))
    assert all(line.startswith("curl") for line in commands(greet(tools=Tools(True, None))))
    text = greet(tools=Tools(False, None))
    assert commands(text) == []
    assert "Download" not in text


def test_file():
    text = greet([Share(IMAGE._replace(format="file"), [URL])])
    assert commands(text) == [
        "curl --fail --cacert /state/cert.pem -o 'my disk-copy.qcow2' https://localhost:1/images/x"
    ]
    assert "Download" not in greet([Share(IMAGE._replace(format="file"), [URL])], tools=Tools(False, "ovirt-img"))


def test_name_that_looks_like_an_option():
    text = greet([Share(IMAGE._replace(path="/images/-f.qcow2"), [URL])])
    assert [line.count(" ./-f-copy.") for line in commands(text)] == [1, 1, 1, 1]


def test_several():
    other = ServedImage("/images/other.raw", "raw", MiB)
    text = greet([Share(IMAGE, [URL]), Share(other, ["https://localhost:1/images/y"])])
    assert "Serving 2 images of /images" in text
    assert (
        "other.raw (raw, 1.00 MiB)\n    https://localhost:1/view#y (in a browser)\n    https://localhost:1/images/y"
        in text
    )


def test_record():
    text = greeting.record([Share(IMAGE, [URL, "https://[::1]:1/images/x"])], TRUST)
    assert "\n" not in text
    assert json.loads(text) == {
        "pid": os.getpid(),
        "ca_file": "/state/cert.pem",
        "fingerprint": "AB:CD",
        "public_key_pin": "sha256//KEY=",
        "images": [
            {
                "name": "my disk.qcow2",
                "path": "/images/my disk.qcow2",
                "format": "qcow2",
                "size": MiB,
                "page": "https://localhost:1/view#x",
                "url": URL,
                "urls": [URL, "https://[::1]:1/images/x"],
            }
        ],
    }


def test_record_without_tls():
    found = json.loads(greeting.record([Share(IMAGE, [URL])], None))
    assert (found["fingerprint"], found["ca_file"]) == (None, None)


# --- Where ovirt-img is ---


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a folder" / "ovirt-img"
    path.parent.mkdir()
    path.touch(0o755)
    return path


def test_on_path(program, monkeypatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert greeting.find_ovirt_img() == "ovirt-img"


def test_beside_this_program(program, monkeypatch):
    """As in a virtual environment that is not active."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(program.parent / "ovirt-imageio")])
    assert greeting.find_ovirt_img() == shlex.quote(str(program))


def test_package_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["/nowhere/cli.py"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    assert greeting.find_ovirt_img() == "/nowhere/python3 -m ovirt_imageio.client.cli"


def test_curl_is_looked_for(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not Tools.installed(is_public=False).has_curl
    assert Tools.installed(is_public=True).has_curl
