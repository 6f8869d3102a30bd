"""Errors carry fields, say what to do, and quote nothing without bounds."""

from __future__ import annotations

import errno
import inspect

import pytest

from ovirt_imageio import errors


def every_error() -> list[type[errors.Error]]:
    return [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.Error)]


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        ("c0ffee00-1", "x c0ffee00-1 yc0ffee00-1z", "x * y*z"),
        ("u", "use /images/u/extents: u", "use /images/*/extents: *"),
        ("a.b", "a.b axb a.bc", "* axb a.bc"),
        ("", "nothing", "nothing"),
    ],
)
def test_conceal(secret, text, expected):
    assert errors.conceal(text, secret, "*") == expected


def test_the_tree_is_drawn_as_it_is():
    drawn = errors.__doc__ or ""
    for cls in every_error():
        assert f"{cls.__name__} " in drawn or cls is errors.Error, cls
        if cls not in (errors.Error, errors.StorageError):
            line = next(line for line in drawn.splitlines() if f"─ {cls.__name__} " in line)
            depth = line.index("─")
            parents = [c.__name__ for c in cls.__mro__[1:-4] if c is not errors.Error]
            assert (depth > 5) == bool(parents), f"{cls.__name__} below {parents}"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, errors.NoSpace),
        (errno.EDQUOT, errors.NoSpace),
        (errno.EIO, errors.StorageError),
        (errno.EROFS, errors.StorageError),
        (errno.ETIMEDOUT, errors.BackendTimeout),
    ],
)
def test_a_system_error_becomes_ours_without_its_path(code, kind):
    system = OSError(code, "what the system says", "/secret/path")
    error = errors.storage_error("write", system)
    assert type(error) is kind
    assert error.code == code
    assert str(error).endswith(" write: what the system says")


@pytest.mark.parametrize(
    "value,shown",
    [
        ("https://user:secret@host/x", "'https://(user)@host/x'"),
        ("nbd://user@host/x", "'nbd://(user)@host/x'"),
        ("ftp://user:se/cr@et@host/x", "'ftp://(user)@host/x'"),
        ("https://host/x", "'https://host/x'"),
        ("a@b", "'a@b'"),
        ("a@b//c", "'a@b//c'"),
        ({"url": "https://user:secret@host"}, "{'url': 'https://(user)@host'}"),
    ],
)
def test_a_password_is_not_quoted(value, shown):
    assert errors.quoted(value) == shown
    assert shown in str(errors.InvalidValue("url", value, "a URL"))


def test_a_hostile_value_is_quoted_in_part():
    text = str(errors.InvalidValue("size", "x" * 100_000, "an integer"))
    assert len(text) < 200
    assert text.startswith("Invalid size 'xxx")


def test_a_config_error_names_its_place():
    error = errors.ConfigError("port", "abc", "an integer from 0 to 65535", "remote", "60-vdsm.conf")
    assert str(error) == "[remote] port = 'abc' in 60-vdsm.conf: expected an integer from 0 to 65535"


def test_busy_names_what_still_runs():
    assert str(errors.TransferBusy("t1", ["read since 3 s", "flush since 1 s"])) == (
        "Transfer t1 is still busy, try again: read since 3 s, flush since 1 s"
    )


def test_no_such_ticket_is_what_clients_look_for():
    assert "No such ticket" in str(errors.NoSuchTicket())


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain", "plain"),
        ("größer, 日本", "größer, 日本"),
        ("two\r\n  lines\t", "two lines"),
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("\x9b31mred", "\ufffd31mred"),
        ("a\x00b\x7f", "a\ufffdb\ufffd"),
        ("gpj.\u202eexe", "gpj.\ufffdexe"),
        ("\ud800", "\ufffd"),
    ],
)
def test_printable(text, shown):
    assert errors.printable(text) == shown
    assert errors.printable(shown) == shown
