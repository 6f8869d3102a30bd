"""Signals at random moments: ovirt-img is interrupted while it does everything that it can.

    run.py interrupts [ROUNDS [SEED]]

After each round it must have ended soon, with a status and at most a line, and have left no image that is not complete,
no folder, and no process.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tools import source

ROUNDS = 500

# A command takes about a second; most of what can go wrong is in its first half.
LONGEST_DELAY = 0.9

# It has this long to end after a signal.
PATIENCE = 30

MIB = 1024**2
SIZE = 300 * MIB

COMMANDS = {
    "download": ["download", "URL", "copy.qcow2"],
    "download raw": ["download", "-f", "raw", "URL", "copy.raw"],
    "download to a pipe": ["download", "URL", "-"],
    "backup": ["backup", "URL", "copy.qcow2"],
    "verify": ["verify", "image.qcow2", "URL"],
    "upload": ["upload", "image.qcow2", "URL"],
    "upload from a pipe": ["upload", "-", "URL"],
    "checksum": ["checksum", "image.qcow2"],
    "extents": ["extents", "image.qcow2"],
}

ENVIRON = {**os.environ, "PYTHONPATH": str(source.ROOT)}


def main(arguments: list[str]) -> int:
    """Interrupt commands; return an exit status."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    seed = int(arguments[1]) if arguments[1:] else random.randrange(10**6)
    dice = random.Random(seed)
    statuses: Counter[str] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as url:
        for number in range(rounds):
            kind = dice.choice(list(COMMANDS))
            delay = dice.random() * LONGEST_DELAY
            sent = dice.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM])
            status, found = play(Path(name), kind, url, delay, sent)
            statuses[f"{kind}: {status}"] += 1
            for fault in found:
                faults += 1
                print(f"seed {seed} round {number}: {kind}, {sent.name} after {delay:.3f} s: {fault}", flush=True)
    print(f"{rounds} rounds with seed {seed}, {faults} faults; statuses: {dict(sorted(statuses.items()))}")
    return 1 if faults else 0


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a disk; yield its URL. Images with the same data are there, too: what is uploaded changes nothing."""
    for name in ("disk.qcow2", "image.qcow2"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / name, str(SIZE)], check=True)
        write = f"write -q -P 7 0 {SIZE * 5 // 6}"
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", write, folder / name], check=True)
    subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "image.qcow2", folder / "image.raw"], check=True)
    command = [sys.executable, source.ROOT / "daemon" / "ovirt-imageio", "serve", folder / "disk.qcow2"]
    command += ["--json", "--no-tls", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout
        try:
            yield json.loads(server.stdout.readline())["images"][0]["url"]
        finally:
            server.terminate()


def play(folder: Path, kind: str, url: str, delay: float, sent: signal.Signals) -> tuple[int, list[str]]:
    """Run a command and interrupt it; return its status, and what is wrong with what it left."""
    private = folder / "private"
    private.mkdir()
    command = [sys.executable, str(source.ROOT / "daemon" / "ovirt-img")]
    command += [url if word == "URL" else word for word in COMMANDS[kind]]
    environ = {**ENVIRON, "TMPDIR": str(private)}
    with (
        open(folder / "image.raw", "rb") as data,
        subprocess.Popen(
            command, stdin=data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder, env=environ
        ) as process,
    ):
        time.sleep(delay)
        process.send_signal(sent)
        try:
            _, said = process.communicate(timeout=PATIENCE)
            faults = []
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            faults = ["it hangs"]
    # Until the first lines of the program have run, the interpreter answers.
    if b"Traceback" in said and str(source.PACKAGE).encode() in said:
        faults.append(said.decode(errors="replace"))
    faults += [f"left {path.name}" for path in private.iterdir()]
    faults += left_copies(folder)
    shutil.rmtree(private)
    return process.returncode, faults


def left_copies(folder: Path) -> list[str]:
    """Return what is wrong with copies, and remove them; one that was complete when the signal came may stay."""
    faults = []
    for path in folder.glob("copy.*"):
        compared = subprocess.run(["qemu-img", "compare", "-q", folder / "image.qcow2", path], check=False)
        if compared.returncode:
            faults.append(f"left {path.name}, which is not complete")
        path.unlink()
    return faults
