"""The client library over a line with delay and losses, beside curl and iperf3: how much of the line each fills.

    near ── veth, netem ── veth, netem ── far      two network namespaces; the daemon is in the far one

Figures are printed, see docs/performance.md; what is asserted is that every byte is right. Without TLS, as an emulated
processor would show how fast it encrypts. It takes minutes for each line, so only `make vm T=distance` runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
from machine.service import connect_unix, output_of, wait_until

NEAR = "10.99.0.1"
FAR = "10.99.0.2"
PORT = 54399

MiB = 1024**2
# What the NBD way is for; pieces of it make the images that are in pieces.
PIECE = 64 * 1024

# Sizes are such that each transfer would take so many seconds, could it do what iperf3 does.
SECONDS = 12
LEAST, MOST = 4 * MiB, 256 * MiB

# Milliseconds there and back, percent of packets that are lost each way, Mbit/s.
LINES = [(150, 0.1, 100), (50, 0.1, 100), (150, 1, 100), (5, 0.1, 100), (150, 0.1, 1000)]

CONFIG = """\
[daemon]
drop_privileges = false
run_dir = {folder}
[tls]
enable = false
[remote]
host = {FAR}
port = {PORT}
[local]
enable = false
[control]
socket = {folder}/control.sock
[handler_logfile]
args = ("{folder}/daemon.log",)
"""

PROGRAM = """
import sys, time
from ovirt_imageio import client
direction, path, url = sys.argv[1:]
began = time.monotonic()
if direction == "upload":
    client.upload(path, url, None)
else:
    client.download(url, path, None, fmt="raw")
print(time.monotonic() - began)
"""


def inside(name):
    return ["ip", "netns", "exec", name]


@pytest.fixture(scope="module")
def namespaces(request):
    """Two namespaces with a line between them."""
    if not any("distance" in argument for argument in request.config.args):
        pytest.skip("takes minutes for each line: make vm T=distance")
    # A network card would send what is one packet for the kernel as many, of which each may be lost.
    no_offload = ("tso", "off", "gso", "off", "gro", "off")
    for name in ("near", "far"):
        output_of("ip", "netns", "add", name)
    output_of("ip", "link", "add", "line", "netns", "near", "type", "veth", "peer", "name", "line", "netns", "far")
    for name, address in (("near", NEAR), ("far", FAR)):
        output_of(*inside(name), "ip", "link", "set", "lo", "up")
        output_of(*inside(name), "ip", "address", "add", f"{address}/24", "dev", "line")
        output_of(*inside(name), "ip", "link", "set", "line", "up")
        output_of(*inside(name), "ethtool", "-K", "line", *no_offload)
    yield
    for name in ("near", "far"):
        output_of("ip", "netns", "delete", name)


@contextlib.contextmanager
def running(command, **options):
    with subprocess.Popen(command, **options) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def far(namespaces, tmp_path_factory):
    """A daemon and an iperf3 in the far namespace; yields a function that returns the URL of a file."""
    folder = tmp_path_factory.mktemp("far")
    (folder / "etc/conf.d").mkdir(parents=True)
    (folder / "etc/conf.d/50-test.conf").write_text(CONFIG.format(folder=folder, FAR=FAR, PORT=PORT))
    control = str(folder / "control.sock")

    def add_ticket(path, size):
        ticket_id = str(uuid.uuid4())
        ticket = {"uuid": ticket_id, "url": f"file://{path}", "size": size, "ops": ["read", "write"]}
        ticket |= {"timeout": 3000, "sparse": True}
        with contextlib.closing(connect_unix(control)) as connection:
            connection.request("PUT", f"/tickets/{ticket_id}", json.dumps(ticket))
            assert connection.getresponse().status == 200
        return f"http://{FAR}:{PORT}/images/{ticket_id}"

    with open(folder / "log", "wb") as log, contextlib.ExitStack() as stack:
        daemon = [*inside("far"), "ovirt-imageio", "-c", str(folder / "etc")]
        stack.enter_context(running(daemon, stdout=log, stderr=log))
        stack.enter_context(running([*inside("far"), "iperf3", "--server"], stdout=log, stderr=log))
        wait_until(lambda: Path(control).exists(), "the daemon")
        wait_until(lambda: ":5201" in output_of(*inside("far"), "ss", "-tln"), "iperf3")
        yield add_ticket
    for log in (folder / "log", folder / "daemon.log"):
        print(log.read_text()[-2000:])


def shape(delay, loss, rate):
    """Let the line be like this, both ways. The queue holds what is on its way, and some more."""
    for name in ("near", "far"):
        netem = ("delay", f"{delay / 2}ms", "loss", f"{loss}%", "rate", f"{rate}mbit", "limit", "20000")
        output_of(*inside(name), "tc", "qdisc", "replace", "dev", "line", "root", "netem", *netem)


def iperf(direction):
    """Return how many bytes per second arrive over eight connections."""
    reverse = ["--reverse"] if direction == "download" else []
    text = output_of(*inside("near"), "iperf3", "-c", FAR, "-P", "8", "-t", str(SECONDS), "-J", *reverse)
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8


def curl(direction, path, url):
    """Return the seconds that curl takes."""
    what = ["--upload-file", path] if direction == "upload" else ["--output", path]
    command = ["curl", "--silent", "--show-error", "--fail", "--write-out", "\n%{time_total}", *what, url]
    return float(output_of(*inside("near"), *command, timeout=500).split("\n")[-1])


def library(direction, path, url):
    """Return the seconds that the client library takes."""
    return float(output_of(*inside("near"), "python3", "-c", PROGRAM, direction, path, url, timeout=500))


def make(path, size, step):
    """Write an image with this much data, in pieces; each begins `step` bytes after the one before."""
    with open(path, "wb") as file:
        for number in range(size // PIECE):
            file.seek(number * step)
            file.write(os.urandom(PIECE))
    return path.stat().st_size


@pytest.mark.parametrize(("delay", "loss", "rate"), LINES)
def test_distance(far, delay, loss, rate, request):
    shape(delay, loss, rate)
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    here, there = Path("/dev/shm/here"), Path("/dev/shm/there")
    rows = []
    for direction in ("upload", "download"):
        most = iperf(direction)
        size = int(min(max(LEAST, most * SECONDS), MOST)) // PIECE * PIECE
        source, target = (here, there) if direction == "upload" else (there, here)
        for name, move, step in (("library", library, 1), ("NBD", library, 2), ("curl", curl, 1)):
            if name == "curl":
                size = max(size // 8, LEAST)
            length = make(source, size, step * PIECE)
            target.write_bytes(b"")
            os.truncate(target, length)
            seconds = move(direction, str(here), far(there, length))
            output_of("cmp", str(here), str(there))
            rows.append(
                f"{direction:<9} {name:<8} {size / seconds * 8 / 1e6:7.1f} Mbit/s, "
                f"{size / seconds / most:5.2f} of iperf3 -P 8 with {most * 8 / 1e6:.1f}; {size / MiB:.0f} MiB"
            )
        here.unlink()
        there.unlink()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{delay} ms, {loss} % lost, {rate} Mbit/s, {control}", *rows, sep="\n  ", flush=True)
