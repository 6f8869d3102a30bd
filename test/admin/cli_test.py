"""ovirt-imageioctl: arguments, output, exit codes, and no tracebacks."""

import io
import json
import os
import subprocess
import sys

import pytest
from fakes.controlserver import ControlServer
from fakes.waiting import DEADLINE

from ovirt_imageio.admin import cli
from ovirt_imageio.version import __version__

TICKET = {
    "uuid": "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c",
    "size": 1024,
    "url": "file:///disk",
    "ops": ["read"],
    "timeout": 300,
    "transfer_id": "t-1",
}


@pytest.fixture
def server(tmp_path):
    with ControlServer(tmp_path) as server:
        yield server


@pytest.fixture
def conf_dir(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "test.conf").write_text(f"[control]\nsocket = {tmp_path}/control.sock\n")
    return str(tmp_path)


@pytest.fixture
def ctl(conf_dir, capsys):
    """Run a command; return its exit code, its output, and its errors."""

    def run(command, *arguments):
        try:
            code = cli.main([command, "-c", conf_dir, *arguments])
        except SystemExit as e:
            code = e.code
        output, error = capsys.readouterr()
        assert "Traceback" not in error
        return code, output, error

    return run


@pytest.fixture
def ticket_file(tmp_path):
    path = tmp_path / "ticket.json"
    path.write_text(json.dumps(TICKET))
    return str(path)


def test_life_of_a_ticket(server, ctl, ticket_file):
    assert ctl("add-ticket", ticket_file) == (0, "", "")
    code, output, _ = ctl("show-ticket", TICKET["uuid"])
    assert code == 0
    assert json.loads(output)["transfer_id"] == "t-1"
    assert output.startswith('{\n  "')
    assert ctl("mod-ticket", TICKET["uuid"], "--timeout", "900") == (0, "", "")
    assert ctl("mod-ticket", TICKET["uuid"], "--inactivity-timeout", "9") == (0, "", "")
    info = server.store.info(TICKET["uuid"])
    assert (info["remaining"] > 800, info["inactivity_timeout"]) == (True, 9)
    for _ in range(2):
        assert ctl("del-ticket", TICKET["uuid"]) == (0, "", "")
    assert server.store.list() == []


def test_ticket_from_standard_input(server, ctl, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(TICKET).encode())))
    assert ctl("add-ticket", "-") == (0, "", "")
    assert len(server.store.list()) == 1


def test_list(server, ctl):
    server.store.add(TICKET)
    code, output, _ = ctl("list")
    heads, row = output.splitlines()
    assert (code, heads.split()[0]) == (0, "TRANSFER")
    assert row.split()[:3] == ["t-1", "idle", "read"]
    assert TICKET["uuid"] not in output
    code, output, _ = ctl("list", "--json")
    assert json.loads(output)[0]["transfer_id"] == "t-1"


def test_top_without_a_terminal(server, ctl):
    server.store.add(TICKET)
    code, output, _ = ctl("top", "--rounds", "1")
    assert code == 0
    assert " t-1 out " in output


@pytest.mark.parametrize("before, after", [(["-c"], []), ([], ["-c"]), (["--conf-dir"], []), (["-c", "bad", "-c"], [])])
def test_conf_dir_before_and_after_the_command(server, conf_dir, capsys, before, after):
    arguments = [*before, *([conf_dir] if before else []), "list", *after, *([conf_dir] if after else [])]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("TRANSFER")


def test_no_command(capsys):
    assert cli.main([]) == 0
    output = capsys.readouterr().out
    assert "exit codes:" in output
    assert all(name in output for name in ("add-ticket", "show-ticket", "mod-ticket", "del-ticket", "list", "top"))


def test_version(capsys):
    with pytest.raises(SystemExit) as e:
        cli.main(["--version"])
    assert e.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_refused(server, ctl):
    code, output, error = ctl("show-ticket", "unknown")
    assert (code, output) == (1, "")
    assert error == "ovirt-imageioctl: 404 Not Found: No such ticket\n"


def test_profiler_is_missing(server, ctl):
    code, _, error = ctl("stop-profile")
    assert code == 1
    assert error.startswith("ovirt-imageioctl: 500")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "with a uuid"),
        (b"{}", "with a uuid"),
        (b'{"uuid": "a"}', "400 Bad Request: Invalid size (missing)"),
        (b" " * (cli.MAX_TICKET + 1), "larger than any ticket"),
    ],
)
def test_bad_ticket_file(server, ctl, tmp_path, content, words):
    path = tmp_path / "ticket.json"
    path.write_bytes(content)
    code, output, error = ctl("add-ticket", str(path))
    assert (code, output) == (1, "")
    assert error.startswith("ovirt-imageioctl: ")
    assert words in error
    assert error.count("\n") == 1


def test_missing_ticket_file(ctl):
    code, _, error = ctl("add-ticket", "/no/such/file")
    assert (code, error) == (1, "ovirt-imageioctl: Cannot read /no/such/file: No such file or directory\n")


def test_missing_configuration(tmp_path, capsys):
    assert cli.main(["list", "-c", str(tmp_path / "missing")]) == 1
    error = capsys.readouterr().err
    assert "conf.d" in error
    assert error.count("\n") == 1


def test_nobody_listens(ctl):
    code, _, error = ctl("list")
    assert code == 1
    assert "control.sock: No such file or directory; is ovirt-imageio running" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["mod-ticket", "id"],
        ["mod-ticket", "id", "--timeout", "-1"],
        ["mod-ticket", "id", "--timeout", "x"],
        ["mod-ticket"],
        ["show-ticket"],
        ["add-ticket"],
        ["no-command"],
        ["top", "--interval", "0"],
        ["top", "--interval", "x"],
        ["start-profile", "--clock", "moon"],
    ],
)
def test_wrong_arguments(ctl, arguments):
    code, output, error = ctl(*arguments)
    assert (code, output) == (2, "")
    assert "usage: ovirt-imageioctl" in error


def test_interrupted(server, ctl, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("ovirt_imageio.admin.api.Client.list_tickets", interrupt)
    assert ctl("list") == (130, "", "")


def test_reader_has_enough(server, conf_dir):
    """As in `ovirt-imageioctl list | head -0`."""
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from ovirt_imageio.admin.cli import main; sys.exit(main(['list', '-c', {conf_dir!r}]))"
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, timeout=DEADLINE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
