"""What `make test` runs."""

from __future__ import annotations

import subprocess

import pytest
from tools import quick

FILES = {
    "ovirt_imageio/__init__.py": "",
    "ovirt_imageio/errors.py": "",
    "ovirt_imageio/nbd/__init__.py": "from ovirt_imageio.nbd import wire",
    "ovirt_imageio/nbd/wire.py": "from ovirt_imageio import errors",
    "ovirt_imageio/nbd/client.py": "from ovirt_imageio.nbd.wire import Request",
    "ovirt_imageio/nbd/export.py": "def serve():\n    from ovirt_imageio.nbd import wire",
    "ovirt_imageio/units.py": "",
    "test/conftest.py": "",
    "test/exports_test.py": "",
    "test/errors_test.py": "",
    "test/units_test.py": "",
    "test/fakes/clock.py": "",
    "test/fakes/peer.py": "from fakes import clock",
    "test/handlers/conftest.py": "",
    "test/nbd/init_test.py": "",
    "test/nbd/wire_test.py": "",
    "test/nbd/client_test.py": "from fakes.clock import FakeClock",
    "test/nbd/export_test.py": "from fakes import clock, peer",
    "test/docs/pages_test.py": "",
    "test/packaging/system_test.py": "",
}


@pytest.fixture
def root(tmp_path):
    """A small project with a package and its tests."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    "changed, tests",
    [
        ("ovirt_imageio/units.py", ["test/units_test.py"]),
        (
            "ovirt_imageio/nbd/wire.py",
            ["test/nbd/client_test.py", "test/nbd/export_test.py", "test/nbd/init_test.py", "test/nbd/wire_test.py"],
        ),
        ("ovirt_imageio/nbd/__init__.py", ["test/nbd/init_test.py"]),
        # Deleted, or without a test: what there is.
        ("ovirt_imageio/nbd/gone.py", []),
        ("test/nbd/wire_test.py", ["test/nbd/wire_test.py"]),
        ("test/nbd/gone_test.py", []),
        ("test/fakes/clock.py", ["test/nbd/client_test.py", "test/nbd/export_test.py"]),
        ("test/handlers/conftest.py", ["test/handlers"]),
        ("test/conftest.py", []),
        # These run anyway.
        ("test/exports_test.py", []),
        ("data/ovirt-imageio.service", ["test/packaging/system_test.py"]),
        ("docs/images.md", ["test/docs"]),
        ("LICENSE", []),
    ],
)
def test_tests_of_a_change(root, changed, tests):
    assert quick.tests_of(root, [changed]) == tests


def test_what_everybody_imports_is_tested_alone(root):
    for number in range(quick.IMPORTERS + 1):
        (root / f"ovirt_imageio/user{number}.py").write_text("from ovirt_imageio import units")
        (root / f"test/user{number}_test.py").write_text("")
    assert quick.tests_of(root, ["ovirt_imageio/units.py"]) == ["test/units_test.py"]


@pytest.mark.parametrize(
    "what, path",
    [
        ("nbd", "test/nbd"),
        ("nbd/", "test/nbd"),
        ("nbd/wire", "test/nbd/wire_test.py"),
        ("nbd/wire.py", "test/nbd/wire_test.py"),
        ("units", "test/units_test.py"),
        ("ovirt_imageio/nbd/wire.py", "test/nbd/wire_test.py"),
        ("test/nbd/wire_test.py", "test/nbd/wire_test.py"),
    ],
)
def test_chosen(root, what, path):
    assert quick.chosen(root, what) == path


def test_chosen_in_vain(root):
    with pytest.raises(SystemExit, match="There are no tests in test/lost"):
        quick.chosen(root, "lost")


def git(root, *arguments):
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    subprocess.run(("git", *identity, *arguments), cwd=root, check=True, timeout=30)


@pytest.mark.storage
def test_changed(root):
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "All")
    assert quick.changed(root) == []
    (root / "ovirt_imageio/units.py").write_text("KiB = 1024")
    (root / "ovirt_imageio/errors.py").unlink()
    git(root, "mv", "test/units_test.py", "test/sizes_test.py")
    (root / "test/new folder").mkdir()
    (root / "test/new folder/a b_test.py").write_text("")
    assert sorted(quick.changed(root)) == [
        "ovirt_imageio/errors.py",
        "ovirt_imageio/units.py",
        "test/new folder/a b_test.py",
        "test/sizes_test.py",
        "test/units_test.py",
    ]
