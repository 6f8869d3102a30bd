"""Run the tests of test/machine/ in a guest, as `make vm` does: run.py [NAME]

Without NAME: all of them but those that are marked as long, in two guests at once. NAME is a file of that folder
(restart), a test in it (restart::test_it), "long", "kills" (see kills.py), "beside", what the other one of two guests
does, or "shell". What the guest did is in .cache/vm/last/, or in .cache/vm/beside/: console, log, junit.xml, journal.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools import source
from tools.vm import guest, image, job, kills

__all__ = ["chosen", "limit_of", "main", "run"]

CACHE = source.ROOT / ".cache" / "vm"

# On two cores, in emulation; and of the tests that are marked as long, of which one that is named may be one.
LIMIT_SECONDS = 15 * 60
LONG_SECONDS = 60 * 60

# What the other guest does when there are two, after kills.py.
BESIDE = "kernel_tls"

INSIDE = Path(__file__).with_name("inside")

# What the tests may fill; the file is sparse.
SCRATCH = 4 * 1024**3


def main(what: str = "") -> int:
    """Run a guest; return an exit status."""
    if not shutil.which(guest.PROGRAM):
        print(f"There is no {guest.PROGRAM} here, and no guest without it: see test/tools/packages vm", file=sys.stderr)
        return 1
    try:
        made = image.make(CACHE / "image")
    except image.CannotMake as error:
        print(error, file=sys.stderr)
        return 1
    if what == "kills":
        return kills.run(made, CACHE / "kills")
    if what == "beside":
        status = kills.run(made, CACHE / "kills")
        return run(made, CACHE / "beside", chosen(BESIDE, sys.stdin)) or status
    if what:
        return run(made, CACHE / "last", chosen(what, sys.stdin), limit_of(what))
    with beside([sys.executable, __file__, "beside"]) as statuses:
        statuses.append(run(made, CACHE / "last", chosen(what, sys.stdin)))
    return int(any(statuses))


@contextlib.contextmanager
def beside(command: Sequence[str]) -> Iterator[list[int]]:
    """Run a command while the block runs; in the end print what it said, and append its status to what this yields.

    A guest waits often, for time-outs and for one program after the other: two of them take little longer than one.
    """
    statuses: list[int] = []
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield statuses
            statuses.append(process.wait())
        except BaseException:
            # As Ctrl-C: it ends what it started.
            process.send_signal(signal.SIGINT)
            raise
        said.seek(0)
        print(said.read().decode(errors="replace"), end="", flush=True)


def chosen(what: str, stdin: TextIO) -> list[str]:
    """Return the arguments for the program in the guest: those of pytest, or of a shell."""
    if what == "shell":
        return ["bash", "-i"] if stdin.isatty() else ["bash", "-c", stdin.read()]
    name, _, test = what.partition("::")
    if test:
        return [f"test/machine/{name}_test.py::{test}"]
    if name == "long":
        return ["test/machine", "-m", "long"]
    if not name:
        return ["test/machine", "-m", "not long", f"--ignore=test/machine/{BESIDE}_test.py"]
    return [f"test/machine/{name}_test.py", "-m", "not long"]


def limit_of(what: str) -> int:
    """Return how many seconds the guest has."""
    return LONG_SECONDS if what == "long" or "::" in what else LIMIT_SECONDS


def run(made: image.Image, folder: Path, arguments: Sequence[str], limit: float = LIMIT_SECONDS) -> int:
    """Run a guest until it powers off; return the exit status of its job. The folder gets what it left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="vm-", dir=folder) as work:
        archive, scratch = Path(work) / "job.tar", Path(work) / "scratch"
        files = {"job": INSIDE.read_bytes(), "arguments": "".join(f"{argument}\0" for argument in arguments).encode()}
        job.pack(archive, source.ROOT, job.TESTS, files)
        with scratch.open("wb") as file:
            file.truncate(SCRATCH)
        try:
            command = guest.arguments(made, archive, folder, scratch=scratch, keyboard=arguments[0] == "bash")
            status = subprocess.run(command, timeout=limit).returncode
            reason = f"qemu ended with status {status}"
        except subprocess.TimeoutExpired:
            reason = f"it had {limit:g} s"
    unpack(folder)
    if (folder / "status").exists():
        return int((folder / "status").read_text())
    last = (folder / "console").read_text(errors="replace").splitlines()[-30:] if (folder / "console").exists() else []
    print("\n".join([*last, f"The guest did not finish: {reason}. {folder} has its console and log"]), file=sys.stderr)
    return 1


def unpack(folder: Path) -> None:
    """Put what the guest sent into the folder; one that ended early may have sent a part of it, or nothing."""
    results = folder / "results"
    if results.exists():
        try:
            with tarfile.open(results) as archive:
                for member in archive:
                    if member.isfile():
                        content = archive.extractfile(member)
                        assert content is not None
                        (folder / Path(member.name).name).write_bytes(content.read())
        except tarfile.ReadError as error:
            print(f"The results of the guest are not complete: {error}", file=sys.stderr)
        results.unlink()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
