"""The recording of the README: terminals, pictures, and the programs themselves."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from tools import recording
from tools.recording import OUTPUT, Screen, draw_row


@pytest.mark.parametrize(
    "text, lines",
    [
        ("a\r\nb", ["a", "b"]),
        ("abc\rx", ["xbc"]),
        ("abc\r\x1b[Kx", ["x"]),
        ("abc\x1b[2K\rx", ["x"]),
        ("12345678", ["12345", "678"]),
        ("12345\r\nx", ["12345", "x"]),
        ("a\r\nb\r\x1b[Ac", ["c", "b"]),
        ("\x1b[1;31mred\x1b[0m\x07", ["red"]),
        ("a\r\nb\r\nc\x1b[1A\r\x1b[J", ["a", "", ""]),
        ("\x1b7a\x1b[?25lb", ["ab"]),
    ],
)
def test_screen(text, lines):
    screen = Screen(columns=5)
    for character in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\x1b.|.", text, re.DOTALL):
        screen.feed(character)
    assert screen.lines == lines


def test_row():
    first, last = draw_row([(0.0, ""), (1.0, "$ a"), (2.0, ""), (3.0, "<b>")], "")
    assert (
        'visibility="hidden">$\u00a0a<set attributeName="visibility" to="visible" begin="1.00s" end="2.00s"/>' in first
    )
    # What stays is there for those that cannot animate.
    assert '&lt;b&gt;<set attributeName="visibility" to="hidden" begin="0s" end="3.00s"/>' in last


def texts(picture: str) -> list[str]:
    """Return what a picture shows at the end."""
    shown = [item for item in ElementTree.fromstring(picture).iter() if item.tag.endswith("}text")]
    return [(item.text or "").replace("\u00a0", " ") for item in shown if item.get("visibility") != "hidden"]


def test_picture_of_the_readme():
    lines = texts(OUTPUT.read_text())
    assert any("ovirt-imageio serve" in line for line in lines)
    assert any(re.search(r"100% +10.0 GiB", line) for line in lines)
    assert not re.search(r"/(tmp|root|home|work)\b", "\n".join(lines))


@pytest.mark.slow
@pytest.mark.storage
@pytest.mark.skipif(not all(map(shutil.which, ("qemu-img", "qemu-io", "openssl"))), reason="needs qemu and openssl")
def test_recording(tmp_path):
    path = tmp_path / "picture.svg"
    assert recording.main([str(path), "--size", "16", "--pace", "0"]) == 0
    lines = texts(path.read_text())
    assert "$ ovirt-imageio serve fedora.qcow2 --read-only" in lines
    assert any("download completed" in line for line in lines)
