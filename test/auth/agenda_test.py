"""What is due when."""

from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.auth.agenda import SLACK, Agenda


def test_in_order():
    agenda = Agenda()
    for name, due in (("b", 2), ("a", 1), ("c", 3)):
        agenda.set(name, due)
    assert agenda.pop_due(0.5) == []
    assert agenda.pop_due(2) == ["a", "b"]
    assert agenda.pop_due(2) == []
    assert len(agenda) == 1
    assert agenda.pop_due(10) == ["c"]


def test_earlier_and_later():
    agenda = Agenda()
    agenda.set("a", 10)
    agenda.set("a", 5)
    assert agenda.pop_due(5) == ["a"]
    assert agenda.pop_due(10) == []
    agenda.set("b", 11)
    agenda.set("b", 20)
    assert agenda.pop_due(11) == []
    assert agenda.pop_due(20) == ["b"]


def test_removed():
    agenda = Agenda()
    agenda.set("a", 1)
    agenda.remove("a")
    agenda.remove("unknown")
    assert len(agenda) == 0
    assert agenda.pop_due(1) == []


def test_what_is_gone_keeps_no_memory():
    agenda = Agenda()
    for number in range(10_000):
        agenda.set(str(number), 1000)
        agenda.remove(str(number))
    for number in range(10_000):
        agenda.set("same", number)
    assert len(agenda._heap) <= 2 + SLACK


def test_memory_is_given_back_seldom():
    """It costs as much as all names: not while each of them counts."""
    agenda = Agenda()
    heap = agenda._heap
    for number in range(1000):
        agenda.set(str(number), number)
    assert agenda._heap is heap


def test_in_order_after_memory_was_given_back():
    agenda = Agenda()
    names = [str(number) for number in range(1000)]
    for is_reversed in (True, False, True):
        for number, name in enumerate(names):
            agenda.set(name, -number if is_reversed else number)
    assert len(agenda._heap) < 3000
    assert agenda.pop_due(0) == names[::-1]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 20)), st.integers(0, 5))))
def test_like_a_dictionary(steps):
    agenda, model, now = Agenda(), {}, 0
    for name, due, passed in steps:
        if due is None:
            agenda.remove(name)
            model.pop(name, None)
        else:
            agenda.set(name, due)
            model[name] = due
        now += passed
        found = agenda.pop_due(now)
        assert sorted(found) == sorted(name for name, due in model.items() if due <= now)
        assert [model[name] for name in found] == sorted(model[name] for name in found)
        for name in found:
            del model[name]
        assert len(agenda) == len(model)
