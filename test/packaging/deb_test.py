"""The Debian packages: what dpkg-buildpackage makes of the recipe in data/debian, from the working tree."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile

import pytest
from tools import source

from ovirt_imageio import version

# Building takes some seconds, or minutes where the machine is busy.
pytestmark = [
    pytest.mark.storage,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("dh_python3"), reason="only Debian has the tools for Debian packages"),
]

PACKAGES = ("common", "client", "daemon")
SITE = "/usr/lib/python3/dist-packages"

# What the recipe takes from the archive of `make dist`.
SOURCES = ("LICENSE", "Makefile", "README.md", "conf", "daemon", "data", "docs", "ovirt_imageio")


def run(*command, cwd=source.ROOT):
    result = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, timeout=250)
    assert result.returncode == 0, result.stdout.decode() + result.stderr.decode()
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder with the packages."""
    folder = tmp_path_factory.mktemp("deb")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (source.ROOT / name).is_dir() else shutil.copy
        copy(source.ROOT / name, tree / name)
    shutil.copytree(tree / "data/debian", tree / "debian")
    run("dpkg-buildpackage", "--no-check-builddeps", "--build=binary", "--no-sign", cwd=tree)
    return folder


def open_part(folder, package, option):
    """Return the files of a package, or its scripts, as a tar file."""
    path = folder / f"ovirt-imageio-{package}_{version.__version__}_all.deb"
    return tarfile.open(fileobj=io.BytesIO(run("dpkg-deb", option, path)))


@pytest.fixture(scope="module")
def files(folder):
    """{path: (package, its entry)} of everything but folders; no path is in two packages."""
    found = {}
    for package in PACKAGES:
        with open_part(folder, package, "--fsys-tarfile") as archive:
            for entry in archive:
                if not entry.isdir():
                    path = entry.name[1:]
                    assert path not in found
                    found[path] = package, entry
    return found


def read(folder, package, option, name):
    with open_part(folder, package, option) as archive:
        return archive.extractfile(f"./{name}").read()


def field(folder, package, name):
    return run("dpkg-deb", "-f", folder / f"ovirt-imageio-{package}_{version.__version__}_all.deb", name).decode()


def script(folder, name):
    """Return a script of the daemon's package; those that debhelper has written included."""
    return read(folder, "daemon", "--ctrl-tarfile", name).decode()


# What debhelper adds.
FROM_DEBHELPER = ("/usr/share/doc/", "/usr/share/lintian/", "/usr/share/python3/")


def test_what_make_installs_is_packaged(files, tmp_path):
    places = [f"DESTDIR={tmp_path}", f"PYTHON_LIB={SITE}", "ZSH=zsh/vendor-completions"]
    run("make", "install", "PYTHON=/usr/bin/python3", *places)
    installed = {"/" + str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    # It comes with firewalld, and two packages must not have one file.
    installed.remove("/usr/lib/firewalld/services/ovirt-imageio.xml")
    # One folder, with two names.
    packaged = {path.replace("/lib/systemd", "/usr/lib/systemd") if path[:5] == "/lib/" else path for path in files}
    assert {path.removesuffix(".gz") for path in packaged if not path.startswith(FROM_DEBHELPER)} == installed


def test_client_and_daemon_are_apart(files):
    owners = {path: package for path, (package, _) in files.items()}
    assert owners[f"{SITE}/ovirt_imageio/service/cli.py"] == "common"
    assert owners[f"{SITE}/ovirt_imageio/client/cli.py"] == owners["/usr/bin/ovirt-img"] == "client"
    assert owners[f"{SITE}/ovirt_imageio/admin/cli.py"] == "daemon"
    assert owners["/usr/bin/ovirt-imageio"] == owners["/usr/bin/ovirt-imageioctl"] == "daemon"


def test_owners_and_modes(files):
    """Everything is root's: what belongs to the user of the daemon is made by sysusers and tmpfiles."""
    for path, (_, entry) in files.items():
        assert (entry.uname, entry.gname) == ("root", "root"), path
        assert entry.issym() or entry.mode == (0o755 if path.startswith("/usr/bin/") else 0o644), path


def test_folders_for_configuration(folder):
    with open_part(folder, "daemon", "--fsys-tarfile") as archive:
        for name in ("./etc/ovirt-imageio/conf.d", "./usr/lib/ovirt-imageio/conf.d"):
            assert archive.getmember(name).mode == 0o755


def test_configuration_is_kept(folder):
    """dpkg asks before it replaces what is named here, and touches nothing else in /etc."""
    assert script(folder, "conffiles") == "/etc/ovirt-imageio/README\n"


def test_versions_agree(folder):
    for package in ("client", "daemon"):
        depends = field(folder, package, "Depends").strip().split(", ")
        assert f"ovirt-imageio-common (= {version.__version__})" in depends
        assert any(name.startswith("python3:any") for name in depends)


def test_programs_start_with_the_interpreter_of_the_system(folder):
    for package, name in (("daemon", "ovirt-imageio"), ("daemon", "ovirt-imageioctl"), ("client", "ovirt-img")):
        text = read(folder, package, "--fsys-tarfile", f"usr/bin/{name}")
        # dh_python3 of Debian 13 puts a space there, which means the same.
        assert text.splitlines()[0].replace(b"#! ", b"#!") == b"#!/usr/bin/python3"


def test_user_and_log_folder_are_made_before_the_service_is_touched(folder):
    text = script(folder, "postinst")
    steps = ["systemd-sysusers ", "systemd-tmpfiles ", "deb-systemd-invoke try-restart 'ovirt-imageio.service'"]
    assert sorted(map(text.index, steps)) == list(map(text.index, steps))


def test_install_starts_nothing(folder):
    """Without a certificate it would fail. An upgrade restarts what runs, and the socket goes on listening."""
    text = script(folder, "postinst")
    assert text.count("deb-systemd-invoke") == 1
    assert "helper enable 'ovirt-imageio.service'" in text.partition("was-enabled 'ovirt-imageio.service'; then")[2]
    with open_part(folder, "daemon", "--ctrl-tarfile") as archive:
        assert "./preinst" not in archive.getnames()


def test_removal_stops_and_purge_forgets(folder):
    assert "invoke stop ovirt-imageio.socket ovirt-imageio.service" in script(folder, "prerm")
    assert "rm -rf /var/log/ovirt-imageio\n" in script(folder, "postrm").partition('"$1" = purge')[2]


def test_scripts_are_sound(folder, tmp_path):
    for name in ("postinst", "prerm", "postrm"):
        (tmp_path / name).write_text(script(folder, name))
        run("sh", "-n", tmp_path / name)


def test_pages_are_there_as_they_are(folder, files):
    """They link to one another, so none is compressed."""
    doc = "usr/share/doc/ovirt-imageio-common"
    text = read(folder, "common", "--fsys-tarfile", f"{doc}/docs/install.md")
    assert text == (source.ROOT / "docs/install.md").read_bytes()
    changes = gzip.decompress(read(folder, "common", "--fsys-tarfile", f"{doc}/changelog.Debian.gz")).decode()
    assert changes.startswith(f"ovirt-imageio ({version.__version__}) ")
    assert f"/{doc}/examples/60-vdsm.conf" in files
