"""The life of a transfer."""

from __future__ import annotations

import pytest
from fakes.waiting import wait_until

from ovirt_imageio.client.engine.connection import EngineError
from ovirt_imageio.client.engine.transfers import Transfer


@pytest.fixture
def start(engine, connection):
    def start(*, is_upload=False):
        return Transfer(connection, engine.add_image(b"x" * 4096), is_upload=is_upload)

    return start


def test_whole_life(start):
    transfer = start()
    transfer.wait_ready()
    assert transfer.url.startswith("https://localhost:")
    assert transfer.proxy_url is None
    transfer.finalize()
    transfer.wait_end()


def test_extended_while_it_runs(engine, start):
    transfer = start()
    with transfer.kept_alive(interval=0.001):
        wait_until(lambda: engine.asked.count("extend") > 2)
    count = engine.asked.count("extend")
    transfer.finalize()
    transfer.wait_end()
    assert engine.asked.count("extend") == count


def test_extension_that_fails_is_only_logged(engine, start, caplog):
    engine.refuse("extend", 409, "Not now")
    with start().kept_alive(interval=0.001):
        wait_until(lambda: engine.asked.count("extend") > 1)
    assert "Cannot extend the transfer: Not now" in caplog.text


def test_does_not_start_in_time(engine, start):
    engine.phases = ["initializing"]
    with pytest.raises(EngineError, match="did not start within 60 seconds"):
        start().wait_ready()


def test_is_not_finalized_in_time(engine, start):
    engine.final_phases = ["finalizing_success"]
    transfer = start()
    transfer.finalize()
    with pytest.raises(EngineError, match=r"has not finalized the transfer .* within 300 seconds"):
        transfer.wait_end()


@pytest.mark.parametrize(
    ("is_upload", "is_ready", "expected"),
    [(True, True, "cancel"), (True, False, "cancel"), (False, True, "finalize"), (False, False, "cancel")],
)
def test_give_up(engine, start, is_upload, is_ready, expected):
    transfer = start(is_upload=is_upload)
    if is_ready:
        transfer.wait_ready()
    engine.asked.clear()
    transfer.give_up()
    assert engine.asked == [expected, "get_transfer"]


def test_giving_up_what_is_gone(engine, start, caplog):
    transfer = start()
    engine.transfers.clear()
    transfer.give_up()
    assert not caplog.records


def test_giving_up_fails(engine, start, caplog):
    engine.refuse("cancel", 500, "Out of order")
    start().give_up()
    assert "Cannot cancel the transfer: Out of order; the engine cancels the transfer of disk" in caplog.text
    assert "after 60 seconds without activity" in caplog.text
