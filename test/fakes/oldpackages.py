"""Packages for rpm with the names of those of release 2.5 and some of their files, which only say that they are old."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FILES", "FOLDERS", "SITE", "spec"]

# Where the release has its files on Enterprise Linux 9. Each belongs to the package to which ours of the same kind do.
SITE = "/usr/lib64/python3.9/site-packages/ovirt_imageio"
FILES = {
    "common": [f"{SITE}/_internal/backends/__init__.py", f"{SITE}/_internal/ioutil.so"],
    "client": [f"{SITE}/client/__init__.py", "/usr/bin/ovirt-img"],
    "daemon": [
        f"{SITE}/admin/__init__.py",
        "/etc/ovirt-imageio/README",
        "/usr/bin/ovirt-imageio",
        "/usr/bin/ovirt-imageioctl",
        "/usr/lib/systemd/system/ovirt-imageio.service",
    ],
}
FOLDERS = ["/etc/ovirt-imageio", "/etc/ovirt-imageio/conf.d", "/usr/lib/ovirt-imageio/conf.d"]

HEAD = """Name: ovirt-imageio
Version: 2.5.0
Release: 1
Summary: Old
License: Old
BuildArch: noarch
%description
Old.
%install
"""

# What Fedora's macros do when another version has taken the place of this one.
SCRIPT = """%postun daemon
if [ "$1" -ge 1 ] && command -v systemctl >/dev/null; then
    systemctl daemon-reload || :
    systemctl try-restart ovirt-imageio.service || :
fi
"""


def spec(texts: Mapping[str, str] = {}) -> str:
    """Return a spec file; texts: what is in some of the files."""
    parts = [HEAD]
    parts += [f"mkdir -p %{{buildroot}}{folder}\n" for folder in [*FOLDERS, "/var/log/ovirt-imageio"]]
    for path in (path for paths in FILES.values() for path in paths):
        mode = "755" if path.startswith("/usr/bin/") else "644"
        parts += [f"install -D -m {mode} /dev/stdin %{{buildroot}}{path} <<'END'\n{texts.get(path, 'old')}\nEND\n"]
    for name, paths in FILES.items():
        files = "\n".join(paths)
        parts += [f"%package {name}\nSummary: Old\n%description {name}\nOld.\n%files {name}\n{files}\n"]
    # Those of the last package.
    parts += [f"%dir {folder}\n" for folder in FOLDERS]
    parts += ["%attr(755, ovirtimg, ovirtimg) %dir /var/log/ovirt-imageio\n", SCRIPT]
    return "".join(parts)
