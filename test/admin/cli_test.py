"""ovirt-imageioctl: arguments, output, exit codes, and no tracebacks."""

import io
import json
import os
import socket
import subprocess
import sys

import pytest
from fakes.controlserver import ControlServer
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.admin import cli, document
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
    assert ctl("del-ticket", TICKET["uuid"]) == (0, "", "")
    assert server.store.list() == []


@pytest.mark.parametrize("name", [TICKET["uuid"], "c0ffee00", "c0ffee00...", "c", "t-1", "t"])
def test_what_list_shows_names_a_ticket(server, ctl, name):
    server.store.add(TICKET)
    assert json.loads(ctl("show-ticket", name)[1])["uuid"] == TICKET["uuid"]
    assert ctl("mod-ticket", name, "--timeout", "1h30m") == (0, "", "")
    assert server.store.info(TICKET["uuid"])["remaining"] > 5000
    assert ctl("del-ticket", name) == (0, "", "")
    assert server.store.list() == []


@pytest.mark.parametrize("command", [["del-ticket"], ["show-ticket"], ["mod-ticket", "--timeout", "1"]])
def test_unknown_ticket(server, ctl, command):
    server.store.add(TICKET)
    code, output, error = ctl(*command, "c0ffee01")
    assert (code, output) == (1, "")
    assert error == "ovirt-imageioctl: No such ticket; `ovirt-imageioctl list` shows those there are\n"
    assert len(server.store.list()) == 1


def test_signed_ticket_that_nobody_has_shown(server, ctl):
    """The service is told its id, though it lists no such ticket."""
    server.store.add({**TICKET, "uuid": "backup-42"})
    code, _, error = ctl("show-ticket", "signed/backup-42")
    assert (code, "No such ticket" in error) == (1, True)
    assert ctl("del-ticket", "signed/backup-42") == (0, "", "")
    assert server.store.list() == []


def test_ambiguous_ticket(server, ctl):
    server.store.add(TICKET)
    server.store.add({**TICKET, "uuid": "c0ffee11", "transfer_id": "t-2"})
    code, _, error = ctl("del-ticket", "c0ffee")
    assert code == 1
    assert error == "ovirt-imageioctl: 'c0ffee' may mean 2 tickets: t-1, t-2; type more of the id\n"
    assert len(server.store.list()) == 2


def test_dry_run_removes_nothing(server, ctl):
    server.store.add(TICKET)
    for what in (TICKET["uuid"], "--all"):
        code, shown, error = ctl("del-ticket", "--dry-run", what)
        assert (code, error, len(server.store.list())) == (0, "", 1)
        assert len(shown.splitlines()) == 2


def test_del_all(server, ctl):
    server.store.add(TICKET)
    server.store.add({**TICKET, "uuid": "another"})
    for _ in range(2):
        assert ctl("del-ticket", "--all") == (0, "", "")
        assert server.store.list() == []


@pytest.mark.parametrize(
    "options, ops, timeout", [([], ["write"], 3600), (["--read", "--timeout", "10m"], ["read"], 600)]
)
def test_ticket_for_a_file(server, ctl, tmp_path, options, ops, timeout):
    path = tmp_path / "my disk.raw"
    path.write_bytes(bytes(10240))
    code, output, error = ctl("add-ticket", "--file", str(path), *options)
    assert (code, error) == (0, "")
    base, _, ticket_id = output.rstrip("\n").rpartition("/")
    assert base == f"https://{socket.gethostname()}:54322/images"
    info = server.store.info(ticket_id)
    assert (info["size"], info["ops"], info["timeout"]) == (10240, ops, timeout)
    assert info["url"] == f"file://{tmp_path}/my%20disk.raw"
    assert info["transfer_id"].startswith("my disk.raw-")
    # What was printed is enough to revoke it.
    assert ctl("del-ticket", ticket_id) == (0, "", "")


