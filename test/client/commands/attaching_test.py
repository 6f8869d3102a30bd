"""nbd: it runs a program, or tells the URI until it is stopped."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys

import pytest
from fakes.origin import DiskOrigin
from fakes.waiting import DEADLINE

from ovirt_imageio.client import cli

DATA = bytes(range(256)) * 256


def test_runs_a_program(tmp_path, capfd):
    """The program has the URI, its options are its own, and its status is ours."""
    with DiskOrigin(DATA) as origin:
        script = "import sys; print(sys.argv[1:]); sys.exit(3)"
        command = ["nbd", origin.url, "--read-only", "--", sys.executable, "-c", script, "--quiet", "<{}>"]
        assert cli.main(command) == 3
    option, uri = ast.literal_eval(capfd.readouterr().out)
    assert option == "--quiet"
    assert uri.startswith("<nbd+unix:///?socket=") and uri.endswith(">")


def test_prints_the_uri_until_it_is_stopped():
    with DiskOrigin(DATA) as origin:
        command = [sys.executable, "-m", "ovirt_imageio.client.cli", "nbd", "--listen", "127.0.0.1:0", origin.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().startswith("nbd://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
            assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "program,status,text",
    [
        (["no-such-program", "{}"], 127, "Cannot run no-such-program: No such file"),
        (["/", "{}"], 126, "Cannot run /: "),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", "{}"], 128 + 9, ""),
    ],
)
def test_cannot_run_a_program(capfd, program, status, text):
    with DiskOrigin(DATA) as origin:
        assert cli.main(["nbd", origin.url, "--", *program]) == status
    assert text in capfd.readouterr().err


def test_at_a_place_that_the_command_knows(tmp_path):
    path = tmp_path / "sock"
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
    with DiskOrigin(DATA) as origin:
        assert cli.main(["nbd", "--socket", str(path), origin.url, "--", sys.executable, "-c", program]) == 0


@pytest.mark.parametrize(
    "arguments,text",
    [
        (["--", "ls"], "COMMAND needs {}"),
        (["--listen", "here"], "is not HOST:PORT"),
        (["--listen", "localhost:99999"], "is not HOST:PORT"),
        (["--listen", "localhost:1", "--socket", "x"], "not allowed with"),
    ],
)
def test_with_wrong_arguments(capsys, arguments, text):
    with pytest.raises(SystemExit) as end:
        cli.main(["nbd", "https://localhost:1/images/x", *arguments])
    assert end.value.code == 2
    assert text in capsys.readouterr().err
