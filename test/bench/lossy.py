"""A line with delay, losses and a rate between two network namespaces: TCP of the kernel at both ends, as it is.

    near ── tun ── lossy.py ── tun ── far

    with lossy(Weather(0.15, 0.001, 100e6 / 8)) as line:
        subprocess.run([*line.near, "iperf3", "-c", FAR])

Every packet of IP passes through this program, one process for each direction. Namespaces, devices and all that was
started in them end with the process that made the line, also when it is killed. It needs root, and /dev/net/tun.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

# It is also a program.
sys.path[:0] = [str(Path(__file__).resolve().parents[depth]) for depth in (1, 2)]

from bench.peers import need  # noqa: E402  (the path comes first)
from real.release import Missing  # noqa: E402

__all__ = ["FAR", "NEAR", "Leg", "Line", "Weather", "lossy"]

NEAR = "10.99.0.1"
FAR = "10.99.0.2"

# Of linux/if_tun.h: a device for packets of IP, which come without anything before them.
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

# More packets than ever wait between the kernel and this program, so that the device itself drops none.
DEVICE_QUEUE = 20_000

# What Linux begins with: the host may have been tuned.
BUFFERS = ["net.ipv4.tcp_rmem=4096 131072 6291456", "net.ipv4.tcp_wmem=4096 16384 4194304"]
CONGESTION = "cubic"


@dataclass(frozen=True)
class Weather:
    """What the line is like: seconds for the way there and back, the share of packets that is lost each way, and bytes
    per second.

    A packet that would wait for longer than `patience` seconds until the line is free is dropped.
    """

    round_trip: float
    loss: float = 0
    rate: float = 1e9
    patience: float = 0.1


class Leg:
    """One direction: packets leave in the order in which they came. Knows neither clocks nor devices."""

    def __init__(self, weather: Weather, dice: random.Random) -> None:
        self._weather = weather
        self._dice = dice
        self._free = 0.0
        self._queue: deque[tuple[float, bytes]] = deque()
        # Packets that passed, that were lost on the way, and that did not fit into the queue.
        self.passed = self.lost = self.dropped = 0

    @property
    def due(self) -> Optional[float]:
        """When the next packet arrives, None if none is under way."""
        return self._queue[0][0] if self._queue else None

    def send(self, packet: bytes, now: float) -> None:
        """Take a packet."""
        start = max(now, self._free)
        if start - now > self._weather.patience:
            self.dropped += 1
            return
        self._free = start + len(packet) / self._weather.rate
        # One that is lost on the way took its time on the line.
        if self._dice.random() < self._weather.loss:
            self.lost += 1
        else:
            self._queue.append((self._free + self._weather.round_trip / 2, packet))

    def receive(self, now: float) -> Iterator[bytes]:
        """Yield what has arrived."""
        while self._queue and self._queue[0][0] <= now:
            self.passed += 1
            yield self._queue.popleft()[1]


def forward(leg: Leg, source: int, target: int) -> None:
    """Move packets between two devices for ever."""
    while True:
        now = time.monotonic()
        for packet in leg.receive(now):
            # A device that is not up yet takes nothing.
            with contextlib.suppress(OSError):
                os.write(target, packet)
        wait = None if leg.due is None else max(0.0, leg.due - time.monotonic())
        # Its time-out is exact to the microsecond, where that of poll() is to the millisecond.
        select.select([source], [], [], wait)
        # As many as are there, but none that is due waits for long.
        for _ in range(64):
            try:
                leg.send(os.read(source, 65536), time.monotonic())
            except BlockingIOError:
                break


def open_device(stack: contextlib.ExitStack) -> tuple[int, str]:
    """Make a device that lives while its descriptor is open; return that, and its name. Raises Missing."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, device)
        request = fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TUN | IFF_NO_PI))
    except OSError as error:
        raise Missing(f"/dev/net/tun makes no device here: {error}") from error
    return device, request[:16].rstrip(b"\0").decode()


@dataclass(frozen=True)
class Line:
    """A line that is up: what stands before a command that shall run at one of its ends."""

    near: Sequence[str]
    far: Sequence[str]


# What dies with the process that started it.
MORTAL = ("setpriv", "--pdeathsig", "KILL")


@contextlib.contextmanager
def lossy(weather: Weather) -> Iterator[Line]:
    """Make a line, and print at the end what became of the packets. Raises Missing."""
    for program in ("ip", "nsenter", "setpriv", "sysctl", "unshare"):
        need(program)
    if os.geteuid():
        raise Missing("only root makes network namespaces")
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(namespace()) for _ in range(2))
        names = stack.enter_context(forwarding(weather))
        for inside, name, address, other in ((near, names[0], NEAR, FAR), (far, names[1], FAR, NEAR)):
            pid = inside[-1].split("/")[2]
            command("ip", "link", "set", name, "netns", pid)
            command(*inside, "ip", "link", "set", "lo", "up")
            command(*inside, "ip", "link", "set", name, "up", "txqueuelen", str(DEVICE_QUEUE))
            command(*inside, "ip", "address", "add", address, "dev", name)
            # The route has it, as a namespace may set only what the host allows to everybody.
            command(*inside, "ip", "route", "add", other, "dev", name, "src", address, "congctl", CONGESTION)
            command(*inside, "sysctl", "-q", "-w", *BUFFERS)
        yield Line(near, far)


def command(*words: str) -> None:
    """Run a program. Raises Missing when it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def namespace() -> Iterator[Sequence[str]]:
    """Make a network namespace without a name; give what runs a command in it."""
    # The shell tells that it is in there.
    words = [*MORTAL, "unshare", "--net", "sh", "-c", "echo && exec sleep infinity"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise Missing("a network namespace cannot be made here")
            yield [*MORTAL, "nsenter", f"--net=/proc/{process.pid}/ns/net"]
        finally:
            process.kill()


@contextlib.contextmanager
def forwarding(weather: Weather) -> Iterator[Sequence[str]]:
    """Run this program for each direction; give the names of both devices. Raises Missing."""
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as opening:
            (near, near_name), (far, far_name) = (open_device(opening) for _ in range(2))
            for name, source, target, seed in (("there", near, far, 17), ("back", far, near, 18)):
                stack.enter_context(running(name, weather, source, target, seed))
        yield near_name, far_name


@contextlib.contextmanager
def running(name: str, weather: Weather, source: int, target: int, seed: int) -> Iterator[None]:
    """Run this program for one direction; the losses of a seed are the same ones each time."""
    options = [source, target, seed, weather.round_trip, weather.loss, weather.rate, weather.patience]
    words = [*MORTAL, sys.executable, __file__, *map(str, options)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, pass_fds=[source, target]) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.stdout is not None
            print(f"  packets {name}: {process.stdout.read().strip()}", flush=True)


def main() -> None:
    """Forward until a signal comes, then tell what became of the packets."""
    parser = argparse.ArgumentParser()
    for name in ("source", "target", "seed"):
        parser.add_argument(name, type=int)
    for name in ("round_trip", "loss", "rate", "patience"):
        parser.add_argument(name, type=float)
    options = parser.parse_args()
    weather = Weather(options.round_trip, options.loss, options.rate, options.patience)
    leg = Leg(weather, random.Random(options.seed))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        forward(leg, options.source, options.target)
    finally:
        print(f"{leg.passed:,} passed, {leg.lost:,} lost, {leg.dropped:,} found the queue full")


if __name__ == "__main__":
    main()
