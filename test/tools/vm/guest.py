"""A guest of qemu: how it is started, with what, and how it ends.

Knows the arguments of qemu; knows nothing of what the guest does.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tools.vm.image import Image

__all__ = ["PROGRAM", "accelerator", "arguments", "can_run"]

PROGRAM = "qemu-system-x86_64"

# A boot sector that writes a byte to the device isa-debug-exit: mov al, 16; out 0xf4, al; hlt. The status of qemu is
# twice that byte plus one.
SECTOR = b"\xb0\x10\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
SECTOR_STATUS = 33

# A processor that runs needs a tenth of this; one that does not waits for ever.
PROBE_SECONDS = 5

# A panic ends the guest. The clock is one that needs no calibration: on a busy machine that of an emulated processor is
# measured wrongly, by far, and no time-out means what it says. The secrets of the guest are not worth a defense, and no
# test uses the devices of these drivers.
KERNEL = (
    "console=ttyS0 loglevel=4 panic=-1 systemd.show_status=1 clocksource=acpi_pm tsc=unstable nowatchdog "
    "no_timer_check mitigations=off nokaslr modprobe.blacklist=ata_piix,kvm_amd,psmouse,powernow_k8,cryptd"
)

EMULATION = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off,svm=off")
VIRTUALIZATION = ("-accel", "kvm", "-cpu", "host")


def accelerator(device: str = "/dev/kvm") -> Sequence[str]:
    """Return the arguments for the fastest processor that really runs here.

    A machine that is a guest itself may have the device, let every user open it, and still never run an instruction.
    """
    if Path(device).exists() and can_run(VIRTUALIZATION):
        return VIRTUALIZATION
    return EMULATION


def can_run(processor: Sequence[str]) -> bool:
    """Return True if a guest with this processor gets to its first instructions."""
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(SECTOR)
        disk.flush()
        command = [PROGRAM, *processor, "-m", "16", "-nodefaults", "-display", "none"]
        command += [
            "-drive",
            f"file={disk.name},format=raw,if=ide,snapshot=on",
            "-device",
            "isa-debug-exit,iobase=0xf4",
        ]
        try:
            return subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS).returncode == SECTOR_STATUS
        except subprocess.TimeoutExpired:
            return False


def arguments(
    image: Image,
    job: Path,
    folder: Path,
    *,
    scratch: Path,
    keyboard: bool = False,
    initramfs: Optional[Path] = None,
    port: int = 0,
) -> list[str]:
    """Return the command that runs a guest until it powers off, or cannot go on.

    job: becomes /dev/vdb. scratch: becomes /dev/vdc. What is written to the disk of the image is gone afterwards.
    folder: gets `console` (what the kernel and systemd print), `log` (what is printed here, too) and `results`, what
    the guest writes to its port of that name. keyboard: Ctrl-C is for the guest, and not for qemu.
    initramfs: instead of that of the image. port: one of ours that is the port 54322 of the guest, which has no network
    otherwise.
    """
    network = f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:54322"
    return [
        *(PROGRAM, "-nodefaults", "-no-reboot", "-display", "none", "-smp", "2", "-m", "2048", *accelerator()),
        *(("-nic", network) if port else ()),
        *("-kernel", f"{image.kernel}", "-initrd", f"{initramfs or image.initramfs}"),
        *("-append", KERNEL),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={job},format=raw,if=virtio,readonly=on"),
        *("-drive", f"file={scratch},format=raw,if=virtio,discard=unmap"),
        *("-serial", f"file:{folder / 'console'}", "-device", "virtio-serial", "-device", "virtio-rng-pci"),
        *("-chardev", f"stdio,id=log,signal={'off' if keyboard else 'on'},logfile={folder / 'log'}"),
        *("-device", "virtconsole,chardev=log"),
        *("-chardev", f"file,id=results,path={folder / 'results'}"),
        *("-device", "virtserialport,chardev=results,name=results"),
    ]
