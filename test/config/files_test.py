"""Files are found, merged by base name, and their mistakes named."""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import config
from ovirt_imageio.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a drop-in of the administrator."""

    def write(text, name="50-test.conf", folder="etc/conf.d"):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(tmp_path):
    return lambda: config.load(tmp_path / "etc", tmp_path / "vendor")


def test_empty_file_means_defaults(write, load):
    write("")
    assert load() == config.Config()


def test_typed_values(write, load):
    write("[remote]\nport = 0\nhost = localhost\n[tls]\nenable = no\n[daemon]\ndrain_timeout = 2.5\n")
    conf = load()
    assert conf.remote.port == 0
    assert conf.remote.host == "localhost"
    assert conf.tls.enable is False
    assert conf.daemon.drain_timeout == 2.5


def test_case_of_keys_does_not_matter(write, load):
    write("[remote]\nPort: 1\n")
    assert load().remote.port == 1


def test_text_is_taken_as_it_is(write, load):
    write('[tls]\nkey_file = "%(here)s" # not a comment\n')
    assert load().tls.key_file == '"%(here)s" # not a comment'


def test_later_files_override_single_keys(write, load):
    write("[remote]\nport = 2\n", "60-b.conf")
    write("[remote]\nport = 1\nhost = a\n", "50-a.conf")
    assert load().remote.port == 2
    assert load().remote.host == "a"


def test_both_folders_are_sorted_as_one(write, load):
    write("[remote]\nport = 1\nhost = own\n", "50-a.conf")
    write("[remote]\nport = 2\n", "60-vendor.conf", "vendor")
    assert load().remote.port == 2
    assert load().remote.host == "own"


def test_among_equal_names_the_administrator_wins(write, load):
    write("[remote]\nport = 1\n", "50-a.conf")
    write("[remote]\nport = 2\nhost = vendor\n", "50-a.conf", "vendor")
    assert load().remote.port == 1
    assert load().remote.host == "vendor"


def test_other_names_are_ignored(write, load):
    write("", "50-a.conf")
    write("[remote]\nport = 1\n", "60-b.conf.rpmsave")
    write("[remote]\nport = 1\n", "README")
    assert load().remote.port == 54322


@pytest.mark.parametrize("folder", [None, "etc", "etc/conf.d"])
def test_no_files(tmp_path, write, load, folder):
    write("", "50-vendor.conf", "vendor")
    if folder:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"configuration directory '.*etc': expected at least one file conf.d/\*.conf"
    ):
        load()


def test_unreadable_folder(tmp_path, load, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    # Root may read everything.
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ConfigError, match=r"folder '.*/etc/conf\.d': expected a folder that can be read: Permission"):
        load()


def test_bad_value(write, load):
    path = write("[remote]\nport = 70000\n")
    with pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == f"[remote] port = '70000' in {path}: expected an integer between 0 and 65535"
    assert (caught.value.section, caught.value.name, caught.value.file) == ("remote", "port", str(path))


def test_bad_value_is_an_error_even_when_overridden(write, load):
    write("[tls]\nenable = perhaps\n", "50-a.conf")
    write("[tls]\nenable = true\n", "60-b.conf")
    with pytest.raises(ConfigError, match=r"50-a\.conf"):
        load()


@pytest.mark.parametrize(
    "text, message",
    [
        ("port = 1\n", "line 1 'port = 1' in .*: expected a \\[section\\]"),
        ("[remote]\nport\n", "line 2 'port' in .*: expected a \\[section\\], or key = value"),
        ("[remote]\nport = 1\nport = 2\n", r"\[remote\] port = 'line 3' in .*: expected the key only once"),
        ("[remote]\n[tls]\n[remote]\n", r"section \[remote\] 'line 3' in .*: expected it only once"),
    ],
)
def test_not_ini(write, load, text, message):
    write(text)
    with pytest.raises(ConfigError, match=message):
        load()


WORDS = st.sampled_from(
    [
        "[remote]",
        "[tls]",
        "[nothing]",
        "[",
        "]",
        "port",
        "enable",
        "=",
        ":",
        "1",
        "yes",
        "%(x)s",
        "#",
        ";",
        " ",
        "\t",
        "\n",
    ]
)


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_any_text(text):
    """Whatever is in a file: a configuration, or an error that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "conf.d", "any.conf")
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        try:
            config.load(folder, folder)
        except ConfigError as error:
            assert str(path) in str(error)


def test_not_utf8(write, load):
    write("").write_bytes(b"[remote]\nhost = \xff\n")
    with pytest.raises(ConfigError, match="expected text in UTF-8: invalid start byte at byte 16"):
        load()


def test_unreadable(tmp_path, write, load):
    write("")
    os.symlink("nowhere", tmp_path / "etc/conf.d/60-gone.conf")
    with pytest.raises(ConfigError, match=r"60-gone\.conf': expected a file that can be read: No such file"):
        load()


def test_unknown_key(write, load):
    path = write("[remote]\nprot = 1\n")
    assert load().warnings == (f"Unknown key 'prot' in section [remote] of {path}: did you mean 'port'?",)


def test_unknown_key_like_no_other(write, load):
    path = write("[remote]\nzzzzzz = 1\n")
    assert load().warnings == (f"Unknown key 'zzzzzz' in section [remote] of {path}",)


