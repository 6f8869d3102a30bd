"""Several daemons without shared state, for real: scale.py [disks] [--kills N] [--daemons N] [--size MIB] [--seed N]

    client ──> HAProxy, by ticket ──> three daemons, each with ──> qemu-nbd ──> RBD image ──> a Ceph cluster of one node

First disks of other servers, see remote_disks.py; `disks` does nothing else. The daemons start and end qemu-nbd
themselves. Two of them write one image, and one meets a lock of another program. Then images are uploaded and
downloaded with the client library, by signed tickets, while daemons are killed with -9 at random and started again. All
transfers must end, equal byte by byte, and nobody asks for another ticket. Everything is on this machine, and ends with
this program.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import functools
import os
import random
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from fakes import ports  # noqa: E402
from fakes.signing import key_pair  # noqa: E402
from fakes.waiting import wait_until  # noqa: E402
from real import ceph, certificates  # noqa: E402
from real import daemon as real_daemon  # noqa: E402
from real.daemon import Daemon  # noqa: E402
from tools import remote_disks  # noqa: E402

from ovirt_imageio import client  # noqa: E402
from ovirt_imageio.admin.document import DiskChoice  # noqa: E402
from ovirt_imageio.admin.signing import Wish, presigned, sign  # noqa: E402

MIB = 1024**2

CONFIG = """\
[remote]
port = {port}
[local]
enable = false
[metrics]
enable = true
host = localhost
port = {health}
[signed_tickets]
enable = true
key_file = {folder}/public.pem
audience = scale
allow = image:raw:rbd:rbd/*:conf={folder}/ceph/ceph.conf
[export]
enable = true
allow = rbd:rbd/*:conf={folder}/ceph/ceph.conf
"""

# As docs/load-balancers.md has it, and by ticket: the second part of the path.
HAPROXY = """\
defaults
    mode http
    timeout connect 2s
    timeout client 10m
    timeout server 10m
    timeout tunnel 1h
    retries 3
    option redispatch 1
    http-reuse never

frontend images
    bind 127.0.0.1:{port} ssl crt {crt} alpn http/1.1
    default_backend daemons

backend daemons
    balance uri depth 2
    hash-type consistent
    option httpchk GET /health
    default-server ssl verify none check no-check-ssl inter 200ms fall 2 rise 1
{servers}
"""

# So many times a client tries again before it gives up: some 30 seconds.
RETRIES = 8


class Daemons:
    """Daemons at fixed ports, each of which can be killed and started again.

    Threads: one.
    """

    def __init__(self, folder: Path, places: list[tuple[int, int]]) -> None:
        self._folder = folder
        self._places = places
        self._count = 0
        self._running: list[tuple[Daemon, contextlib.ExitStack]] = []

    def __enter__(self) -> Daemons:
        for place in self._places:
            self._running.append(self._start(place))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for daemon, scope in self._running:
            daemon.process.kill()
            self._forget(scope)

    @property
    def ports(self) -> list[int]:
        """Where they are."""
        return [port for port, _ in self._places]

    @property
    def tls(self) -> ssl.SSLContext:
        """A context that trusts them."""
        return self._running[0][0].tls

    def kill(self, number: int) -> None:
        """Kill one; it has no time for anything."""
        self._running[number][0].process.kill()

    def start(self, number: int) -> None:
        """Start it again."""
        self._forget(self._running[number][1])
        self._running[number] = self._start(self._places[number])

    def _start(self, place: tuple[int, int]) -> tuple[Daemon, contextlib.ExitStack]:
        self._count += 1
        text = CONFIG.format(port=place[0], health=place[1], folder=self._folder)
        scope = contextlib.ExitStack()
        return scope.enter_context(real_daemon.running(self._folder / f"daemon-{self._count}", text)), scope

    def _forget(self, scope: contextlib.ExitStack) -> None:
        # It was killed, and says so.
        with contextlib.suppress(AssertionError):
            scope.close()


@contextlib.contextmanager
def balancer(folder: Path, port: int, places: list[tuple[int, int]]) -> Iterator[None]:
    """Run HAProxy."""
    made = certificates.certificate()
    crt = folder / "front.pem"
    crt.write_text(Path(made.cert_file).read_text() + Path(made.key_file).read_text())
    servers = "\n".join(f"    server d{n} localhost:{p} port {h}" for n, (p, h) in enumerate(places))
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, crt=crt, servers=servers))
    with open(folder / "haproxy.log", "wb") as log:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ticket_url(folder: Path, image: str, size: int, server: str) -> str:
    """Return the URL for clients of a signed ticket for an image."""
    disk = DiskChoice(url=f"image:raw:{image}", size=size)
    jti, token = sign(Wish(disk, "scale", 3600), str(folder / "private.pem"))
    return presigned(server, jti, token)


def share(cluster: ceph.Cluster, folder: Path, daemons: Daemons) -> None:
    """Let two daemons write one image in turn, while both have it open; then let somebody else lock it."""
    cluster.create("shared", MIB)
    urls = [ticket_url(folder, cluster.url("shared"), MIB, f"https://localhost:{port}") for port in daemons.ports[:2]]
    tls = daemons.tls
    half = MIB // 2
    for number in range(20):
        for place, url in enumerate(urls):
            part = bytes([number + place]) * half
            headers = {"Content-Range": f"bytes {place * half}-{(place + 1) * half - 1}/*"}
            urllib.request.urlopen(urllib.request.Request(url, part, headers, method="PUT"), context=tls).close()
        for url in urls:
            with urllib.request.urlopen(url, context=tls) as answer:
                assert answer.read() == bytes([number]) * half + bytes([number + 1]) * half, "a write is not seen"
    print("two daemons wrote one image in turn, and each saw what the other one had written", flush=True)
    cluster.create("locked", MIB)
    cluster.run("rbd", "lock", "add", "locked", "somebody")
    url = ticket_url(folder, cluster.url("locked"), MIB, f"https://localhost:{daemons.ports[0]}")
    try:
        urllib.request.urlopen(urllib.request.Request(url, bytes(MIB), method="PUT"), context=tls).close()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode()
        assert (error.code, "somebody" in text) == (503, True), text
        print(f"an image that is locked: {text}", flush=True)
    else:
        raise AssertionError("an image was written that somebody had locked")


def remove(cluster: ceph.Cluster, image: str) -> None:
    """Remove an image when nobody has it open any more: servers are kept for some seconds."""

    def try_it() -> bool:
        try:
            cluster.run("rbd", "rm", "--no-progress", image)
        except subprocess.CalledProcessError as error:
            assert "watchers" in error.stderr, error.stderr
            return False
        return True

    wait_until(try_it)


def write_source(path: Path, size: int, chance: random.Random) -> None:
    """Make an image of which a third is data, in pieces of any size."""
    with open(path, "wb") as file:
        file.truncate(size)
        offset = 0
        while offset < size:
            part = chance.randbytes(min(size - offset, chance.choice([4096, 65536, MIB, 3 * MIB])))
            os.pwrite(file.fileno(), part, offset)
            offset += 3 * len(part)


def disturbed(work: Callable[[], None], daemons: Daemons, chance: random.Random, count: int) -> int:
    """Do some work while daemons are killed; return how many were."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    kills = 0
    worker = threading.Thread(target=run)
    worker.start()
    while worker.is_alive():
        time.sleep(chance.uniform(0.05, 0.6))
        number = chance.randrange(count)
        daemons.kill(number)
        kills += worker.is_alive()
        time.sleep(chance.uniform(0, 0.5))
        daemons.start(number)
    worker.join()
    if failures:
        raise failures[0]
    return kills


def main(arguments: list[str]) -> int:
    """Run it; return an exit status."""
    parser = argparse.ArgumentParser(prog="scale")
    parser.add_argument("what", nargs="?", choices=["disks"], help="only disks of other servers, without Ceph")
    parser.add_argument("--kills", type=int, default=50, help="of daemons that serve a transfer")
    parser.add_argument("--daemons", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="of the image, MiB")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    size = options.size * MIB
    started = time.monotonic()
    kills = transfers = 0
    with tempfile.TemporaryDirectory(prefix="scale-") as name, contextlib.ExitStack() as scope:
        folder = Path(name)
        remote_disks.run(folder / "disks")
        if options.what:
            return 0
        (folder / "private.pem").write_bytes(key_pair()[0])
        (folder / "public.pem").write_bytes(key_pair()[1])
        cluster = scope.enter_context(ceph.Cluster(folder / "ceph"))
        port = scope.enter_context(ports.reserved())
        places = [
            (scope.enter_context(ports.reserved()), scope.enter_context(ports.reserved()))
            for _ in range(options.daemons)
        ]
        daemons = scope.enter_context(Daemons(folder, places))
        scope.enter_context(balancer(folder, port, places))
        ca_file = certificates.authority().cert_file
        source, copy = folder / "source", folder / "copy"
        share(cluster, folder, daemons)
        while kills < options.kills:
            image = f"disk-{transfers}"
            cluster.create(image, size)
            # One ticket for all that is done with the disk.
            url = ticket_url(folder, cluster.url(image), size, f"https://localhost:{port}")
            write_source(source, size, chance)
            upload = functools.partial(client.upload, str(source), url, ca_file, format="raw", retries=RETRIES)
            download = functools.partial(client.download, url, str(copy), ca_file, fmt="raw", retries=RETRIES)
            kills += disturbed(upload, daemons, chance, options.daemons)
            kills += disturbed(download, daemons, chance, options.daemons)
            if not filecmp.cmp(source, copy, shallow=False):
                print(f"{image}: the copy differs", file=sys.stderr)
                return 1
            compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), cluster.url(image)]
            if subprocess.run(compare, capture_output=True, check=False).returncode:
                print(f"{image}: the disk differs", file=sys.stderr)
                return 1
            copy.unlink()
            remove(cluster, image)
            transfers += 2
            print(f"{transfers} transfers, {kills} kills", flush=True)
    print(
        f"{transfers} transfers of {options.size} MiB over {options.daemons} daemons, {kills} times one of them was "
        f"killed with -9 while a transfer ran: all ended, equal byte by byte, each disk with one ticket; "
        f"{time.monotonic() - started:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
