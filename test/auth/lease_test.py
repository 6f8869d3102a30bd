"""The table of states, and leases."""

from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.auth.lease import TRANSITIONS, Event, Lease, State
from ovirt_imageio.auth.ticket import MAX_SECONDS

# --- States ---


def test_canceled_is_the_end():
    assert not [event for event in Event if (State.CANCELED, event) in TRANSITIONS]


def test_no_way_back():
    order = list(State)
    assert all(order.index(after) >= order.index(before) for (before, _), after in TRANSITIONS.items())


# --- Leases ---


def test_describe_lease():
    lease = Lease.begin(300, 1000.5)
    assert lease.describe(1001) == {"expires": 1300, "remaining": 299}
    assert lease.describe(2000) == {"expires": 1300, "remaining": 0}
    assert Lease.begin(MAX_SECONDS, 1000).describe(1000)["expires"] == MAX_SECONDS


def test_lease_begins():
    lease = Lease.begin(300, 1000)
    assert (lease.expires, lease.accessed) == (1300, 1000)
    assert not lease.is_expired(1299)
    assert lease.is_expired(1300)


def test_lease_of_no_time():
    assert Lease.begin(0, 1000).is_expired(1000)


def test_lease_ends_whatever_happens():
    """Then nothing may begin; but what runs, and moves, is not cut as one that stands still is."""
    lease = Lease.begin(300, 1000, lifetime=60)
    lease.touch(1050)
    assert not lease.is_expired(1059)
    assert lease.is_expired(1060)
    assert lease.describe(1050) == {"expires": 1060, "remaining": 10}
    assert lease.is_abandoned(1349) is False
    assert lease.is_abandoned(1350) is True


def test_end_is_moved():
    lease = Lease.begin(300, 1000)
    lease.limit(20, 1010)
    assert not lease.is_expired(1029)
    assert lease.is_expired(1030)


def test_touch_moves_it_forward():
    lease = Lease.begin(300, 1000)
    lease.touch(1100)
    assert (lease.expires, lease.accessed) == (1400, 1100)


def test_touch_does_not_undo_an_extension():
    lease = Lease.begin(300, 1000)
    lease.extend(600, 1000)
    lease.touch(1010)
    assert (lease.expires, lease.accessed) == (1600, 1010)


def test_extend_is_no_activity():
    lease = Lease.begin(300, 1000)
    lease.extend(600, 1100)
    assert (lease.expires, lease.accessed, lease.timeout) == (1700, 1000, 300)


def test_extend_may_shorten_and_revive():
    lease = Lease.begin(300, 1000)
    lease.extend(0, 1010)
    assert lease.is_expired(1010)
    lease.extend(5, 2000)
    assert not lease.is_expired(2004)


@given(
    timeout=st.integers(0, 100),
    steps=st.lists(st.tuples(st.sampled_from(["touch", "extend"]), st.integers(0, 50), st.integers(0, 100))),
)
def test_touch_never_shortens(timeout, steps):
    now = 0
    lease = Lease.begin(timeout, now)
    for step, passed, seconds in steps:
        now += passed
        before = lease.expires
        if step == "touch":
            lease.touch(now)
            assert lease.expires >= before
            assert lease.expires >= now + timeout
        else:
            lease.extend(seconds, now)
            assert lease.expires == now + seconds
        assert lease.accessed <= now
