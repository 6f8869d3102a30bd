"""The image of the guest that `make vm` boots: a minimal Debian with systemd, made of packages, once.

A folder named after what it was made from holds the kernel, an initramfs that has nothing but the driver of the disk,
and the file system of the guest. Knows mmdebstrap and file formats; knows nothing of how the guest is run.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CannotMake", "Image", "check", "find", "make", "newc"]

SUITE = "trixie"

# What the daemon needs, what the tests in the guest use, and what the guest itself is made of. The kernel "cloud" has
# the drivers of virtual machines, among them the file system ext4, built in.
PACKAGES = (
    *("linux-image-cloud-amd64", "systemd", "systemd-sysv", "udev", "kmod", "dbus", "busybox-static"),
    *("python3", "python3-cryptography", "qemu-utils", "openssl", "make"),
    *("python3-pytest", "python3-pytest-timeout", "python3-hypothesis", "python3-h11"),
    # pycurl: a client with GnuTLS, other than curl.
    *("gnutls-bin", "python3-pycurl"),
    *("curl", "dmsetup", "e2fsprogs", "iproute2", "libnbd-bin", "nbd-client"),
    *("nftables", "procps", "rpm", "strace", "util-linux", "xfsprogs"),
)

# What is for readers is of no use in the guest.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")

# What would run beside the tests, wait for hardware, or prepare for people.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("systemd-tmpfiles-clean.timer", "e2scrub_reap.service", "getty@tty1.service", "serial-getty@ttyS0.service"),
    *("serial-getty@hvc0.service", "systemd-hwdb-update.service", "systemd-pstore.service", "nftables.service"),
    *("systemd-timesyncd.service", "nbd-client.service", "systemd-networkd.service", "systemd-logind.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-hostnamed.socket", "xfs_scrub_all.timer"),
    *("systemd-sysext.socket", "systemd-update-utmp.service", "systemd-user-sessions.service"),
)

# What the guest may grow to; the file is sparse.
SIZE = 3 * 1024**3

# What making it takes: the packages, the system that is made of them, and its image.
NEEDED_SPACE = 2 * 1024**3

# Runs first, and leaves the rest to systemd, or to the program that the kernel was told to run instead.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
/bin/busybox insmod /virtio_blk.ko
/bin/busybox mount -o noatime /dev/vda /root
init=/sbin/init
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in init=*) init=${word#init=} ;; esac
done
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root $init
"""

# Runs what is on the second disk, see run.py, when the system is up.
UNIT = """[Unit]
Description=What this machine was started for
Wants=multi-user.target
After=multi-user.target

[Service]
ExecStart=/bin/bash -c 'mkdir -p /imageio && tar -x -C /imageio -f /dev/vdb && exec /imageio/job'
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc0
ExecStopPost=/usr/sbin/poweroff --force --force
"""

TARGET = """[Unit]
Description=The system, and what this machine was started for
Requires=multi-user.target
Wants=machine.service
"""


class CannotMake(Exception):
    """The image cannot be made here, and why."""


@dataclass(frozen=True)
class Image:
    """The files of a guest."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"


def find(cache: Path) -> Image:
    """Return where the image belongs that this module makes, whether it is there or not."""
    recipe = (SUITE, PACKAGES, LEFT_OUT, MASKED, SIZE, INIT, UNIT, TARGET)
    return Image(cache / hashlib.sha256(repr(recipe).encode()).hexdigest()[:12])


def make(cache: Path) -> Image:
    """Return the image, which is made if it is not there. Raises CannotMake."""
    image = find(cache)
    if image.disk.exists():
        return image
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    check(cache, os.geteuid(), shutil.disk_usage(cache).free)
    print(f"Making a guest of Debian packages in {image.folder}, once: this takes a few minutes", flush=True)
    work = image.folder.with_suffix(".new")
    root = work / "root"
    work.mkdir()
    log = cache / "make.log"
    with log.open("wb") as output:
        try:
            make_system(root, output)
            set_up(root)
            pack(root, Image(work), output)
        except (OSError, subprocess.CalledProcessError) as error:
            last = log.read_text(errors="replace").splitlines()[-20:]
            raise CannotMake("\n".join([*last, f"Cannot make the guest: {error}; {log} has the rest"])) from error
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)
    # A folder of this name is complete.
    work.rename(image.folder)
    return image


def check(folder: Path, user: int, free: int) -> None:
    """Raise CannotMake if this user cannot make it, or with so many bytes of space."""
    if user != 0:
        raise CannotMake("Only root can make the system of the guest: sudo make vm. (To boot it takes no root.)")
    if free < NEEDED_SPACE:
        raise CannotMake(
            f"{folder} has {free // 1024**2} MiB of free space, and the image of the guest takes "
            f"{NEEDED_SPACE // 1024**2} MiB while it is made"
        )


def make_system(root: Path, output) -> None:
    """Install the packages. The environment tells the kernel's package to make no initramfs."""
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [SUITE, str(root)]
    environ = {**os.environ, "INITRD": "No"}
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)


def set_up(root: Path) -> None:
    """Make the system boot soon, and do what is on the second disk."""
    units = root / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "machine.service").write_text(UNIT)
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").write_text(TARGET)
    # Else the first boot brings up to date what the packages just made.
    for folder in ("etc", "var"):
        (root / folder / ".updated").touch()
    (root / "etc/hostname").write_text("machine\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost machine\n::1 localhost\n")
    (root / "etc/machine-id").write_text("0" * 31 + "1\n")


def pack(root: Path, image: Image, output) -> None:
    """Make the files of the image from the system."""
    (kernel,) = root.glob("boot/vmlinuz-*")
    shutil.copy(kernel, image.kernel)
    (driver,) = root.glob("usr/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz")
    folders = {name: b"" for name in ("bin/", "dev/", "proc/", "root/")}
    files = {
        "bin/busybox": (root / "usr/bin/busybox").read_bytes(),
        "virtio_blk.ko": lzma.decompress(driver.read_bytes()),
        "init": INIT.encode(),
    }
    image.initramfs.write_bytes(b"".join(newc({**folders, **files})))
    part = image.disk.with_suffix(".part")
    with part.open("wb") as disk:
        disk.truncate(SIZE)
    command = ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard", "-m", "0", "-d", root, part]
    subprocess.run(command, check=True, stdout=output, stderr=output)
    part.rename(image.disk)


def newc(files: dict[str, bytes]) -> Iterator[bytes]:
    """Yield an archive as the kernel reads it: cpio, "newc". Names of folders end with a slash, all is executable.

    See Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    for inode, (name, content) in enumerate({**files, "TRAILER!!!": b""}.items(), 1):
        mode = 0o040755 if name.endswith("/") else 0o100755
        encoded = name.rstrip("/").encode() + b"\0"
        # inode, mode, user, group, links, time, size, device, rdevice, length of the name, checksum
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields)
        yield padded(head + encoded)
        yield padded(content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
