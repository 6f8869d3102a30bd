"""The profiler, with yappi where it is installed, and with a fake one everywhere."""

import importlib.util
import pstats

import pytest

from ovirt_imageio import errors
from ovirt_imageio.service.profiler import Profiler


class FakeYappi:
    """Does as little as yappi must."""

    def __init__(self):
        self.calls = []
        self.running = False

    def is_running(self):
        return self.running

    def set_clock_type(self, clock):
        self.calls.append(("clock", clock))

    def start(self, builtins, profile_threads):
        self.running = True

    def stop(self):
        self.running = False

    def get_func_stats(self):
        return self

    def save(self, filename, type):
        with open(filename, "w") as file:
            file.write(type)

    def clear_stats(self):
        self.calls.append("clear")


@pytest.fixture
def yappi():
    return FakeYappi()


@pytest.fixture
def profiler(tmp_path, yappi):
    return Profiler(str(tmp_path / "profile"), lambda name: yappi)


def test_start_and_stop(profiler, yappi, tmp_path):
    assert not profiler.is_running()
    profiler.start("wall")
    assert profiler.is_running()
    profiler.stop()
    assert not profiler.is_running()
    assert yappi.calls == [("clock", "wall"), "clear"]
    assert (tmp_path / "profile").read_text() == "pstat"


def test_wrong_state(profiler):
    with pytest.raises(errors.InvalidValue, match="not running"):
        profiler.stop()
    profiler.start("cpu")
    with pytest.raises(errors.InvalidValue, match="running already"):
        profiler.start("cpu")


def test_no_place_for_the_file(yappi, tmp_path):
    profiler = Profiler(str(tmp_path / "missing" / "profile"), lambda name: yappi)
    profiler.start("cpu")
    with pytest.raises(errors.StorageError, match="write the profile: No such file"):
        profiler.stop()
    # It can be started again.
    assert yappi.calls[-1] == "clear"
    profiler.start("cpu")


def test_not_installed(tmp_path):
    def load(name):
        raise ImportError(name)

    profiler = Profiler(str(tmp_path / "profile"), load)
    for call in (profiler.is_running, lambda: profiler.start("cpu"), profiler.stop):
        with pytest.raises(errors.NotFound, match="yappi is not installed"):
            call()


@pytest.mark.skipif(importlib.util.find_spec("yappi") is None, reason="yappi is not installed")
def test_real_yappi(tmp_path):
    profiler = Profiler(str(tmp_path / "profile"))
    profiler.start("cpu")
    sorted(range(1000))
    profiler.stop()
    assert pstats.Stats(str(tmp_path / "profile")).total_calls > 0
