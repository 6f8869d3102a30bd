"""What `make vm` says and does where there is no guest: no qemu, no space, a guest that fails or hangs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile

import pytest
from fakes.waiting import wait_until
from tools import source
from tools.vm import guest, image, job, kills, run

RUN = source.ROOT / "test/tools/vm/run.py"


def test_host_without_qemu(tmp_path):
    environ = {"PATH": str(tmp_path)}
    said = subprocess.run([sys.executable, RUN], env=environ, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == f"There is no {guest.PROGRAM} here, and no guest without it: see test/tools/packages vm\n"


def test_no_space_for_the_image(tmp_path):
    with pytest.raises(image.CannotMake, match="has 2047 MiB of free space, and the image of the guest takes 2048 MiB"):
        image.check(tmp_path, 0, image.NEEDED_SPACE - 1)
    image.check(tmp_path, 0, image.NEEDED_SPACE)


def test_only_root_makes_the_image(tmp_path):
    with pytest.raises(image.CannotMake, match="sudo make vm"):
        image.check(tmp_path, 1000, image.NEEDED_SPACE)


def test_image_is_made_once(tmp_path):
    made = image.find(tmp_path)
    made.folder.mkdir()
    made.disk.touch()
    assert image.make(tmp_path) == made


@pytest.mark.parametrize(
    "what, arguments",
    [
        ("", ["test/machine", "-m", "not long", f"--ignore=test/machine/{run.BESIDE}_test.py"]),
        ("restart", ["test/machine/restart_test.py", "-m", "not long"]),
        ("long", ["test/machine", "-m", "long"]),
        ("restart::test_it", ["test/machine/restart_test.py::test_it"]),
        ("shell", ["bash", "-c", "uname"]),
    ],
)
def test_what_runs(what, arguments):
    assert run.chosen(what, io.StringIO("uname")) == arguments


@pytest.mark.parametrize("what, minutes", [("", 15), ("power", 15), ("long", 60), ("power::test_it[ext4-all]", 60)])
def test_how_long_it_may_take(what, minutes):
    assert run.limit_of(what) == minutes * 60


def test_the_other_guest_has_tests():
    assert (source.ROOT / f"test/machine/{run.BESIDE}_test.py").exists()


def test_two_guests_at_once(capfd):
    """What the other one says comes in the end, and its failure counts."""
    with run.beside([sys.executable, "-c", "print('killed'); raise SystemExit(3)"]) as statuses:
        print("tested", flush=True)
    assert (capfd.readouterr().out, statuses) == ("tested\nkilled\n", [3])


def test_other_guest_is_interrupted(tmp_path):
    """It takes back what it did."""
    mark = tmp_path / "mark"
    code = "import os, sys, time\ntry: open(sys.argv[1], 'x'); time.sleep(100)\nfinally: os.remove(sys.argv[1])"
    with pytest.raises(KeyboardInterrupt), run.beside([sys.executable, "-c", code, str(mark)]):
        wait_until(mark.exists)
        raise KeyboardInterrupt
    assert not mark.exists()


def test_what_the_guest_gets(tmp_path):
    job.pack(tmp_path / "job.tar", source.ROOT, job.TESTS, {"job": b"exit 3"})
    with tarfile.open(tmp_path / "job.tar") as archive:
        assert archive.extractfile("job").read() == b"exit 3"
        assert archive.getmember("job").mode & 0o111
        names = archive.getnames()
    assert "test/machine/conftest.py" in names
    assert [name for name in names if "__pycache__" in name or name.startswith("ovirt_imageio")] == []


@pytest.fixture
def broken_image(tmp_path):
    """An image that no machine boots."""
    broken = image.Image(tmp_path / "image")
    broken.folder.mkdir()
    for path in (broken.kernel, broken.initramfs, broken.disk):
        path.write_bytes(bytes(4096))
    return broken


@pytest.fixture
def fake_qemu(tmp_path, monkeypatch):
    """Return a function that puts a script in the place of qemu; in it, $folder is where results go."""

    def use(text):
        program = tmp_path / "bin" / guest.PROGRAM
        program.parent.mkdir()
        program.write_text(f"#!/bin/bash\nfolder={tmp_path / 'last'}\n{text}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return use


@pytest.mark.storage
def test_guest_that_does_not_start(tmp_path, broken_image, capfd):
    assert run.run(broken_image, tmp_path / "last", ["test/machine"]) == 1
    said = capfd.readouterr().err
    assert "The guest did not finish: qemu ended with status 1." in said


@pytest.mark.storage
def test_console_of_a_guest_that_hangs(tmp_path, broken_image, fake_qemu, capfd):
    fake_qemu('echo "Kernel panic" >$folder/console; exec sleep 60')
    assert run.run(broken_image, tmp_path / "last", ["test/machine"], limit=3) == 1
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "Kernel panic",
        f"The guest did not finish: it had 3 s. {tmp_path / 'last'} has its console and log",
    ]
    assert (tmp_path / "last/console").read_text() == "Kernel panic\n"


@pytest.mark.storage
def test_results_of_tests_that_failed(tmp_path, broken_image, fake_qemu, capfd):
    fake_qemu(
        "cd $folder && echo 3 >status && echo slow >journal && tar -cf results status journal && rm status journal"
    )
    assert run.run(broken_image, tmp_path / "last", ["test/machine"]) == 3
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["journal", "status"]


@pytest.mark.storage
def test_results_that_were_cut(tmp_path, broken_image, fake_qemu, capfd):
    fake_qemu("echo >$folder/results no archive")
    assert run.run(broken_image, tmp_path / "last", ["test/machine"]) == 1
    assert "The results of the guest are not complete" in capfd.readouterr().err


@pytest.mark.storage
def test_processor_that_runs(monkeypatch, tmp_path):
    assert guest.can_run(guest.EMULATION)
    assert not guest.can_run(("-accel", "nonsense"))
    assert guest.accelerator(str(tmp_path / "no-device")) == guest.EMULATION


def test_initramfs_is_an_archive_that_the_kernel_reads():
    """Each head says what follows, and all is aligned to four bytes."""
    packed = b"".join(image.newc({"bin/": b"", "bin/it": b"hello"}))
    assert len(packed) % 4 == 0
    head, name, content = packed[112 + 4 :], b"bin/it\0", b"hello"
    assert packed[:6] == head[:6] == b"070701"
    fields = [int(head[start : start + 8], 16) for start in range(6, 110, 8)]
    assert (oct(fields[1]), fields[6], fields[11]) == ("0o100755", len(content), len(name))
    assert head[110 : 110 + len(name)] == name
    assert head[120 : 120 + len(content)] == content
    assert b"TRAILER!!!\0" in packed


@pytest.mark.storage
def test_guest_that_does_not_serve(tmp_path, broken_image, capsys):
    """Pulling its plug would prove nothing."""
    assert kills.run(broken_image, tmp_path / "kills", rounds=1) == 1
    said = capsys.readouterr().err
    assert said.startswith("After 0 kills: The guest does not serve")
    assert said.endswith(f"{tmp_path / 'kills'} has the console of the guest\n")
