"""The command line: what it shows, what it refuses, and how it ends."""

import json
import socket

import pytest
from real import certificates, daemon

from ovirt_imageio.service import cli
from ovirt_imageio.version import __version__


@pytest.fixture
def conf_dir(tmp_path):
    return str(daemon.write_config(tmp_path))


def outcome(capsys, *arguments):
    """Run the program; return its exit status and what it says."""
    try:
        status = cli.main(arguments)
    except SystemExit as exit:
        status = exit.code
    said = capsys.readouterr()
    return status, said.out, said.err


def test_version(capsys):
    assert outcome(capsys, "--version") == (0, f"ovirt-imageio {__version__}\n", "")


def test_help_tells_the_exit_status(capsys):
    status, out, _ = outcome(capsys, "--help")
    assert status == 0
    for line in ("0   stopped by a signal", "2   wrong arguments", "78  a mistake in the configuration", "SIGHUP"):
        assert line in out


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["no-such-command"], ["--show-config", "--check-config"]])
def test_wrong_arguments(capsys, arguments):
    status, _, err = outcome(capsys, *arguments)
    assert status == 2
    assert "usage: ovirt-imageio" in err


@pytest.mark.parametrize(
    ("words", "near"),
    [(["--chek-config"], "--check-config"), (["serve", "a.img", "--red-only"], "--read-only")],
)
def test_mistyped_option(capsys, words, near):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert capsys.readouterr().err.endswith(f"; did you mean {near}?\n")


def test_show_config(capsys, conf_dir):
    status, out, err = outcome(capsys, "-c", conf_dir, "--show-config")
    assert (status, err) == (0, "")
    shown = json.loads(out)
    assert shown["remote"]["port"] == 0
    assert shown["handler_stderr"]["class"] == "logging.StreamHandler"
    # Four blanks per level: scripts may read it line by line.
    assert out.startswith('{\n    "daemon": {\n        "poll_interval": 1.0,\n')


def test_show_config_needs_no_certificate(capsys, tmp_path):
    """engine-setup asks for the port before it made the certificate."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "50-engine.conf").write_text("[remote]\nport = 54323\n")
    status, out, _ = outcome(capsys, "-c", str(tmp_path), "--show-config")
    assert (status, json.loads(out)["remote"]["port"]) == (0, 54323)


def test_show_without_configuration(capsys, tmp_path):
    status, out, err = outcome(capsys, "-c", str(tmp_path), "--show-config")
    assert (status, out) == (1, "")
    assert err.startswith("ovirt-imageio: configuration directory")


def test_check_config(capsys, conf_dir):
    good = f"The configuration in {conf_dir} is good\n"
    assert outcome(capsys, "-c", conf_dir, "--check-config") == (0, good, "")


def test_check_config_tells_everything(capsys, tmp_path):
    text = "[remote]\nport = many\nprot = 1\n[daemon]\ndrop_privileges = yes\nuser_name = no-such-user\n"
    text += "[backend_http]\nca_file = /nowhere/ca.pem\n[tls]\nkey_file = /nowhere/key.pem\n"
    conf_dir = daemon.write_config(tmp_path, text)
    status, out, err = outcome(capsys, "-c", str(conf_dir), "--check-config")
    assert (status, out) == (1, "")
    found = sorted(line.partition(" =")[0] for line in err.splitlines())
    assert found == [
        f"Unknown key 'prot' in section [remote] of {conf_dir}/conf.d/60-test.conf: did you mean 'port'?",
        "[backend_http] ca_file",
        "[daemon] group_name",
        "[daemon] user_name",
        "[remote] port",
        "[tls] key_file",
    ]


def test_check_config_beside_a_daemon(capsys, tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control.sock"))
        other.listen()
        conf_dir = daemon.write_config(tmp_path)
        status, out, err = outcome(capsys, "-c", str(conf_dir), "--check-config")
    assert (status, "is good" in out) == (0, True)
    assert "is running: its ports were not tried" in err


def test_check_config_warns(capsys, tmp_path):
    conf_dir = daemon.write_config(tmp_path, "[remote]\nprot = 1\n[lokal]\n")
    status, out, err = outcome(capsys, "-c", str(conf_dir), "--check-config")
    assert (status, out) == (1, "")
    assert [line.rpartition(": ")[2] for line in err.splitlines()] == ["did you mean 'port'?", "did you mean 'local'?"]


def test_check_config_tells_contradictions(capsys, tmp_path):
    conf_dir = daemon.write_config(tmp_path, "[tls]\ncert_file =\n")
    status, _, err = outcome(capsys, "-c", str(conf_dir), "--check-config")
    assert (status, err.partition(" =")[0]) == (1, "[tls] cert_file")


def test_check_config_reads_the_certificate(capsys, tmp_path):
    other = certificates.certificate("second")
    conf_dir = daemon.write_config(tmp_path, f"[tls]\nkey_file = {other.key_file}\n")
    status, _, err = outcome(capsys, "-c", str(conf_dir), "--check-config")
    assert status == 1
    assert "expected the private key of the certificate" in err


def test_what_nobody_foresaw(capsys, caplog, monkeypatch, conf_dir):
    monkeypatch.setattr(cli, "check", lambda conf_dir: 1 / 0)
    status, _, _ = outcome(capsys, "-c", conf_dir, "--check-config")
    assert status == 1
    assert "ZeroDivisionError" in caplog.text


# --- serve ---


def parsed(*arguments):
    return cli.parse(["serve", "disk.img", *arguments])


def test_serve_defaults():
    options = parsed()
    assert (options.image, options.size, options.listen, options.timeout) == ("disk.img", None, None, 86400)


def test_serve_timeout():
    assert parsed("--timeout", "1h30m").timeout == 5400


def test_serve_size():
    assert parsed("--size", "10g").size == 10 * 1024**3


@pytest.mark.parametrize(
    "text, address",
    [
        ("0.0.0.0:54322", ("0.0.0.0", 54322)),
        ("0.0.0.0", ("0.0.0.0", None)),
        ("disks.example.com", ("disks.example.com", None)),
        ("::", ("::", None)),
        ("[::]", ("::", None)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:0", ("localhost", 0)),
        ("[::]:8080", ("::", 8080)),
        (":8080", ("", 8080)),
    ],
)
def test_serve_listen(text, address):
    assert parsed("--listen", text).listen == address


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "big"], "'big' is not a size"),
        (["--listen", "54322"], "is not HOST or HOST:PORT"),
        (["--listen", "localhost:99999"], "is not HOST or HOST:PORT"),
        (["--listen", "localhost:"], "is not HOST or HOST:PORT"),
        (["--listen", "::1:80"], "is not HOST or HOST:PORT"),
        (["--timeout", "0"], "at least one second"),
        (["--key", "key.pem"], "--key needs --cert"),
        (["--cert", "cert.pem", "--no-tls"], "not allowed with argument"),
    ],
)
def test_serve_wrong_arguments(capsys, arguments, message):
    status, _, err = outcome(capsys, "serve", "disk.img", *arguments)
    assert status == 2
    assert message in err
