"""The parts of the daemon's life that need no process of their own; the rest is in test/integration."""

import logging
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
    """Listeners whose stop() lasts until they are cut."""

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

    # What happens when it looks whether the certificate was renewed.
    renewals = ()

    def follow_certificate(self):
        self.calls.append("follow")
        what = self.renewals.pop(0) if self.renewals else False
        if isinstance(what, Exception):
            raise what
        return what

    expires = None

    def describe(self):
        return "Fine"

    def describe_running(self):
        return "2 transfers: a, b"


class Signals:
    """Signals that come in a script; then none, until it is woken."""

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


def never(running, left):
    raise AssertionError(f"told of {running}")


def test_drain_in_time():
    listeners = Listeners()
    listeners.is_cut.set()
    process.drain(listeners, Signals(), 7, never)
    assert listeners.calls == [("stop", 7)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_cuts(number):
    listeners = Listeners()
    process.drain(listeners, Signals(signal.SIGHUP, number), 7, never)
    assert "cut" in listeners.calls


def test_drain_tells_what_it_waits_for():
    told = []
    # None: nothing came until the time-out.
    process.drain(Listeners(), Signals(None, None, signal.SIGINT), 3600, lambda *what: told.append(what))
    assert told == [("2 transfers: a, b", 3600)] * 2


def test_serve_until_asked_to_stop():
    listeners, notifier = Listeners(), Notifier()
    process.serve(listeners, Signals(None, signal.SIGHUP, signal.SIGTERM, None), notifier, Config)
    assert listeners.calls == ["follow", "reload"]
    assert notifier.told == ["Fine", "alive"] * 2


def test_a_certificate_that_was_renewed(caplog):
    """Without a signal: in a container nobody sends one. A bad one is told, and the next one tried."""
    caplog.set_level("INFO")
    listeners = Listeners()
    listeners.renewals = [False, errors.ConfigError("cert_file", "x", "a certificate"), True]
    process.serve(listeners, Signals(None, None, None, signal.SIGTERM), Notifier(), Config)
    assert listeners.calls == ["follow"] * 3
    assert "Cannot use the certificate that was renewed, keeping the old one" in caplog.text
    assert "The certificate was renewed" in caplog.text


def test_failed_reload(caplog):
    def reload():
        raise errors.ConfigError("port", "x", "a number", "remote")

    listeners = Listeners()
    process.reload_all(listeners, reload)
    assert "Cannot reload the configuration, keeping the old one: [remote] port" in caplog.text
    assert listeners.calls == ["reload"]


def test_failed_reload_of_the_certificate(caplog):
    class Broken(Listeners):
        def reload_certificate(self):
            raise errors.ConfigError("cert_file", "/x", "a PEM certificate", "tls")

    with caplog.at_level(logging.INFO):
        process.reload_all(Broken(), Config)
        assert "keeping the old one" in caplog.text
        assert "Reloaded" not in caplog.text
        process.reload_all(Listeners(), Config)
        assert "Reloaded" in caplog.text


def test_certificate_that_ends_soon(caplog):
    process.warn_of_expiry(None, 0)
    process.warn_of_expiry(process.EXPIRY_MARGIN, 0)
    assert caplog.text == ""
    process.warn_of_expiry(process.EXPIRY_MARGIN - 1, 0)
    assert "Clients accept the certificate until 1970-01-14 23:59 UTC: renew it, and reload" in caplog.text


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unusable_authorities(tmp_path, caplog, content):
    """A proxy cannot work without them; a host may name them for others."""
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    config = Config()
    proxy = replace(config, backend_http=replace(config.backend_http, ca_file=str(path)))
    with pytest.raises(errors.ConfigError, match=r"^\[backend_http\] ca_file = '.*ca\.pem': expected"):
        process.check_authorities(proxy)
    process.check_authorities(replace(config, tls=replace(config.tls, ca_file=str(path))))
    assert "Images of other daemons cannot be served: [tls] ca_file" in caplog.text


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


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[" * 100_000])
def test_bad_ticket_file(tmp_path, content):
    path = tmp_path / "ticket"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.InvalidValue, match=r"Invalid ticket file .*: expected (JSON|a file that can be read)"):
        process.read_ticket(str(path))


class Keeper:
    """A manager that keeps one document."""

    def __init__(self, document=None):
        self.document = document

    def take_tickets(self):
        return self.document

    def hand_over(self, document):
        self.document = document
        return True


class Restarted(Listeners):
    """Listeners of which nobody has added a ticket."""

    def __init__(self):
        super().__init__()
        self.document = {"tickets": [], "signed": {"denied": {"backup-42": 1}}}

    def record(self):
        return self.document

    def resume(self, document):
        self.calls.append(document)


def test_what_was_revoked_is_handed_over_without_a_ticket(caplog):
    caplog.set_level(logging.INFO)
    keeper, listeners = Keeper(), Restarted()
    process.leave(listeners, keeper)
    assert "Left tickets=0 for a restart" in caplog.text
    process.go_on(listeners, keeper)
    assert listeners.calls == [listeners.document]


def test_nothing_was_handed_over():
    listeners = Restarted()
    process.go_on(listeners, Keeper())
    assert listeners.calls == []


def test_what_was_handed_over_is_not_what_it_should_be(caplog):
    class Refusing(Restarted):
        def resume(self, document):
            raise errors.InvalidTicket("ticket_id", "f00dfeed", "a string")

    process.go_on(Refusing(), Keeper({}))
    assert "All tickets of before the restart are forgotten: ticket_id is not a string" in caplog.text
    assert "f00dfeed" not in caplog.text
