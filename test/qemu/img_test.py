"""Images are created and described by qemu-img, and its complaints become ours."""

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import img

pytestmark = pytest.mark.storage


@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk"])
def test_create(tmp_path, format):
    path = str(tmp_path / "disk")
    img.create(path, format, 1024**2)
    info = img.info(path)
    assert (info["format"], info["virtual-size"]) == (format, 1024**2)


def test_create_on_backing_file(tmp_path):
    base, top = str(tmp_path / "base"), str(tmp_path / "top")
    img.create(base, "raw", 1024**2)
    img.create(top, "qcow2", backing_file=base, backing_format="raw")
    info = img.info(top)
    assert (info["backing-filename"], info["virtual-size"]) == (base, 1024**2)


def test_told_format(tmp_path):
    path = str(tmp_path / "disk")
    img.create(path, "qcow2", 1024**2)
    assert img.info(path, "raw")["format"] == "raw"


def test_name_like_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    img.create("-disk", "raw", 512)
    assert img.info("-disk")["virtual-size"] == 512


def test_missing(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match=r"look at the image: Could not open .*No such file"):
        img.info(str(tmp_path / "none"))


def test_name_that_would_drive_the_terminal(tmp_path):
    with pytest.raises(errors.BackendUnavailable) as error:
        img.info(str(tmp_path / "\x1b[2J"))
    assert error.value.reason.isprintable()


def test_unknown_format(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match=r"create the image: .*Unknown file format 'zip'"):
        img.create(str(tmp_path / "disk"), "zip", 512)


def test_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run qemu-img.*install it"):
        img.info("disk")


def test_convert(tmp_path):
    raw, target = tmp_path / "disk.raw", str(tmp_path / "disk.qcow2")
    raw.write_bytes(b"disk" * 1024)
    img.convert(str(raw), "raw", target, "qcow2")
    assert (img.info(target)["format"], img.info(target)["virtual-size"]) == ("qcow2", 4096)
    with pytest.raises(errors.BackendUnavailable, match="convert the image"):
        img.convert(str(tmp_path / "missing"), "raw", target, "qcow2")


def test_measure(tmp_path):
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", 2 * 1024**2)
    assert img.measure(str(path), "raw")["required"] == 2 * 1024**2
    assert img.measure(str(path), "qcow2", "qcow2")["fully-allocated"] == 2424832
    with pytest.raises(errors.BackendUnavailable):
        img.measure(str(path), "nonsense")


@pytest.mark.parametrize("answer", [b"", b"[]", b"nothing", b"\xff", b"[" * 100_000])
def test_output_that_is_not_an_object(answer):
    with pytest.raises(errors.BackendUnavailable, match=r"look at the image: .* not a JSON object"):
        img.parse("look at the image", answer)


def test_require(monkeypatch):
    img.require()
    monkeypatch.setenv("PATH", "/gone")
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run qemu-img: No such file.*; install it"):
        img.require()
