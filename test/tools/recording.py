"""Make docs/images/serve.svg, a recording of `serve` and `download`: recording.py [OUTPUT]

Both programs are the real ones, each in a terminal of its own, and each change of a line is drawn when it happened. The
commands are typed by us, and the folder is called ~. A viewer that cannot animate shows how it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "docs" / "images" / "serve.svg"

PROGRAMS = {"ovirt-imageio": "ovirt_imageio.service.cli", "ovirt-img": "ovirt_imageio.client.cli"}

# MiB that are written at a time.
PART = 1024

COLUMNS = 112
DEADLINE = 120

# Seconds: for a key, after a command, and for the reader, before the other terminal begins and at the end.
KEY, RETURN, READING = 0.03, 0.4, 2.5

# Cells of the picture, in its units.
WIDTH, HEIGHT, MARGIN, BAR = 7.6, 17, 14, 26
STYLE = "font: 12.6px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# Blanks at the end of lines are dropped.
PROMPT = "$ "
ESCAPE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[^\[]")


@dataclass
class Screen:
    """The lines of a terminal that is as high as it must be: enough of one for programs that draw one line again."""

    columns: int = COLUMNS
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        """Show what a program wrote."""
        position = 0
        while position < len(text):
            match = ESCAPE.match(text, position)
            if match:
                self._obey(match[1] or "", match[2])
                position = match.end()
            else:
                self._put(text[position])
                position += 1

    def _obey(self, argument: str, command: Optional[str]) -> None:
        if command == "K":
            line = self.lines[self.row]
            self.lines[self.row] = "" if argument == "2" else line[: self.column]
        elif command == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            # They stay, empty: what they showed until now has ended.
            self.lines[self.row + 1 :] = [""] * (len(self.lines) - self.row - 1)
        elif command == "A":
            self.row = max(0, self.row - int(argument or 1))

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._go_down()
        elif character.isprintable():
            if self.column == self.columns:
                self.column = 0
                self._go_down()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _go_down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")


class Terminal:
    """A screen, what it showed when, and the program that writes to it."""

    pid = 0

    def __init__(self, title: str, clock: Callable[[], float], pace: float) -> None:
        self.title = title
        self.screen = Screen()
        # For each row what was there, and since when.
        self.history: list[list[tuple[float, str]]] = []
        self._clock = clock
        self._pace = pace
        self._show(PROMPT)

    def run(self, keys: Iterable[str], folder: Path, environ: dict[str, str]) -> None:
        """Type a command, key by key, and start it."""
        for key in keys:
            time.sleep(KEY * self._pace)
            self._show(key)
        command = "".join(keys)
        time.sleep(RETURN * self._pace)
        self._show("\r\n")
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "-c", f"exec {command}"], environ)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
        self._shown = str(folder)

    def read(self, seconds: float) -> bool:
        """Show what the program writes next; return False at its end."""
        if select.select([self._descriptor], [], [], seconds)[0]:
            try:
                text = os.read(self._descriptor, 65536).decode()
            except OSError:  # So Linux tells the end.
                return False
            self._show(text.replace(self._shown, "~"))
        return True

    def end(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)
        while self.read(0.1):
            pass
        os.waitpid(self.pid, 0)

    def say(self, text: str) -> None:
        """Show what we write."""
        self._show(text)

    def _show(self, text: str) -> None:
        self.screen.feed(text)
        now = self._clock()
        for row, line in enumerate(map(str.rstrip, self.screen.lines)):
            if row == len(self.history):
                self.history.append([(0.0, "")])
            if self.history[row][-1][1] != line:
                self.history[row].append((now, line))


def record(size: int, pace: float, folder: Path) -> str:
    """Serve an image with `size` MiB of data, download it, and return the picture of that; pauses are times `pace`."""
    environ = prepare(folder, size)
    began = time.monotonic()

    def clock() -> float:
        return time.monotonic() - began

    server, client = Terminal("One terminal", clock, pace), Terminal("Another one", clock, pace)
    server.run("ovirt-imageio serve fedora.qcow2 --read-only", folder, environ)
    try:
        wait(lambda: "Ctrl-C stops" in "".join(server.screen.lines), server)
        pause(server, READING * pace)
        # It is pasted.
        client.run([download_command(server.screen.lines)], folder, environ)
        wait(lambda: not client.read(0.02), server)
        os.waitpid(client.pid, 0)
        client.say(PROMPT)
        pause(server, READING * pace)
        return draw([server, client])
    finally:
        server.end()


def prepare(folder: Path, size: int) -> dict[str, str]:
    """Make the image, and what the programs find in their environment."""
    programs = folder / ".bin"
    programs.mkdir()
    for name, module in PROGRAMS.items():
        (programs / name).write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    image = ["qemu-img", "create", "-q", "-f", "qcow2", "fedora.qcow2", "10g"]
    subprocess.run(image, cwd=folder, check=True)
    # One command of qemu-io writes less than 2 GiB.
    parts = range(0, size, PART)
    data = [word for start in parts for word in ("-c", f"write -P 7 {start}M {min(PART, size - start)}M")]
    subprocess.run(["qemu-io", "-f", "qcow2", *data, "fedora.qcow2"], cwd=folder, check=True, capture_output=True)
    return {
        **{name: value for name, value in os.environ.items() if name != "XDG_STATE_HOME"},
        "HOME": str(folder),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "TERM": "xterm",
    }


def download_command(lines: list[str]) -> str:
    """Return the command that `serve` tells, in one line again; the name of our folder is good in the shell, too."""
    (first,) = [row for row, line in enumerate(lines) if "ovirt-img download" in line]
    last = first
    while len(lines[last]) == COLUMNS:
        last += 1
    return "".join(lines[first : last + 1]).strip()


def wait(is_over: Callable[[], bool], *terminals: Terminal) -> None:
    """Show what programs write until it is over."""
    deadline = time.monotonic() + DEADLINE
    while not is_over():
        assert time.monotonic() < deadline, [terminal.screen.lines for terminal in terminals]
        for terminal in terminals:
            assert terminal.read(0.02), terminal.screen.lines


def pause(terminal: Terminal, seconds: float) -> None:
    """Show what a program writes for some time."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, terminal)