def test_ticket_for_a_url(server, ctl):
    code, output, _ = ctl("add-ticket", "--url", "nbd:unix:/run/disk.sock", "--size", "10g", "--read")
    assert code == 0
    info = server.store.info(output.strip().rpartition("/")[2])
    assert (info["url"], info["size"]) == ("nbd:unix:/run/disk.sock", 10 * 2**30)
    assert info["transfer_id"].startswith("nbd-")


def test_each_ticket_has_its_own_id(server, ctl, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"data")
    assert len({ctl("add-ticket", "--file", str(path))[1] for _ in range(3)}) == 3


def test_qcow2_file_is_served_as_it_is(server, ctl, tmp_path):
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(508))
    code, output, error = ctl("add-ticket", "--file", str(path))
    assert (code, output.count("\n"), error.count("\n")) == (0, 1, 1)
    assert "is a qcow2 image" in error


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--file", "/no/such/disk"], 1, "Cannot find the size of /no/such/disk: No such file"),
        (["--url", "nbd:unix:/run/disk.sock"], 1, "add --size"),
        (["--url", "image:raw:rbd:vms/disk"], 1, "add --size"),
        (["--url", "no-scheme", "--size", "1k"], 1, "400 Bad Request"),
        (["--url", "https://[::1/", "--size", "1k"], 1, "is not a URL"),
        (["--file", "/dev/null", "--url", "nbd:unix:/a"], 2, "not allowed with"),
        (["ticket.json", "--size", "1g"], 2, "for --file and --url"),
    ],
)
def test_no_ticket_for_that(server, ctl, arguments, code, words):
    found, output, error = ctl("add-ticket", *arguments)
    assert (found, output) == (code, "")
    assert words in error
    assert server.store.list() == []


def test_port_is_not_known(server, conf_dir, ctl, tmp_path):
    with open(f"{conf_dir}/conf.d/test.conf", "a") as file:
        file.write("[remote]\nport = 0\n")
    path = tmp_path / "disk"
    path.write_bytes(b"data")
    code, _, error = ctl("add-ticket", "--file", str(path))
    assert (code, "port is 0" in error) == (1, True)
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
    assert "last error" not in output
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
    assert cli.main([]) == 2
    output = capsys.readouterr().out
    assert "exit codes:" in output
    assert all(name in output for name in ("add-ticket", "show-ticket", "mod-ticket", "del-ticket", "list", "top"))


def test_version(capsys):
    with pytest.raises(SystemExit) as e:
        cli.main(["--version"])
    assert e.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_profiler_is_missing(server, ctl):
    code, _, error = ctl("stop-profile")
    assert code == 1
    assert error.startswith("ovirt-imageioctl: 500")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "with a uuid"),
        (b"{}", "with a uuid"),
        (b'{"uuid": "a"}', "400 Bad Request: Invalid size (missing)"),
        (b" " * (document.MAX_TICKET + 1), "larger than any ticket"),
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
        ["del-ticket"],
        ["del-ticket", "id", "--all"],
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


def test_full_disk_behind_standard_output(server, conf_dir):
    code = f"import sys; from ovirt_imageio.admin.cli import main; sys.exit(main(['list', '-c', {conf_dir!r}]))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE)
    expected = b"ovirt-imageioctl: Cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_mistyped_command(ctl):
    code, _, error = ctl("del-tiket")
    assert code == 2
    assert error.endswith("did you mean 'del-ticket'?\n")
    code, _, error = ctl("list", "--jsn")
    assert (code, error.splitlines()[-1].rpartition("; ")[2]) == (2, "did you mean --json?")


def test_list_tells_the_last_error(tmp_path, ctl):
    def open_backend(ticket, line, traceparent):
        raise errors.StorageError("open the disk", "Permission denied")

    with ControlServer(tmp_path, open_backend=open_backend) as server:
        server.store.add(TICKET)
        with server.client() as client:
            assert client.get(f"/images/{TICKET['uuid']}").status == 500
        output = ctl("list")[1]
    assert output.splitlines()[-1] == "    last error: Storage failed to open the disk: Permission denied"
