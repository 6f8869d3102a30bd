"""The whole of an image as a tree of nodes, and that what an image says of itself is not followed."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import chain, img, urls
from ovirt_imageio.qemu.node import as_json

SIZE = 1024**2


def look(tree):
    return img.info(as_json(tree))


def build(path, format="qcow2", admit=lambda url: url, **options):
    return chain.build(urls.parse(f"file://{path}"), format, look, admit, **options)


def file(path):
    return {"driver": "file", "filename": str(path)}


@pytest.fixture
def images(tmp_path):
    """Return the paths of three images, each of which stands on the next one."""
    base, middle, top = tmp_path / "base", tmp_path / "middle", tmp_path / "top"
    img.create(str(base), "raw", SIZE)
    img.create(str(middle), "qcow2", backing_file="base", backing_format="raw")
    img.create(str(top), "qcow2", backing_file=str(middle), backing_format="qcow2")
    return top, middle, base


def test_chain(images):
    top, middle, base = images
    asked = []
    tree = build(top, admit=lambda url: asked.append(url.path) or url)
    assert tree == {
        "driver": "qcow2",
        "file": file(top),
        "backing": {
            "driver": "qcow2",
            "file": file(middle),
            "backing": {"driver": "raw", "file": file(base)},
        },
    }
    assert asked == [str(middle), str(base)]


def test_no_chain(images):
    assert build(images[2], "raw") == {"driver": "raw", "file": file(images[2])}
    img.create(str(images[2]), "qcow2", SIZE)
    assert build(images[2]) == {"driver": "qcow2", "file": file(images[2]), "backing": None}


def test_encrypted(images):
    assert build(images[2], "luks", is_encrypted=True) == {
        "driver": "luks",
        "key-secret": "secret",
        "file": file(images[2]),
    }
    url = urls.parse(f"file://{images[2]}")
    tree = chain.build(url, "qcow2", lambda tree: {}, lambda url: url, is_encrypted=True)
    assert tree["encrypt"] == {"format": "luks", "key-secret": "secret"}


def test_not_permitted(images):
    with pytest.raises(errors.UnsafeImage, match="not permitted"):
        build(images[0], admit=lambda url: None if url.path == str(images[2]) else url)


def test_without_format(images):
    with pytest.raises(errors.UnsafeImage, match="without its format"):
        told(images[0], **{"backing-filename": "/base"})


@pytest.mark.parametrize("format", ["vmdk", "file", "host_device"])
def test_other_format(images, format):
    with pytest.raises(errors.UnsafeImage, match="name one of raw, qcow2, luks"):
        told(images[0], **{"backing-filename": "/base", "backing-filename-format": format})


@pytest.mark.parametrize(
    "name", ["json:{}", "fat:/etc", "nbds://host/x", "https://user:x@host/a", "rbd:a/b:log_file=/x"]
)
def test_stands_on_anything_else(images, name):
    with pytest.raises(errors.UnsafeImage, match="cannot be used"):
        told(images[0], **{"backing-filename": name, "backing-filename-format": "raw"})


def test_data_elsewhere(images):
    with pytest.raises(errors.UnsafeImage, match="its data is in another file"):
        told(images[0], **{"format-specific": {"data": {"data-file": "/etc/shadow"}}})


def test_relative_name_on_a_network():
    """qemu knows what it means there."""
    answers = [{"backing-filename": "b", "full-backing-filename": "https://h/x/b", "backing-filename-format": "raw"}]
    url = urls.parse("https://h/x/a")
    tree = chain.build(
        url, "qcow2", lambda tree: answers.pop(), lambda url: url if url.text == "https://h/x/b" else None
    )
    assert tree["backing"]["file"]["url"] == "https://h/x/b"


def test_circle(images):
    with pytest.raises(errors.UnsafeImage, match="on itself"):
        told(images[0], **{"backing-filename": "top", "backing-filename-format": "qcow2"})


def told(path, **info):
    """Return the tree of an image of which qemu-img tells this."""
    return chain.build(urls.parse(f"file://{path}"), "qcow2", lambda tree: info, lambda url: url)
