"""Disks that are attached by NBD, over HTTPS: in bulk with nbdcopy, and small requests, many under way."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.arena import LIFE, MEMORY, MIB, SIZE, fill
from bench.lines import Line, Side, Times
from bench.peers import free_port, need, timed, wait_port
from fakes.waiting import wait_until
from real import certificates, daemon, nbd

from ovirt_imageio.client.copy import ends
from ovirt_imageio.net import tls
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.server import Approach
from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["LINES"]

BLOCK = 4096
UNDER_WAY = 16
SECONDS = 2.0

SCRIPT = f"""
math.randomseed(1)
function request()
    local first = math.random(0, {SIZE // BLOCK - 1}) * {BLOCK}
    return wrk.format("GET", nil, {{["Range"] = "bytes=" .. first .. "-" .. first + {BLOCK - 1}}})
end
"""


class Served:
    """A disk in memory that our daemon serves over HTTPS alone."""

    def __init__(self) -> None:
        self.url = ""
        self.ca_file = ""
        self._folder = Path()

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run qemu-nbd and the daemon."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
            disk = self._folder / "disk"
            fill(disk)
            options = {"cache": "writeback", "aio": "threads", "detect_zeroes": None, "shared": 0}
            server = stack.enter_context(QemuNbd(str(disk), "raw", **options))
            running = stack.enter_context(daemon.running(self._folder, "[local]\nenable = false\n"))
            self.url = running.add_ticket(url=server.url, size=SIZE, ops=["read"], **LIFE)
            self.ca_file = running.ca_file
            yield

    def nbdcopy(self) -> float:
        """Return the MiB per second of nbdcopy to nowhere."""
        command = [sys.executable, "-m", "ovirt_imageio.client.cli", "nbd", "--read-only", "--cafile", self.ca_file]
        return SIZE / MIB / timed(*command, self.url, "--", need("nbdcopy"), "{}", "null:")

    def requests(self) -> float:
        """Return the random reads per second over one connection that speaks NBD."""
        dice = random.Random(1)
        image = Image(self.url, Approach(context=tls.client_context(self.ca_file)))
        end: ends.NBDEnd[None] = ends.attach(image, Lifeline(), 60)
        with contextlib.closing(end):
            done = 0
            started = time.perf_counter()
            while time.perf_counter() < started + SECONDS:
                while end.count < UNDER_WAY:
                    end.read(None, dice.randrange(SIZE // BLOCK) * BLOCK, BLOCK)
                end.push()
                done += len(end.finish())
            return done / (time.perf_counter() - started)

    @contextlib.contextmanager
    def with_wrk(self) -> Iterator[None]:
        """Have the program, too."""
        need("wrk")
        yield

    def wrk(self) -> float:
        """Return the random GETs per second over one connection, to the same server."""
        script = self._folder / "script.lua"
        script.write_text(SCRIPT)
        command = [need("wrk"), "-t1", "-c1", f"-d{SECONDS:.0f}s", "-s", str(script), self.url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"Requests/sec: +([0-9.]+)", output)
        if found is None or "Non-2xx" in output or "Socket errors" in output:
            raise RuntimeError(output)
        return float(found.group(1))


class QemuTLS:
    """A qemu-nbd that speaks TLS itself, with a disk of its own."""

    def __init__(self) -> None:
        self._uri = ""

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run it."""
        with contextlib.ExitStack() as stack:
            disk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY))) / "disk"
            fill(disk)
            pki = stack.enter_context(nbd.tls_folder())
            port = free_port()
            command = [need("qemu-nbd"), "--persistent", "--read-only", "--shared=0", "--cache=writeback"]
            command += ["--object", f"tls-creds-x509,id=tls,endpoint=server,verify-peer=no,dir={pki}"]
            command += ["--tls-creds=tls", "--bind=localhost", f"--port={port}", "--format=raw", str(disk)]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            wait_port(port, process)
            self._uri = f"nbds://localhost:{port}?tls-certificates={pki}"
            yield

    def nbdcopy(self) -> float:
        """Return the MiB per second of nbdcopy to nowhere."""
        return SIZE / MIB / timed(need("nbdcopy"), self._uri, "null:")


class Relayed:
    """A qemu-nbd without TLS behind two stunnels: relays in C, which look at nothing that passes."""

    # Runs in the foreground, and writes no file.
    COMMON = "foreground = yes\npid =\nsyslog = no\n"

    def __init__(self) -> None:
        self._uri = ""

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run the three."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
            fill(folder / "disk")
            options = {"cache": "writeback", "aio": "threads", "detect_zeroes": None, "shared": 0}
            stack.enter_context(QemuNbd(str(folder / "disk"), "raw", listen=f"{folder}/nbd", **options))
            tls = certificates.certificate()
            port = free_port()
            theirs = f"[server]\naccept = 127.0.0.1:{port}\nconnect = {folder}/nbd\n"
            theirs += f"cert = {tls.cert_file}\nkey = {tls.key_file}\n"
            ours = f"[client]\nclient = yes\naccept = {folder}/socket\nconnect = 127.0.0.1:{port}\n"
            ours += f"CAfile = {tls.ca_file}\nverifyChain = yes\n"
            for name, text in (("server", theirs), ("client", ours)):
                config = folder / name
                config.write_text(self.COMMON + text)
                command = [need("stunnel"), str(config)]
                process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
                stack.callback(process.terminate)
                wait_port(port, process)
            wait_until((folder / "socket").exists)
            self._uri = f"nbd+unix:///?socket={folder}/socket"
            yield

    def nbdcopy(self) -> float:
        """Return the MiB per second of nbdcopy to nowhere."""
        return SIZE / MIB / timed(need("nbdcopy"), self._uri, "null:")


served = Served()
qemu = QemuTLS()
relayed = Relayed()

LINES = [
    Line(
        *("attach-nbdcopy-https", "MiB/s"),
        [
            Side("ours", served.nbdcopy, served.setup),
            Side("qemu-nbd", qemu.nbdcopy, qemu.setup),
            Side("stunnel", relayed.nbdcopy, relayed.setup),
        ],
        about="nbdcopy of 1 GiB through `ovirt-img nbd`; through TLS of qemu-nbd itself; through a stunnel at each end",
        targets=[Times(0.9, "qemu-nbd")],
        rounds=3,
        warmups=1,
    ),
    Line(
        *("attach-get-4k-https", "requests/s"),
        [Side("ours", served.requests, served.setup), Side("HTTP", served.wrk, served.with_wrk)],
        about=f"random reads of 4 KiB, {UNDER_WAY} under way on one connection with NBD; GET, one after the other",
        targets=[Times(4, "HTTP")],
        rounds=3,
        warmups=1,
    ),
]
