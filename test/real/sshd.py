"""An OpenSSH server on loopback, and a home with a key that it takes: the user's own home is left alone.

    with sshd.Server(folder) as server:
        subprocess.run([*server.command, "qemu-img", "info", server.url(path)])

A client looks for keys where the system says that the home of the user is, whatever $HOME says. So `command` runs it
where /etc/passwd says another one, in a mount namespace, which takes root. Debian packages: openssh-server; for qemu
qemu-block-extra.

Threads: one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from fakes import ports
from fakes.waiting import wait_until
from real import namespace

__all__ = ["Server", "available"]

CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {home}/.ssh/id_ed25519.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""

# Lays two files over those of the system, then becomes a command. A user without a password may be locked out: here the
# shadow says that there is none to type.
INSIDE = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 && exec "$@"'

# The server wants a folder that nobody else has.
SERVER = (*namespace.COMMAND, "sh", "-c", 'mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"', "sh")


def available() -> bool:
    """Return True if the server is installed, and a process may have mounts of its own."""
    return shutil.which("sshd") is not None and namespace.available()


class Server:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sshd"
        self._home = self._folder / "home"
        self._user = pwd.getpwuid(os.geteuid())
        self._scope = contextlib.ExitStack()
        self._port = 0

    @property
    def command(self) -> tuple[str, ...]:
        """What runs another command with the home that has the key."""
        files = (str(self._folder / "passwd"), str(self._folder / "shadow"))
        return ("unshare", "--mount", "sh", "-c", INSIDE, "sh", *files)

    @property
    def known_hosts(self) -> Path:
        """The file that tells a client the key of the server."""
        return self._home / ".ssh" / "known_hosts"

    def url(self, path: Path) -> str:
        """Return how qemu names a file of the server."""
        return f"ssh://{self._user.pw_name}@127.0.0.1:{self._port}{path}"

    def __enter__(self) -> Server:
        keys = self._home / ".ssh"
        keys.mkdir(parents=True)
        keys.chmod(0o700)
        for path in (self._folder / "host", keys / "id_ed25519"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        user = self._user
        entry = f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{self._home}:/bin/sh\n"
        (self._folder / "passwd").write_text(entry + Path("/etc/passwd").read_text())
        (self._folder / "shadow").write_text(f"{user.pw_name}:*:20000:0:99999:7:::\n")
        with contextlib.ExitStack() as scope:
            self._port = scope.enter_context(ports.reserved())
            kind, key = (self._folder / "host.pub").read_text().split()[:2]
            self.known_hosts.write_text(f"[127.0.0.1]:{self._port} {kind} {key}\n")
            self._start(scope)
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the server, and all connections to it."""
        self._scope.close()

    def _start(self, scope: contextlib.ExitStack) -> None:
        config, log = self._folder / "sshd_config", self._folder / "log"
        config.write_text(CONFIG.format(port=self._port, folder=self._folder, home=self._home))
        program = shutil.which("sshd")
        assert program
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [*self.command, *SERVER, program, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        scope.callback(namespace.kill, process)
        wait_until(lambda: b"Server listening" in log.read_bytes(), log.read_text)
