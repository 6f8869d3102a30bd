"""The spec file: what rpm makes of it, that it packages what `make install` installs, and upgrades the release."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import subprocess

import pytest
from fakes import oldpackages
from tools import source

from ovirt_imageio import version

pytestmark = pytest.mark.storage

SPEC = source.ROOT / "ovirt-imageio.spec"
SITE = "/usr/lib/python3/site-packages"
PYTHON = "/usr/bin/python3"


def run(*command):
    result = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout


def sections(*options):
    """Return the sections of the spec, expanded, as a dict: first line -> following lines."""
    found = {}
    lines = found.setdefault("", [])
    for line in run("rpmspec", "-P", *options, str(SPEC)).splitlines():
        if re.match(r"%(package|description|prep|build|install|pre|post|preun|postun|files|changelog)\b", line):
            lines = found.setdefault(line.strip(), [])
        elif line:
            lines.append(line)
    return found


def packaged(spec):
    """Return {path: package} for everything that the %files sections name; excluded paths are left out."""
    found = {}
    for package in ("common", "client", "daemon"):
        for line in spec[f"%files {package}"]:
            path = line.split()[-1]
            if path.startswith("/") and "%exclude" not in line:
                found[path] = package
    return found


def test_version():
    assert run("rpmspec", "-q", "--srpm", "--qf", "%{version}", str(SPEC)) == version.__version__


def test_packages():
    spec = run("rpmspec", "-q", "--builtrpms", "--qf", "%{name} %{license} %{arch}\n", str(SPEC))
    assert spec.splitlines() == [
        f"ovirt-imageio-{name} GPL-2.0-or-later noarch" for name in ("common", "client", "daemon")
    ]


def test_enterprise_linux_wants_its_qemu():
    assert "Requires:       qemu-img >= 15:4.2.0" in sections("--define", "rhel 9")["%package client"]
    assert "Requires:       qemu-img" in sections()["%package client"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Everything that `make install` installs, as absolute paths."""
    root = tmp_path_factory.mktemp("root")
    run("make", "install", f"DESTDIR={root}", f"PYTHON={PYTHON}", f"PYTHON_LIB={SITE}")
    return {"/" + str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def test_every_file_is_in_one_package(installed):
    owners = packaged(sections("--define", f"python3_sitelib {SITE}"))
    missing = {"/usr/lib/firewalld/services/ovirt-imageio.xml"}
    for path in installed.keys() - missing:
        # rpm compresses manual pages.
        assert any(path == owner or path.startswith(owner + "/") or fnmatch.fnmatch(path, owner) for owner in owners), (
            f"{path} is in no package"
        )


def test_nothing_is_packaged_that_is_not_installed(installed):
    spec = sections("--define", f"python3_sitelib {SITE}")
    for package in ("common", "client", "daemon"):
        for line in spec[f"%files {package}"]:
            path = line.split()[-1]
            if path.startswith("/") and not line.startswith(("%dir", "%ghost", "%attr")):
                assert any(fnmatch.fnmatch(name, path + "*") for name in installed), line


def test_daemon_and_client_are_apart():
    owners = packaged(sections("--define", f"python3_sitelib {SITE}"))
    assert owners[f"{SITE}/ovirt_imageio"] == "common"
    assert owners[f"{SITE}/ovirt_imageio/client"] == "client"
    assert owners[f"{SITE}/ovirt_imageio/admin"] == "daemon"
    assert owners["/usr/bin/ovirt-img"] == "client"
    assert owners["/usr/bin/ovirt-imageio"] == owners["/usr/bin/ovirt-imageioctl"] == "daemon"


def test_programs_can_be_executed(installed):
    programs = {path: file.stat().st_mode & 0o777 for path, file in installed.items() if path.startswith("/usr/bin/")}
    assert programs == dict.fromkeys(
        ["/usr/bin/ovirt-img", "/usr/bin/ovirt-imageio", "/usr/bin/ovirt-imageioctl"], 0o755
    )


def test_the_whole_package_is_installed(installed):
    paths = (path.relative_to(source.ROOT) for path in source.PACKAGE.rglob("*") if path.is_file())
    package = {f"{SITE}/{path}" for path in paths if "__pycache__" not in path.parts}
    assert {path for path in installed if path.startswith(SITE)} == package


def run_script(name, argument, folder, *programs, fails=()):
    """Run a script of the package with these programs and no others; return what each of them was called with."""
    calls = folder / "calls"
    for program in programs:
        path = folder / program
        path.write_text(f'#!/bin/sh\necho {program} "$@" >>{calls}\nexit {int(program in fails)}\n')
        path.chmod(0o755)
    script = "\n".join(sections()[f"%{name} daemon"])
    done = subprocess.run(["/bin/sh", "-c", script, name, argument], env={"PATH": str(folder)}, timeout=30)
    assert done.returncode == 0
    return calls.read_text().splitlines() if calls.exists() else []


ACCOUNTS = ("getent", "groupadd", "useradd")


def test_install_makes_the_user_that_sysusers_would_make(tmp_path):
    lines = (source.ROOT / "data/sysusers.conf").read_text().splitlines()
    (user,) = (shlex.split(line) for line in lines if line.startswith("u "))
    _, name, _, comment, home, shell = user
    made = [call for call in run_script("pre", "1", tmp_path, *ACCOUNTS, fails=["getent"]) if "add" in call]
    assert made == [
        f"groupadd --system {name}",
        f"useradd --system --gid {name} --home-dir {home} --no-create-home --shell {shell} --comment {comment} {name}",
    ]


def test_a_user_that_is_there_is_kept(tmp_path):
    assert not [call for call in run_script("pre", "2", tmp_path, *ACCOUNTS) if "add" in call]


@pytest.mark.parametrize(
    "name, argument, calls",
    [
        ("post", "1", ["--no-reload preset ovirt-imageio.service"]),
        ("post", "2", ["--quiet stop ovirt-imageio-daemon.service"]),
        ("preun", "0", ["--no-reload disable --now ovirt-imageio.socket ovirt-imageio.service"]),
        ("preun", "1", []),
        ("postun", "0", ["daemon-reload"]),
        ("postun", "1", ["daemon-reload", "try-restart ovirt-imageio.service"]),
    ],
    ids=["install", "upgrade", "remove", "old one before upgrade", "after remove", "old one after upgrade"],
)
def test_service(tmp_path, name, argument, calls):
    """A failure of systemctl, as in a container that is being built, does not fail the installation."""
    called = run_script(name, argument, tmp_path, "systemctl", fails=["systemctl"])
    assert called == [f"systemctl {call}" for call in calls]


@pytest.mark.parametrize("name", ["post", "preun", "postun"])
def test_without_systemd(tmp_path, name):
    assert run_script(name, "0", tmp_path) == []


def test_programs_start_with_the_interpreter_of_the_system(installed):
    assert installed["/usr/bin/ovirt-imageio"].read_text().startswith(f"#!{PYTHON}\n")
    assert f"PYTHON={PYTHON} " in "\n".join(sections("--define", f"__python3 {PYTHON}")["%install"])


# --- The packages ---

# Where Enterprise Linux 9 has it.
EL_SITE = "/usr/lib/python3.9/site-packages"

# What rpm asks of a system, and finds in our test on none.
FLAGS = ("--noscripts", "--nodeps")


def build(folder, spec, *options):
    """Return the packages that rpmbuild makes of a spec file, by their last names."""
    run("rpmbuild", "-bb", "--nodeps", "--define", f"_topdir {folder}", *options, str(spec))
    return {path.name.split("-")[2]: path for path in folder.glob("RPMS/*/*.rpm")}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The packages of the working tree."""
    folder = tmp_path_factory.mktemp("rpm")
    return build(folder, SPEC, "--build-in-place", "--define", f"python3_sitelib {EL_SITE}")


def files(package):
    """Return what a package has: {path: (mode, owner, group, is it a ghost?)}."""
    line = "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME} %{FILEGROUPNAME} %{FILEFLAGS:fflags}-\n]"
    found = {}
    for text in run("rpm", "-qp", "--qf", line, str(package)).splitlines():
        path, mode, owner, group, flags = text.split()
        found[path] = mode, owner, group, "g" in flags
    return found


def test_owners_and_modes(packages):
    for name in ("common", "client", "daemon"):
        for path, (mode, owner, group, is_ghost) in files(packages[name]).items():
            is_log = path.startswith("/var/log/ovirt-imageio")
            assert (owner, group) == (("ovirtimg", "ovirtimg") if is_log else ("root", "root")), path
            assert is_ghost == ("daemon.log" in path), path
            if path.startswith("/usr/share/doc/"):
                # Among the examples are programs.
                assert mode[1:] in ("rwxr-xr-x", "rw-r--r--"), path
            elif mode.startswith("d") or path.startswith("/usr/bin/"):
                assert mode[1:] == "rwxr-xr-x", path
            else:
                assert mode == "-rw-r--r--", path


def test_folders_that_other_packages_fill(packages):
    daemon = files(packages["daemon"])
    for path in ("/etc/ovirt-imageio", "/etc/ovirt-imageio/conf.d", "/usr/lib/ovirt-imageio/conf.d"):
        assert daemon[path] == ("drwxr-xr-x", "root", "root", False)


def test_what_is_needed(packages):
    def relations(name, kind):
        return run("rpm", "-qp", f"--{kind}", str(packages[name])).splitlines()

    for name in ("client", "daemon"):
        assert f"ovirt-imageio-common = {version.__version__}-1" in relations(name, "requires")
    assert "systemd" in relations("daemon", "requires")
    assert "qemu-img" in relations("client", "requires")
    # Of each kind of storage that a message of qemu/version.py names.
    assert relations("daemon", "suggests") == [f"qemu-block-{kind}" for kind in ("curl", "iscsi", "nfs", "rbd", "ssh")]
    assert relations("client", "obsoletes") == ["python3.11-ovirt-imageio-client < 2.5.1"]
    assert relations("common", "obsoletes") == ["python3.11-ovirt-imageio-common < 2.5.1"]


@pytest.fixture(scope="module")
def old_packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    (folder / "old.spec").write_text(oldpackages.spec())
    return build(folder, folder / "old.spec")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install packages")
def test_upgrade_over_the_release(packages, old_packages, tmp_path):
    """What the administrator, vdsm and the engine have written is kept, and nothing old is left."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("ovirtimg:x:123:123::/:/sbin/nologin\n")
    (tmp_path / "etc/group").write_text("ovirtimg:x:123:\n")
    run("rpm", "--root", str(tmp_path), *FLAGS, "-U", *map(str, old_packages.values()))
    mine = {"etc/ovirt-imageio/conf.d/99-mine.conf": "mine\n", "var/log/ovirt-imageio/daemon.log": "a line\n"}
    for path, text in mine.items():
        (tmp_path / path).write_text(text)
    run("rpm", "--root", str(tmp_path), *FLAGS, "-U", *map(str, packages.values()))
    names = {f"ovirt-imageio-{name}-{version.__version__}-1.noarch" for name in packages}
    assert set(run("rpm", "--root", str(tmp_path), "-qa").splitlines()) == names
    assert {path: (tmp_path / path).read_text() for path in mine} == mine
    # These packages own files only.
    assert not [path for path in (tmp_path / oldpackages.SITE[1:]).rglob("*") if path.is_file()]
    for path in (path for paths in oldpackages.FILES.values() for path in paths if "site-packages" not in path):
        assert (tmp_path / path[1:]).read_text() != "old\n"
    log = (tmp_path / "var/log/ovirt-imageio").stat()
    assert (log.st_uid, log.st_gid, log.st_mode & 0o777) == (123, 123, 0o755)
    # Removed, it leaves what was written by others.
    run("rpm", "--root", str(tmp_path), *FLAGS, "-e", *names)
    assert (tmp_path / "etc/ovirt-imageio/conf.d/99-mine.conf").exists()
    assert not (tmp_path / "var/log/ovirt-imageio").exists()
    assert not (tmp_path / f"{EL_SITE}/ovirt_imageio"[1:]).exists()
