"""The parts of the daemon's life that need no process of their own; the rest is in test/integration."""

import resource
import signal
import threading
from dataclasses import replace

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.config import Config
from ovirt_imageio.service import process


class Listeners:
    """Listeners whose stop() lasts until somebody cuts."""

    def __init__(self):
        self.is_cut = threading.Event()
        self.calls = []

    def stop(self, grace):
        self.calls.append(("stop", grace))
        assert self.is_cut.wait(DEADLINE)

    def cut(self):
        self.calls.append("cut")
        self.is_cut.set()

    def reload_certificate(self):
        self.calls.append("reload")

    def describe(self):
        return "Fine"


class Signals:
    """Signals that come in a script; then none, until somebody wakes."""

    def __init__(self, *script):
        self.script = list(script)
        self.is_awake = threading.Event()

    def wait(self, timeout=None):
        if self.script:
            return self.script.pop(0)
        assert self.is_awake.wait(DEADLINE)
        return None

    def wake(self):
        self.is_awake.set()


class Notifier:
    """Remembers what it was told."""

    watchdog_interval = None

    def __init__(self):
        self.told = []

    def status(self, text):
        self.told.append(text)

    def alive(self):
        self.told.append("alive")


def test_drain_in_time():
    listeners = Listeners()
    listeners.is_cut.set()
    process.drain(listeners, Signals(), 7)
    assert listeners.calls == [("stop", 7)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_cuts(number):
    listeners = Listeners()
    process.drain(listeners, Signals(signal.SIGHUP, number), 7)
    assert "cut" in listeners.calls


def test_serve_until_asked_to_stop():
    listeners, notifier = Listeners(), Notifier()
    process.serve(listeners, Signals(None, signal.SIGHUP, signal.SIGTERM, None), notifier, Config)
    assert listeners.calls == ["reload"]
    assert notifier.told == ["Fine", "alive"] * 2


def test_failed_reload(caplog):
    def reload():
        raise errors.ConfigError("port", "x", "a number", "remote")

    listeners = Listeners()
    process.reload_all(listeners, reload)
    assert "Cannot reload the configuration, keeping the old one: [remote] port" in caplog.text
    assert listeners.calls == ["reload"]


def test_files_that_are_read_later():
    config = Config()
    assert process.later_files(replace(config, tls=replace(config.tls, enable=False))) == []
    tls = replace(config.tls, cert_file="/cert", key_file="/key", ca_file="/ca")
    secure = [("tls", "cert_file", "/cert"), ("tls", "key_file", "/key")]
    assert process.later_files(replace(config, tls=tls)) == [*secure, ("tls", "ca_file", "/ca")]
    proxy = replace(
        config,
        tls=tls,
        backend_http=replace(config.backend_http, ca_file="/hosts"),
        sessions=replace(config.sessions, enable=True, engine_cert_file="/engine", engine_ca_cert_file="/authority"),
    )
    assert process.later_files(proxy) == [
        *secure,
        ("backend_http", "ca_file", "/hosts"),
        ("sessions", "engine_cert_file", "/engine"),
        ("sessions", "engine_ca_cert_file", "/authority"),
    ]


@pytest.fixture
def file_limit():
    """The limit of open files; restored when the test is over."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_file_limit(file_limit):
    soft, hard = file_limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    process.raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(process.OPEN_FILES, hard), hard)


def test_ticket_file(tmp_path):
    path = tmp_path / "ticket"
    path.write_text('{"uuid": "x"}')
    assert process.read_ticket(str(path)) == {"uuid": "x"}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff"])
def test_bad_ticket_file(tmp_path, content):
    path = tmp_path / "ticket"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.InvalidValue, match=r"Invalid ticket file .*: expected (JSON|a file that can be read)"):
        process.read_ticket(str(path))
