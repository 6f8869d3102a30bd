"""What a URL of an image says to qemu, and that nothing else hides in it."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import urls

INET = {"type": "inet"}


@pytest.mark.parametrize(
    "text, node",
    [
        ("rbd:vms/disk", {"driver": "rbd", "pool": "vms", "image": "disk"}),
        (
            "rbd:vms/tenant/disk@day:id=imageio:conf=/etc/ceph/b.conf",
            {
                "driver": "rbd",
                "pool": "vms",
                "namespace": "tenant",
                "image": "disk",
                "snapshot": "day",
                "user": "imageio",
                "conf": "/etc/ceph/b.conf",
            },
        ),
        (
            "iscsi://storage/iqn.2001-04.com.example:disk/1",
            {
                "driver": "iscsi",
                "transport": "tcp",
                "portal": "storage:3260",
                "target": "iqn.2001-04.com.example:disk",
                "lun": 1,
            },
        ),
        ("nfs://nas/export/a.raw", {"driver": "nfs", "server": {**INET, "host": "nas"}, "path": "/export/a.raw"}),
        ("https://host:8443/a.qcow2?x=1", None),
        ("http://[::1]/a", None),
        (
            "ssh://backup@host:2222/images/a",
            {"driver": "ssh", "server": {"host": "host", "port": "2222"}, "path": "/images/a", "user": "backup"},
        ),
        ("ssh://host/a", {"driver": "ssh", "server": {"host": "host", "port": "22"}, "path": "/a"}),
        ("nbd:unix:/run/sock", {"driver": "nbd", "server": {"type": "unix", "path": "/run/sock"}}),
        (
            "nbd+unix:///a%20b?socket=/run/sock",
            {"driver": "nbd", "server": {"type": "unix", "path": "/run/sock"}, "export": "a b"},
        ),
        ("nbd://host", {"driver": "nbd", "server": {**INET, "host": "host", "port": "10809"}}),
        ("nbd:host:1:exportname=x", {"driver": "nbd", "server": {**INET, "host": "host", "port": "1"}, "export": "x"}),
    ],
)
def test_nodes(text, node):
    if node is None:
        node = {"driver": text.partition(":")[0], "url": text, "timeout": urls.HTTP_TIMEOUT}
    assert urls.parse(text) == (text, None, node)


@pytest.mark.parametrize("text", ["file:///a b", "file:/a b", "file://localhost/a b"])
def test_files(text):
    assert urls.parse(text) == (text, "/a b", {})


@pytest.mark.parametrize(
    "text",
    [
        *("", "disk", "/disk", "fat:/etc", "json:{}", "gluster://host/x", "RBD:a/b"),
        *("file:disk", "file://host/disk", "file:////disk", "file:///disk?x", "file:///a\0b"),
        # Any option of Ceph could stand behind a colon: where its log goes, for example.
        *("rbd:disk", "rbd:a/b:log_file=/x", "rbd:a/b:conf=x", "rbd:a/b:id=a:mon_host=h", "rbd:a/b\\:c", "rbd:a/b/c/d"),
        *("rbd:a/b:conf=/x:log_file=/y", "rbd:a /b", "rbd:a/b@", "rbd:a/b:conf=/a:id=b"),
        *("iscsi://user%pass@host/iqn/1", "iscsi://host/iqn", "iscsi://host/iqn/x", "iscsi://host:0/iqn/1"),
        *("nfs://host", "nfs://host/a?uid=0", "nfs://host:1/a", "nfs://host/%61"),
        *("https://user:secret@host/a", "https:///a", "https://host/a b", "https://host:x/"),
        *("ssh://user:secret@host/a", "ssh://host/a?host_key_check=no", "ssh://host:99999/a"),
        *("nbd:", "nbd:unix:sock", "nbd://", "nbd://host/a?tls-creds=x", "nbds://host/a"),
    ],
)
def test_refused(text):
    with pytest.raises(errors.InvalidValue) as e:
        urls.parse(text)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    "text, place, name",
    [
        ("rbd:vms/disk:id=a:conf=/etc/x", "rbd:vms/", "disk"),
        ("https://host:1/a/disk.qcow2?x", "https://host:1/", "disk.qcow2"),
        ("nfs://nas/export/disk", "nfs://nas/", "disk"),
        ("https://host/images/1b4e28ba", "https://host/", "disk"),
        ("nbd://host/vda", "nbd://host/", "vda"),
        ("file:///a/disk", "file:///", "disk"),
    ],
)
def test_place_and_name(text, place, name):
    url = urls.parse(text)
    assert (url.place, url.name) == (place, name)
    assert url.shown == (f"{place}(path)" if text.startswith("http") else text)
