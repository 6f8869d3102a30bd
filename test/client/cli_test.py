"""The program: arguments, output, exit statuses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import ssl
import struct
import subprocess
import sys
import termios

import pytest
from fakes import ports
from fakes.origin import TICKET_ID, DiskOrigin, ScriptedOrigin
from fakes.waiting import DEADLINE
from real import certificates
from tools import source

from ovirt_imageio.client import cli
from ovirt_imageio.net.pinned import format_fingerprint
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

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
    # There is no terminal.
    assert shown == ("", "")


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
    assert cli.main(["extents", image]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["start", "length", "content"],
        ["0", str(len(DATA)), "data"],
    ]


def test_quiet(image, capsys):
    with DiskOrigin(bytes(len(DATA))) as origin:
        assert cli.main(["upload", "-q", "-f", "raw", image, origin.url]) == 0
    assert capsys.readouterr() == ("", "")


def test_bar_is_for_terminals(image):
    with DiskOrigin(bytes(len(DATA))) as origin:
        status, out, shown = run_on_a_terminal(["upload", "-f", "raw", image, origin.url], columns=30)
    assert (status, out) == (0, "")
    drawn = [line for line in shown.replace("\r", "\n").splitlines() if line]
    assert all(len(line) < 30 for line in drawn[:-1])
    assert drawn[-2].startswith("100% 1.00 MiB")
    assert drawn[-1] == "full, by HTTP over TCP, not encrypted"


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
            assert out.count("The disk is broken") == len(form) // 2


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
        assert cli.main(["extents", "--dirty", origin.url]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith(f" {len(DATA)}  dirty, data")
        origin.extents["zero"] = []
        assert cli.main(["extents", origin.url]) == 0
        assert capsys.readouterr().out == ""
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
        ["upload", "--bandwidth", "fast", "a", "b"],
        ["upload", "--member", "x", "-", "b"],
        ["upload", "--resume", "-", "b"],
        ["upload", "--format", "qcow2", "-", "b"],
        ["download", "--verify", "a", "-"],
        ["download", "--format", "qcow2", "a", "-"],
        ["download", "--quiet", "--output", "json", "a", "b"],
        ["extents", "--cafile", "ca.pem", "--fingerprint", "ab", "a"],
        ["extents", "--insecure", "--fingerprint", "ab", "a"],
        ["download", "--output", "xml", "a", "b"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: ovirt-img" in capsys.readouterr().err


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


def run_program(arguments, *, data=b"", environ=None, stdout=subprocess.PIPE):
    """Run the program with pipes; return its status, its output, and its errors."""
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environ or {})}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", *arguments]
    done = subprocess.run(
        command, input=data, env=settings, stdout=stdout, stderr=subprocess.PIPE, timeout=2 * DEADLINE, check=False
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def test_standard_input():
    with DiskOrigin(b"x" * len(DATA)) as origin:
        assert run_program(["upload", "-q", "-", origin.url], data=DATA[:1000]) == (0, b"", "")
        assert origin.data == DATA[:1000] + bytes(len(DATA) - 1000)


def test_standard_output():
    with DiskOrigin(DATA) as origin:
        assert run_program(["download", "-q", origin.url, "-"]) == (0, DATA, "")
        status, data, said = run_program(["download", "-o", "json", origin.url, "-"])
    assert (status, data) == (0, DATA)
    assert json.loads(said.splitlines()[-1])["transferred"] == len(DATA)


def test_no_disk_for_the_terminal():
    user, program = pty.openpty()
    status, _, said = run_program(["download", "http://h/images/x", "-"], stdout=program)
    os.close(program)
    os.close(user)
    assert status == 2
    assert "pipe it to a program" in said


@pytest.mark.parametrize(("command", "expected"), [(["extents"], 0), (["checksum"], 0), (["download", "-"], 141)])
def test_reader_left(command, expected):
    read, write = os.pipe()
    os.close(read)
    with DiskOrigin(DATA) as origin:
        arguments = [command[0], *(["-q"] if len(command) > 1 else []), origin.url, *command[1:]]
        status, _, said = run_program(arguments, stdout=write)
    os.close(write)
    assert (status, said) == (expected, "")


@pytest.mark.parametrize("command", [["extents"], ["checksum"], ["download", "-"]])
def test_full_disk_behind_standard_output(command):
    with DiskOrigin(DATA) as origin, open("/dev/full", "wb") as full:
        arguments = [command[0], *(["-q"] if len(command) > 1 else []), origin.url, *command[1:]]
        status, _, said = run_program(arguments, stdout=full)
    assert status == 1
    assert said == "ovirt-img: Cannot write to standard output: No space left on device\n"


def test_reader_of_the_progress_left(image):
    read, write = os.pipe()
    os.close(read)
    with DiskOrigin(bytes(len(DATA))) as origin:
        status, _, said = run_program(["upload", "-f", "raw", "-o", "json", image, origin.url], stdout=write)
        assert origin.data == DATA
    os.close(write)
    assert (status, said) == (0, "")


@pytest.fixture
def pinned():
    """Yield a server whose certificate no authority signed, its certificate, and the fingerprint of that."""
    made = certificates.self_signed("cli")
    with open(made.cert_file) as file:
        fingerprint = format_fingerprint(ssl.PEM_cert_to_DER_cert(file.read()))
    with DiskOrigin(DATA, context=ServerContext(made.cert_file, made.key_file)()) as server:
        yield server, made.cert_file, fingerprint


def test_certificate_of_a_stranger(pinned, capsys):
    server, _, _ = pinned
    assert cli.main(["checksum", server.url]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert f"the certificate of 127.0.0.1:{server.port} cannot be trusted: self-signed certificate" in said
    assert "--cafile FILE" in said
    assert "--fingerprint SHA256" in said
    assert TICKET_ID not in said


def test_whom_to_trust(pinned, monkeypatch, capsys):
    server, cert_file, fingerprint = pinned
    assert cli.main(["checksum", "--fingerprint", fingerprint, server.url]) == 0
    monkeypatch.setenv("OVIRT_IMG_CA", cert_file)
    assert cli.main(["checksum", server.url]) == 0
    # It is stricter than the authority, and what is typed is stronger than both.
    monkeypatch.setenv("OVIRT_IMG_FINGERPRINT", "00" * 32)
    assert cli.main(["checksum", server.url]) == 1
    assert fingerprint in capsys.readouterr().err
    assert cli.main(["checksum", "--cafile", cert_file, server.url]) == 0
    monkeypatch.setenv("OVIRT_IMG_FINGERPRINT", fingerprint)
    monkeypatch.delenv("OVIRT_IMG_CA")
    assert cli.main(["checksum", server.url]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["info", "https://host/images/secret"],
        ["measure", "https://host/images/secret"],
        ["checksum", "https:///images/secret"],
        ["extents", "https://host:x/images/secret"],
        ["upload", "https://host/images/secret", "disk.qcow2"],
        ["download", "https://host/images/secret", "https://host/images/secret"],
    ],
)
def test_ticket_is_never_shown(command, capsys):
    assert cli.main(command) == 1
    shown = capsys.readouterr()
    assert "secret" not in shown.out + shown.err


def test_commands_that_take_a_url_are_named(capsys):
    assert cli.main(["info", "https://host/images/secret"]) == 1
    assert "only extents, checksum and verify look at servers\n" in capsys.readouterr().err
    for command in ("extents", "checksum", "verify"):
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"])
        assert (caught.value.code, "URL" in capsys.readouterr().out) == (0, True)


def test_nobody_listens(capsys):
    with ports.reserved() as port:
        assert cli.main(["checksum", f"http://127.0.0.1:{port}/images/x"]) == 1
    said = f"ovirt-img: Cannot open the image: 127.0.0.1:{port} cannot be reached: Connection refused\n"
    assert capsys.readouterr().err == said


def test_text_of_a_server_is_plain(capsys):
    with DiskOrigin(DATA) as origin:
        origin.refusals[("OPTIONS", "")] = (403, "\x1b]0;title\x07\x1b[2Jno\u202e", {})
        assert cli.main(["extents", origin.url]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ovirt-img: The server answered 403: ")
    assert said.rstrip("\n").isprintable()


@pytest.mark.storage
def test_locked_image(tmp_path, capsys):
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", 1024**2)
    with QemuNbd(str(path), "qcow2"), DiskOrigin(bytes(1024**2)) as origin:
        assert cli.main(["upload", "-q", str(path), origin.url]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.endswith(f"another program uses {path}, such as a virtual machine or another transfer; end that first")


def test_mistyped_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["donwload", "a", "b"])
    assert capsys.readouterr().err.endswith("did you mean 'download'?\n")


@pytest.mark.parametrize("program", ["ovirt-img", "ovirt-imageioctl"])
def test_interrupted_before_it_began(program, tmp_path):
    """While modules are loaded nothing could tell that in a line."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # What is imported first waits until the test writes.
    (tmp_path / "argparse.py").write_text(f"open({str(fifo)!r}).read()")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source.ROOT)])}
    command = [sys.executable, source.ROOT / "daemon" / program]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as process, open(fifo, "w"):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert (process.returncode, said) == (-signal.SIGINT, b"")


def test_log_file(image, tmp_path, capsys):
    path = tmp_path / "log"
    status, out, said = run_program(["info", "--log-level", "debug", "--log-file", str(path), f"{image}.missing"])
    assert (status, out, said.count("\n")) == (1, b"", 1)
    assert "Traceback" in path.read_text()
    assert cli.main(["info", "--log-file", str(tmp_path / "missing" / "log"), image]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said == f"ovirt-img: Cannot use {tmp_path}/missing/log: No such file or directory"