def draw(terminals: list[Terminal]) -> str:
    """Return a picture of terminals, one below the other."""
    width = round(COLUMNS * WIDTH + 2 * MARGIN)
    body: list[str] = []
    top = 0
    for terminal in terminals:
        rows = len(terminal.history)
        height = BAR + rows * HEIGHT + MARGIN
        body.append(f'<rect y="{top}" width="{width}" height="{height}" rx="8" fill="#1c2128"/>')
        body.append(f'<text x="{MARGIN}" y="{top + 17}" fill="#768390">{escape(terminal.title)}</text>')
        for row, states in enumerate(terminal.history):
            y = top + BAR + (row + 0.8) * HEIGHT
            body += draw_row(states, f'x="{MARGIN}" y="{y:.1f}"')
        top += height + MARGIN
    top -= MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top:.0f}" style="{STYLE}">',
            "<title>ovirt-imageio serve in one terminal, ovirt-img download in another one</title>",
            *body,
            "</svg>\n",
        ]
    )


def draw_row(states: list[tuple[float, str]], place: str) -> list[str]:
    """Return the texts of one row, each for its time; the last one stays."""
    texts = []
    for number, (since, line) in enumerate(states):
        if not line:
            continue
        # Else several blanks are one.
        shown = escape(line).replace(" ", "\u00a0")
        color = "#6bc46d" if line.startswith(PROMPT.rstrip()) else "#adbac7"
        start = f'<text {place} fill="{color}"'
        if number + 1 == len(states):
            show = f'<set attributeName="visibility" to="hidden" begin="0s" end="{since:.2f}s"/>'
            texts.append(f"{start}>{shown}{show}</text>")
        else:
            until = states[number + 1][0]
            show = f'<set attributeName="visibility" to="visible" begin="{since:.2f}s" end="{until:.2f}s"/>'
            texts.append(f'{start} visibility="hidden">{shown}{show}</text>')
    return texts


def main(arguments: list[str]) -> int:
    """Record, draw, write; return an exit status."""
    parser = argparse.ArgumentParser(prog="recording")
    parser.add_argument("output", nargs="?", type=Path, default=OUTPUT)
    parser.add_argument("--size", type=int, default=3072, help="of the data, in MiB")
    parser.add_argument("--pace", type=float, default=1, help="of the pauses: 0 for none")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recording-") as folder:
        picture = record(options.size, options.pace, Path(folder))
    options.output.write_text(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