def test_unknown_section(write, load):
    path = write("[remotes]\nport = 1\n")
    assert load().warnings == (f"Unknown section [remotes] in {path}: did you mean 'remote'?",)


def test_removed_key(write, load):
    write("[daemon]\nbuffer_size = 1\n")
    [warning] = load().warnings
    assert warning.endswith("chosen to fit the machine")


def test_section_of_defaults_is_unknown(write, load):
    write("[DEFAULT]\nport = 1\n[remote]\n")
    conf = load()
    assert conf.remote.port == 54322
    assert conf.warnings[0].startswith("Unknown section [DEFAULT]")


def test_logging_sections_merge(write, load):
    write("[logger_root]\nlevel = debug\nhandlers = stderr\n[handlers]\nkeys = stderr\n")
    logging = load().logging
    assert logging["logger_root"] == {"level": "DEBUG", "handlers": "stderr", "propagate": 0}
    assert config.Config().logging["logger_root"]["level"] == "INFO"


def test_class_of_a_handler(write, load):
    write("[handler_stderr]\nclass = my.Handler\n")
    assert config.to_dict(load())["handler_stderr"]["class"] == "my.Handler"


def test_additional_logging_sections(write, load):
    write(
        "[loggers]\nkeys = root, nbd\n[logger_nbd]\nlevel = DEBUG\nhandlers = syslog\nqualname = ovirt_imageio.nbd\n"
        "[handlers]\nkeys = logfile, syslog\n[handler_syslog]\nclass = x.y\nformatter = short\n"
        "[formatters]\nkeys = long, short\n[formatter_short]\nformat = %(message)s\n[tls]\nenable = no\n"
    )
    conf = load()
    config.check(conf)
    assert conf.warnings == ()
    assert conf.logging["logger_nbd"]["level"] == "DEBUG"


def test_unused_logging_section(write, load):
    write("[handler_logfle]\nlevel = DEBUG\n")
    assert load().warnings == ("Section [handler_logfle] has no effect: [handlers] keys does not list 'logfle'",)


CONTRADICTIONS = {
    "no key": ("[tls]\ncert_file = /x\n", r"\[tls\] key_file = '': expected a file: with TLS, key_file and cert_file"),
    "no cert": ("[tls]\nkey_file = /x\n", r"\[tls\] cert_file = ''.* ca_file"),
    "no engine": (
        "[tls]\nenable = no\n[sessions]\nenable = yes\n",
        r"\[sessions\] enable = 'true': .*engine_cert_file",
    ),
    "no handler": ("[tls]\nenable = no\n[handlers]\nkeys = x\n", r"\[handlers\] keys = 'x': .* no \[handler_x\]"),
    "not listed": ("[tls]\nenable = no\n[logger_root]\nhandlers = stderr\n", r"\[logger_root\] handlers = 'stderr'"),
    "no class": (
        "[tls]\nenable = no\n[handlers]\nkeys = logfile, x\n[handler_x]\nargs = ()\n",
        r"\[handler_x\] class = ''",
    ),
    "no name": (
        "[tls]\nenable = no\n[loggers]\nkeys = root, x\n[logger_x]\nhandlers =\n",
        r"\[logger_x\] qualname = '': expected a value",
    ),
    "no format": ("[tls]\nenable = no\n[handler_logfile]\nformatter = x\n", r"\[handler_logfile\] formatter = 'x'"),
}


def test_every_mistake(write, tmp_path):
    """One that is in a hurry to start hears of the first; one that checks wants to know all."""
    write("[remote]\nport = many\nhost = disks\nprot = 1\n[daemon]\ndrain_timeout = long\n", "50-a.conf")
    write("[remote\n", "60-b.conf")
    write("[tls]\nenable = perhaps\n", "70-c.conf")
    conf, mistakes = config.read(tmp_path / "etc", tmp_path / "vendor")
    assert [error.name for error in mistakes] == ["port", "drain_timeout", "line 1", "enable"]
    # What is good is used, so that it can be checked as well.
    assert (conf.remote.host, conf.remote.port) == ("disks", 54322)
    assert len(conf.warnings) == 1


def test_every_contradiction(write, load):
    write("[control]\ntransport = tcp\nport = -1\n[handlers]\nkeys = x, y\n")
    names = [(error.section, error.name, error.value) for error in config.find_contradictions(load())]
    assert names == [
        ("tls", "key_file", ""),
        ("tls", "cert_file", ""),
        ("control", "port", "-1"),
        ("handlers", "keys", "x"),
        ("handlers", "keys", "y"),
        ("logger_root", "handlers", "logfile"),
    ]


def test_no_control_port(write, load):
    """Older releases have -1 as their default, and show it; with a Unix socket a port is not needed."""
    write("[tls]\nenable = no\n[control]\nport = -1\n")
    conf = load()
    config.check(conf)
    assert conf.control.port == -1


@pytest.mark.parametrize("text, message", CONTRADICTIONS.values(), ids=list(CONTRADICTIONS))
def test_check(write, load, text, message):
    write(text)
    conf = load()
    with pytest.raises(ConfigError) as caught:
        config.check(conf)
    assert re.search(message, str(caught.value))


def test_check_is_content(write, load):
    write("[tls]\nkey_file = /k\ncert_file = /c\n")
    config.check(load())
