"""Which files an image may use; test/client/hostile/images has images that use others."""

from __future__ import annotations

import pytest

from ovirt_imageio.errors import UnsafeImage
from ovirt_imageio.qemu.references import MAX_LAYERS, check


def run(info, layers=(), *, is_member=False, backing_chain=True, path="/images/top"):
    """Check an image whose lower layers are these; return what was looked at."""
    looked = []
    rest = list(layers)

    def look(path, format):
        looked.append((path, format))
        return rest.pop(0)

    check(path, info, look, is_member=is_member, backing_chain=backing_chain)
    return looked


def test_complete_image():
    assert run({}) == []
    assert run({}, is_member=True) == []


def test_chain():
    layers = [{"backing-filename": "../base"}, {}]
    top = {"backing-filename": "/other/middle", "backing-filename-format": "qcow2"}
    assert run(top, layers) == [("/other/middle", "qcow2"), ("/other/../base", None)]


def test_chain_that_is_not_followed():
    assert run({"backing-filename": "nbd://host"}, backing_chain=False) == []
    assert run({"backing-filename": "/base"}, backing_chain=False, is_member=True) == []


@pytest.mark.parametrize("name", ["/a:b", "./a:b", "a/b:c", "file:/a", "base"])
def test_names_of_files(name):
    assert len(run({"backing-filename": name}, [{}])) == 1


@pytest.mark.parametrize(
    "name", ["json:{}", "nbd://host", "https://host/a", "a:b", "file:json:{}", "fat:/etc", ":a", "a\0b", "\ud800"]
)
def test_names_of_anything_else(name):
    with pytest.raises(UnsafeImage, match="not a file"):
        run({"backing-filename": name})


def test_name_that_would_drive_the_terminal():
    with pytest.raises(UnsafeImage) as error:
        run({"backing-filename": "/\x1b[2J"}, [{"backing-filename": "nbd://host"}])
    assert str(error.value).isprintable()


def test_endless_chain():
    layers = [{"backing-filename": f"/layer/{number}"} for number in range(MAX_LAYERS + 1)]
    with pytest.raises(UnsafeImage, match="more than 200 other files"):
        run(layers[0], layers[1:])


def test_circle():
    with pytest.raises(UnsafeImage, match="on itself"):
        run({"backing-filename": "top"}, [{"backing-filename": "/images/top"}] * 2)


def specific(**data):
    return {"filename": "/images/top", "format-specific": {"data": data}}


@pytest.mark.parametrize(
    "info",
    [
        specific(**{"data-file": "data"}),
        specific(**{"data-file": "/images/data"}),
        specific(extents=[{"filename": "/images/top"}, {"filename": "/images/top-flat"}, {}]),
        {"format-specific": {}},
    ],
)
def test_parts_in_the_folder(info):
    assert run(info) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../data", "sub/data", "nbd://host", "json:{}"])
def test_parts_elsewhere(name):
    for info in (specific(**{"data-file": name}), specific(extents=[{"filename": name}])):
        with pytest.raises(UnsafeImage):
            run(info)
        with pytest.raises(UnsafeImage):
            run({"backing-filename": "/images/base"}, [info])


def test_folder_behind_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in (tmp_path / "link" / "data", tmp_path / "real" / "data"):
        assert run(specific(**{"data-file": str(name)}), path=str(tmp_path / "link" / "top")) == []
