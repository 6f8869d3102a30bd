"""The program: arguments, output, exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios

import pytest
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import DEADLINE

from ovirt_imageio.client import cli

DATA = bytes(range(256)) * 4096


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(DATA)
    return str(path)


def test_upload(image, capsys):
    with DiskOrigin(bytes(len(DATA))) as origin:
        assert cli.main(["upload", "-f", "raw", image, origin.url]) == 0
        assert origin.data == DATA
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("uploading image\n")
    assert shown.err.splitlines()[-1].startswith("upload completed: 1.00 MiB in ")
    assert "\r" not in shown.err


@pytest.mark.storage
def test_download(tmp_path, capsys):
    path = tmp_path / "copy.raw"
    with DiskOrigin(DATA) as origin:
        assert cli.main(["download", "-f", "raw", "-o", "json", origin.url, str(path)]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["transferred"] == len(DATA)
        assert cli.main(["download", "-f", "raw", "--keep", origin.url, str(path)]) == 1
    assert path.read_bytes() == DATA
    assert capsys.readouterr().err.splitlines()[-1] == f"ovirt-img: {path} exists already"


@pytest.mark.storage
def test_looking(image, capsys):
    assert cli.main(["info", image]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "raw"
    assert cli.main(["measure", "-f", "raw", image]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == len(DATA)
    assert cli.main(["checksum", "--block-size", "1m", image]) == 0
    assert json.loads(capsys.readouterr().out)["block_size"] == 1024**2
    assert cli.main(["map", image]) == 0
    assert json.loads(capsys.readouterr().out) == [{"start": 0, "length": len(DATA), "zero": False, "hole": False}]


def test_quiet(image, capsys):
    with DiskOrigin(bytes(len(DATA))) as origin:
        assert cli.main(["upload", "-q", "-f", "raw", image, origin.url]) == 0
    assert capsys.readouterr() == ("", "")


def test_bar_is_for_terminals(image):
    with DiskOrigin(bytes(len(DATA))) as origin:
        status, out, shown = run_on_a_terminal(["upload", "-f", "raw", image, origin.url], columns=30)
    assert (status, out) == (0, "")
    drawn = [line for line in shown.replace("\r", "\n").splitlines() if line]
    assert all(len(line) < 30 for line in drawn)
    assert drawn[-1].startswith("100% 1.00 MiB")


def test_failure_is_told_once(image, tmp_path):
    with DiskOrigin(DATA) as origin:
        origin.refusals[("PUT", "")] = (500, "The disk is broken", {})
        origin.refusals[("PATCH", "")] = (500, "The disk is broken", {})
        command = ["upload", "-f", "raw", image, origin.url]
        for form in ([], ["-o", "json"]):
            status, out, shown = run_on_a_terminal([*command, *form], columns=80)
            assert status == 1
            assert "command failed" not in shown
            assert (out + shown).count("command failed") == len(form) // 2
            assert shown.count("The disk is broken") == 1


def run_on_a_terminal(arguments, columns):
    """Run the program with a terminal for standard error; return its status, its output, and what the terminal got."""
    user, program = pty.openpty()
    fcntl.ioctl(program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", *arguments]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=program, text=True) as process:
        os.close(program)
        shown = b""
        # The system ends with an error what others end with nothing: the other side of the terminal is closed.
        with contextlib.suppress(OSError):
            while piece := os.read(user, 65536):
                shown += piece
        out, _ = process.communicate(timeout=DEADLINE)
    os.close(user)
    return process.returncode, out, shown.decode()


def test_looking_at_a_server(capsys):
    with DiskOrigin(DATA) as origin:
        origin.extents["dirty"] = [{"start": 0, "length": len(DATA), "dirty": True, "zero": False}]
        assert cli.main(["map", "--dirty", origin.url]) == 0
        assert json.loads(capsys.readouterr().out)[0]["dirty"] is True
        origin.extents["zero"] = []
        assert cli.main(["map", origin.url]) == 0
        assert json.loads(capsys.readouterr().out) == []
        assert cli.main(["checksum", origin.url]) == 0
        assert json.loads(capsys.readouterr().out)["checksum"] == "abc123"


def test_refusal(image, capsys):
    with DiskOrigin(DATA) as origin:
        origin.refusals[("OPTIONS", "")] = (403, "No such ticket", {})
        assert cli.main(["upload", "-f", "raw", image, origin.url]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "ovirt-img: The server answered 403: No such ticket"


def test_no_command(capsys):
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["upload", "one"],
        ["upload", "--max-workers", "9", "a", "b"],
        ["upload", "--max-workers", "x", "a", "b"],
        ["upload", "--bandwidth", "1.5m", "a", "b"],
        ["download", "--output", "xml", "a", "b"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: ovirt-img" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("512", 512), ("64k", 65536), ("4M", 4 << 20), ("1t", 1 << 40)])
def test_size(text, value):
    assert cli.size(text) == value


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5m", "1kb", "1 k"])
def test_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError):
        cli.size(text)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(image, number, status):
    def stall(wire) -> None:
        wire.read_head()
        wire.stall()

    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with ScriptedOrigin(stall) as origin:
        command = [sys.executable, "-m", "ovirt_imageio.client.cli", "upload", "-f", "raw", image, origin.url]
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert origin.stalled.wait(DEADLINE)
            process.send_signal(number)
            _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    assert b"Traceback" not in said
