"""The released package, 2.5.1, as a black box: its daemon and its client library, in an environment of their own.

    release.python()                        the interpreter that imports the released package
    with release.running(tmp_path) as daemon:
        url = daemon.add_ticket(...)        as with real/daemon.py

The environment is made once, with pip, in .cache; without a network it is Missing, with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fakes.waiting import wait_until
from real import certificates, daemon

__all__ = ["VERSION", "Missing", "python", "run", "running"]

VERSION = "2.5.1"
HOME = daemon.ROOT / ".cache" / f"release-{VERSION}"


class Missing(Exception):
    """The released package cannot be had; the message says why."""


@functools.cache
def python() -> str:
    """Return the interpreter of the environment; it is made when it is not there. Raises Missing."""
    interpreter = HOME / "bin" / "python"
    if not (HOME / "ready").exists():
        for command in (
            [sys.executable, "-m", "venv", str(HOME)],
            [str(interpreter), "-m", "pip", "install", "--quiet", f"ovirt-imageio=={VERSION}"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise Missing(f"{' '.join(command)} failed: {done.stderr[-500:]}")
        (HOME / "ready").touch()
    return str(interpreter)


def run(code: str, *arguments: str) -> str:
    """Run a program with the released library; return what it prints."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python(), "-c", code, *arguments], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(folder: Path, text: str = "") -> Iterator[daemon.Daemon]:
    """Run the released daemon; text is configuration on top of the default for tests."""
    python()
    tls = certificates.certificate()
    files = daemon.write_config(folder, "[daemon]\nsystemd_enable = false\n" + text, tls=tls)
    log = folder / "daemon.log"
    log.unlink(missing_ok=True)
    log.touch()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(HOME / "bin" / "ovirt-imageio"), "-c", str(files)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        running_daemon = daemon.Daemon(process, folder, {}, tls.ca_file)
        try:
            wait_ready(running_daemon)
            running_daemon.addresses = {"remote": f"localhost:{find_port(process.pid)}"}
            yield running_daemon
        finally:
            if process.poll() is None:
                process.kill()


def wait_ready(running_daemon: daemon.Daemon) -> None:
    """Wait until the daemon listens on the control socket."""

    def is_listening() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(running_daemon.control_socket)
                return True
            except OSError:
                assert running_daemon.process.poll() is None, f"The daemon ended:\n{running_daemon.log()}"
                return False

    wait_until(is_listening, lambda: f"The daemon does not answer:\n{running_daemon.log()}")


def find_port(pid: int) -> int:
    """Return the one TCP port that a process listens on."""
    inodes = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                return int(fields[1].rpartition(":")[2], 16)
    raise AssertionError("The daemon listens nowhere")
