"""One copy of the client library, one call that fails in it, and what must be true after that.

The server is a process of its own, so that every call that counts is one of the client.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Optional

from real import certificates
from torture import host
from torture.house import PATIENCE, Leftover, descriptors, wait_gone
from torture.operations import Wrong
from torture.seam import Call, Seam, chosen

from ovirt_imageio import client, errors

__all__ = ["COPIES", "CopyCase", "CopyTorturer"]

MIB = 1024**2
DATA = os.urandom(MIB) + bytes(MIB) + os.urandom(MIB)

COPIES = ("upload-raw", "upload-qcow2", "download-raw", "download-qcow2", "download-resumable", "checksum")

# What removes the folder of a server with what Python has for that.
TIDYING = ("qemu.nbd.stop",)

# What a copy that fails may raise. What is not ours is said by Python itself: no thread, no memory.
RAISED = (errors.Error, OSError, RuntimeError, MemoryError)


class CopyCase(NamedTuple):
    """See the module."""

    copy: str
    call: Call
    fault: str

    def __str__(self) -> str:
        return f"client-{self.copy}/{self.call}/{self.fault}"

    @classmethod
    def parse(cls, name: str) -> CopyCase:
        """Return the case of a name."""
        copy, call, fault = name.split("/")
        place, kind, number = call.split(" ")
        return cls(copy.partition("-")[2], Call(place, kind, int(number)), fault)


class CopyTorturer:
    """Runs cases; `outcomes` counts how they ended."""

    def __init__(self, folder: Path, seam: Seam) -> None:
        self._folder = folder
        self._seam = seam
        self._scope = contextlib.ExitStack()
        self._certificate = certificates.certificate()
        self.outcomes: Counter[str] = Counter()

    def __enter__(self) -> CopyTorturer:
        self._remote = self._folder / "remote"
        self._remote.write_bytes(DATA)
        self._raw = self._folder / "source.raw"
        self._raw.write_bytes(DATA)
        self._qcow2 = self._folder / "source.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self._raw, self._qcow2], check=True)
        self._target = self._folder / "target"
        self._temporary = self._folder / "tmp"
        self._temporary.mkdir()
        with contextlib.ExitStack() as scope:
            files = self._certificate
            port = scope.enter_context(host.running(str(self._remote), files.cert_file, files.key_file))
            self._url = f"https://localhost:{port}/images/{host.TICKET}"
            scope.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
            tempfile.tempdir = str(self._temporary)
            for copy in COPIES:
                self._reset()
                self._run_copy(copy)
            self._reset()
            self._before = (set(descriptors()), set(threading.enumerate()), children())
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._scope.close()

    def plan(self, copy: str) -> list[CopyCase]:
        """Return all cases of a copy."""
        self._reset()
        calls = self._seam.record(lambda: self._run_copy(copy))
        return [CopyCase(copy, call, fault) for call, fault in chosen(calls)]

    def run(self, case: CopyCase) -> None:
        """Run a case. Raises AssertionError."""
        self._reset()
        started = time.monotonic()
        with self._seam.failing(case.call, case.fault):
            try:
                self._run_copy(case.copy)
                outcome = "done"
            except RAISED as e:
                outcome = type(e).__name__
        is_reached = self._seam.failures > 0
        if outcome != "done" and not is_reached:
            raise Wrong(f"{case}: it was {outcome}, though nothing failed")
        if time.monotonic() - started > PATIENCE:
            raise Leftover(f"{case}: it took {time.monotonic() - started:.1f} seconds")
        try:
            self._check_files(case.copy, is_done=outcome == "done")
            self._check_leftovers(case)
        except AssertionError as e:
            raise type(e)(f"{case}: {outcome}: {e}") from e
        self.outcomes[outcome if is_reached else "not reached"] += 1

    def _run_copy(self, copy: str) -> None:
        ca_file = self._certificate.ca_file
        how, _, what = copy.partition("-")
        if how == "upload":
            image = self._raw if what == "raw" else self._qcow2
            client.upload(str(image), self._url, ca_file, format=what, max_workers=2, retries=0)
        elif what == "resumable":
            client.download(
                self._url, str(self._target), ca_file, fmt="raw", max_workers=2, resume=True, retries=0, verify=True
            )
        elif how == "download":
            client.download(self._url, str(self._target), ca_file, fmt=what, max_workers=2, retries=0)
        else:
            found = client.checksum(str(self._qcow2))["checksum"]
            if found != client.checksum(str(self._raw))["checksum"]:
                raise Wrong("the checksum")

    def _reset(self) -> None:
        for name in os.listdir(self._temporary):
            shutil.rmtree(self._temporary / name)
        with open(self._remote, "r+b") as file:
            file.write(DATA)
        for name in os.listdir(self._folder):
            if name.startswith("target"):
                os.unlink(self._folder / name)

    def _check_files(self, copy: str, *, is_done: bool) -> None:
        if self._remote.read_bytes() != DATA:
            raise Wrong("the disk on the server has other bytes")
        names = {name for name in os.listdir(self._folder) if name.startswith("target")}
        if not copy.startswith("download"):
            expected = [set()]
        elif is_done:
            expected = [{"target"}]
            if names == {"target"} and self._content(copy) != DATA:
                raise Wrong("the image has other bytes")
        else:
            # What is not complete is marked, or not there.
            expected = [set()] + ([{"target", "target.resume"}, {"target.resume"}] if "resumable" in copy else [])
        if names not in expected:
            raise Leftover(f"files: {names}")

    def _content(self, copy: str) -> bytes:
        if copy != "download-qcow2":
            return self._target.read_bytes()
        raw = self._folder / "target.raw"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self._target, raw], check=True)
        return raw.read_bytes()

    def _check_leftovers(self, case: CopyCase) -> None:
        files, threads, processes = self._before
        # The programs of Python that tidy up leave what they fail to tidy up.
        is_tidying = case.call.place in TIDYING
        for look, before, name in (
            (lambda: set(threading.enumerate()), threads, "threads"),
            (lambda: set(descriptors()), files, "descriptors"),
            (children, processes, "processes"),
            (lambda: set(os.listdir(self._temporary)), set(), "temporary files"),
        ):
            if not (is_tidying and name == "temporary files"):
                wait_gone(look, before, name)


def children() -> set[str]:
    """Return the ids of the processes that this one started."""
    return set(_children())


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):
            yield from Path(f"/proc/self/task/{task}/children").read_text().split()
