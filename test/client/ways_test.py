"""One rule decides which way a copy goes; a server that cannot, or does not want to, gets HTTP."""

from __future__ import annotations

import contextlib

import pytest
from fakes.imageserver import ImageServer
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import wait_until

from ovirt_imageio.client import ways
from ovirt_imageio.client.copy.plan import COPY, SKIP, ZERO, Task
from ovirt_imageio.client.copy.reach import NEAR, reach
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.client.ways import SAMPLE, SMALL
from ovirt_imageio.nbd.wire import Mode

SIZE = 1024
DISK = bytes(SIZE)


def tasks(*lengths: int, action: str = COPY) -> list[Task]:
    return [Task(action, 0, length, ((0, length),)) for length in lengths]


@pytest.fixture
def served(tmp_path):
    """The real server of a small disk."""
    with ImageServer(tmp_path, port=0) as server:
        server.add("disk", DISK)
        yield server.url("disk")


def choose(url, given, size=SIZE, listers=0):
    """Return the name of the way, and the tasks."""
    remote = Remote(url, None)
    with contextlib.closing(remote.connect()) as there:
        way, listed = ways.choose(iter(given), remote, there, size, workers=4, listers=listers)
        with contextlib.closing(way):
            return way.name, list(listed)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (tasks(SMALL - 1), "NBD"),
        (tasks(SMALL), "HTTP"),
        (tasks(10, 2 * SMALL, 10), "NBD"),
        (tasks(10, 2 * SMALL), "HTTP"),
        ([*tasks(64 * 1024), *tasks(128 * 1024**2, action=ZERO), *tasks(1024**4, action=SKIP)], "NBD"),
        (tasks(10, action=ZERO), "HTTP"),
        ([], "HTTP"),
        (tasks(*[10] * (SAMPLE + 5)), "NBD"),
    ],
)
def test_small_pieces_go_by_nbd(served, given, name):
    assert choose(served, given) == (name, given)


def test_long_list_is_not_read_to_its_end(served):
    def endless():
        while True:
            yield from tasks(10)

    remote = Remote(served, None)
    with contextlib.closing(remote.connect()) as there:
        way, listed = ways.choose(endless(), remote, there, SIZE)
        way.close()
        assert [next(listed) for _ in range(2 * SAMPLE)] == tasks(10) * 2 * SAMPLE


def test_old_server():
    with DiskOrigin(DISK) as origin:
        assert choose(origin.url, tasks(10))[0] == "HTTP"
        assert origin.methods() == ["OPTIONS"]


@pytest.mark.parametrize("answer", [(403, b"Not this one"), (200, DISK), (501, b"")])
def test_server_that_refuses(answer, caplog):
    def first(wire):
        wire.options(features=["nbd"], size=SIZE)

    def second(wire):
        wire.options(features=["nbd"], size=SIZE)
        wire.read_head()
        wire.answer(*answer)

    with ScriptedOrigin(first, second) as origin:
        assert choose(origin.url, tasks(10)) == ("HTTP", tasks(10))
        assert "upgrade: nbd" in origin.heads[-1].lower()
    assert "Going on by HTTP" in caplog.text


def test_disk_that_grows(served):
    assert choose(served, tasks(10), size=SIZE + 1)[0] == "HTTP"


@pytest.mark.parametrize(("readers", "count", "name"), [(1, SAMPLE, "HTTP"), (1, 10, "NBD"), (2, SAMPLE, "NBD")])
def test_server_of_one_connection(readers, count, name):
    """Another one waits until the list is complete."""

    def first(wire):
        wire.options(features=["nbd"], max_readers=readers, size=SIZE)

    def second(wire):
        wire.options(features=["nbd"])
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        call.wait_for_hangup()

    given = tasks(*[10] * count)
    scripts = [first, second] if name == "NBD" else [first]
    with ScriptedOrigin(*scripts) as origin:
        assert choose(origin.url, given, listers=1) == (name, given)


class CountingRemote(Remote):
    """Counts the connections that speak NBD."""

    attached = 0

    def attach(self, line):
        end = super().attach(line)
        self.attached += 1
        return end


@pytest.mark.parametrize(
    ("distance", "count", "listers", "attached"),
    [(0.1, 10, 0, 4), (0.1, 2, 0, 2), (0.1, SAMPLE, 1, 3), (0.1, 10, 1, 4), (0, 10, 0, 1)],
)
def test_far_away_all_connections_are_made_at_once(served, distance, count, listers, attached):
    """As many as there are workers that can begin; near by one, to see whether the server wants to."""
    remote = CountingRemote(served, None)
    with contextlib.closing(remote.connect()) as there:
        remote.reach = reach(distance)
        assert (remote.reach == NEAR) == (distance == 0)
        way, _ = ways.choose(tasks(*[10] * count), remote, there, SIZE, workers=4, listers=listers)
        with contextlib.closing(way):
            assert way.name == "NBD"
            wait_until(lambda: remote.attached == attached)
    assert remote.attached == attached


def test_far_away_a_server_may_refuse_all(caplog):
    def first(wire):
        wire.options(features=["nbd"], size=SIZE)

    def refusal(wire):
        wire.options(features=["nbd"], size=SIZE)
        wire.read_head()
        wire.answer(403, b"Not this one")

    with ScriptedOrigin(first, *[refusal] * 5) as origin:
        remote = Remote(origin.url, None)
        with contextlib.closing(remote.connect()) as there:
            remote.reach = reach(0.1)
            way, _ = ways.choose(tasks(*[10] * 9), remote, there, SIZE, workers=4)
            assert way.name == "HTTP"
    # One tells why.
    assert caplog.text.count("Going on by HTTP") == 1
