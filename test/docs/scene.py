"""Runs the blocks of a page one after the other, in one shell and one Python, in a folder of their own.

    with Scene(tmp_path, daemon) as scene:
        scene.run(block)

The programs of this checkout come first in PATH; ovirt-imageioctl speaks to the daemon of the test. What a page says of
an installed system (paths, ports) is replaced.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.pages import Block
from fakes.waiting import DEADLINE, wait_until
from tools.source import ROOT

__all__ = ["PROGRAMS", "Scene"]

PROGRAMS = {
    "ovirt-imageio": "ovirt_imageio.service.cli",
    "ovirt-imageioctl": "ovirt_imageio.admin.cli",
    "ovirt-img": "ovirt_imageio.client.cli",
}

# Runs each file whose name it is told, and says so when it is through. The first failure ends it, and what it started.
SHELL = r"""
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
while read -r file <&3; do
    . "$file"
    echo done >&4
done
"""


class Scene:
    """A folder, a shell and a Python in which the blocks of one page run.

    Threads: one.
    """

    def __init__(
        self, folder: Path, replacements: Mapping[str, str] = {}, *, ctl: Sequence[str] = (), **names: Any
    ) -> None:
        self.folder = folder / "page"
        self.names = names
        self._bin = folder / "bin"
        self._replacements = dict(replacements)
        self._ctl = ctl
        self._output = folder / "output"
        self._count = 0
        self._definitions = ""
        self.last_output = ""

    def __enter__(self) -> Scene:
        self.folder.mkdir()
        self._bin.mkdir()
        for name in PROGRAMS:
            arguments = " ".join(self._ctl if name == "ovirt-imageioctl" else ())
            launcher = self._bin / name
            program = f"{sys.executable} {ROOT}/daemon/{name}"
            launcher.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {program} {arguments} "$@"\n')
            launcher.chmod(0o755)
        told, self._tell = os.pipe()
        self._done, done = os.pipe()
        with open(self._output, "w") as output:
            self._shell = subprocess.Popen(
                ["bash", "-c", f"exec 3<&{told} 4>&{done} {told}<&- {done}>&-\n{SHELL}"],
                **{"cwd": self.folder, "env": self._environ(), "pass_fds": (told, done), "start_new_session": True},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        os.close(told)
        os.close(done)
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._tell)
        try:
            self._shell.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        os.close(self._done)

    def replace(self, told: str, real: str) -> None:
        """Replace what the page says of an installed system by what is real here."""
        self._replacements[told] = real

    def define(self, **variables: str) -> None:
        """Set variables, in the shell and for what runs until it is stopped."""
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        self._definitions += text
        self.run_sh(text)

    def run(self, block: Block) -> None:
        """Run a block; fail with its place and its output if it fails."""
        text = self._replace(block.text)
        before = self._output.stat().st_size
        if block.note == "until":
            self.run_until(text, block.argument, block)
        elif block.language == "sh":
            self.run_sh(text, str(block))
        else:
            self.run_python(text, str(block))
            return
        self.last_output = self._output.read_bytes()[before:].decode()

    def run_sh(self, text: str, place: str = "before the page") -> None:
        """Run commands in the shell."""
        self._count += 1
        script = self.folder.parent / f"block-{self._count}.sh"
        script.write_text(text)
        os.write(self._tell, f"{script}\n".encode())
        is_ready, _, _ = select.select([self._done], [], [], DEADLINE)
        assert is_ready and os.read(self._done, 100), f"{place} failed:\n{self._output.read_text()[-3000:]}"

    def run_python(self, text: str, place: str) -> None:
        """Run code with the names of this scene, in its folder."""
        code = compile(text, place, "exec")
        here = os.getcwd()
        os.chdir(self.folder)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, self.names)
        finally:
            os.chdir(here)
        self.last_output = printed.getvalue()

    def run_until(self, text: str, pattern: str, place: object) -> None:
        """Run commands of which the last one does not end, until they print something; then stop them like Ctrl-C."""
        output = self.folder.parent / "until"
        *first, last = text.strip().splitlines()
        # The shell becomes its last command, which then is the one to be interrupted.
        script = self._definitions + "\n".join([*first, f"exec {last}"])
        with open(output, "w") as file:
            process = subprocess.Popen(
                ["bash", "-ec", script],
                **{"cwd": self.folder, "env": self._environ(), "stdin": subprocess.DEVNULL},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:

            def is_there() -> bool:
                has_ended = process.poll() is not None
                if re.search(pattern, output.read_text()):
                    return True
                assert not has_ended, f"{place} ended:\n{output.read_text()}"
                return False

            wait_until(is_there, output.read_text)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0, f"{place} ended badly:\n{output.read_text()}"
        finally:
            process.kill()
            process.wait()

    def _replace(self, text: str) -> str:
        for old, new in self._replacements.items():
            text = text.replace(old, new)
        return text

    def _environ(self) -> dict[str, str]:
        state = {"XDG_STATE_HOME": str(self.folder.parent / "state"), "PYTHONWARNINGS": "error"}
        return {**os.environ, **state, "PATH": f"{self._bin}:{os.environ['PATH']}"}
