"""Upload and download: everything that happens around the copy engine.

Knows servers, images and the order in which things must be checked; the rules of what to copy are in plan.py.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.client import local, verify, ways
from ovirt_imageio.client import resume as resuming
from ovirt_imageio.client.copy import lanes, pace, plan
from ovirt_imageio.client.copy.engine import Copier, OpenLane
from ovirt_imageio.client.copy.reach import NEAR, Reach
from ovirt_imageio.client.errors import ImageExists, InvalidArgument, SizeMismatch
from ovirt_imageio.client.listing import list_extents
from ovirt_imageio.client.local import ImageFile
from ovirt_imageio.client.newqcow2 import NewQcow2
from ovirt_imageio.client.presets import CONNECT_TIMEOUT, MAX_WORKERS, READ_TIMEOUT, RETRIES
from ovirt_imageio.client.progress import Progress, Reporter, Route
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.client.target import QemuImage, Target, partial
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.geometry.outline import Outline
from ovirt_imageio.geometry.qcow2 import MAX_DISK
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.pipeline import Pipeline
from ovirt_imageio.qemu.node import is_block_device

__all__ = ["Download", "TransferOptions", "Upload", "spare_after"]

log = logging.getLogger(__name__)

# A gap that is copied along is written as zeroes, which take space. Below this most images cannot do without anyway.
UPLOAD_GAP = 32 * 1024

# As many extents of the disk that is written to are looked at; it should have few.
MAX_KNOWN = 100_000

# Lists of extents that are longer are not kept, and larger tables not written, before a server has sent any data: qemu
# makes them while it writes. The tables are enough for 2 TiB that are all data.
MAX_CHANGES = 1_000_000
MAX_TABLES = 256 * 1024**2


@dataclass
class TransferOptions:
    """What upload and download have in common; the package describes it."""

    secure: bool = True
    progress: Optional[Progress] = None
    proxy_url: Optional[str] = None
    max_workers: int = MAX_WORKERS
    resume: Union[bool, str, os.PathLike[str]] = False
    verify: bool = False
    retries: int = RETRIES
    bandwidth: Optional[float] = None
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    fingerprint: Optional[str] = None
    throttle: pace.Throttle = field(init=False)
    reporter: Reporter = field(init=False)

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise InvalidArgument("retries", self.retries, "0 or more")
        # Wrong values are found before anything is opened.
        self.throttle = pace.Throttle(self.bandwidth)
        self.reporter = Reporter(self.progress)

    def remote(self, url: str, cafile: Optional[str]) -> Remote:
        """Return the image on the server."""
        return Remote(
            url,
            cafile,
            secure=self.secure,
            fingerprint=self.fingerprint,
            proxy_url=self.proxy_url,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            retries=self.retries,
        )

    def workers(self, limit: int, reach: Reach = NEAR) -> int:
        """Return how many workers there will be, when the server allows `limit`."""
        # Another number than the default is what somebody wants.
        wanted = reach.connections if self.max_workers == MAX_WORKERS else self.max_workers
        return max(1, min(limit, wanted))

    def copy(
        self,
        tasks: Iterable[plan.Task],
        open_lane: OpenLane,
        workers: int,
        journal: Optional[resuming.Journal],
        *,
        name: str,
        listers: int = 0,
    ) -> None:
        """Carry out the tasks; see Copier."""
        copier = Copier(
            open_lane,
            workers,
            self.reporter,
            throttle=self.throttle,
            retries=self.retries,
            journal=journal,
            listers=listers,
            name=name,
        )
        copier.run(tasks)

    def went(self, remote: Remote, there: Image, protocol: str, mode: str) -> None:
        """Tell which way the bytes went."""
        transport = there.resource.origin.transport
        # A Unix socket is not encrypted: the server said this of the TLS connection on which it offered that socket.
        tls = there.abilities.tls if transport == "tls" else None
        self.reporter.went(Route(transport, protocol.lower(), remote.is_proxy, mode, tls))

    def journal(self, filename: str, transfer: dict[str, Any]) -> Optional[resuming.Journal]:
        """Return the journal of a transfer that can be resumed, None for others."""
        if not self.resume:
            return None
        path = f"{filename}.resume" if self.resume is True else os.fspath(self.resume)
        return resuming.Journal(path, transfer)


@dataclass(frozen=True)
class Upload:
    """One upload."""

    filename: str
    url: str
    cafile: Optional[str]
    options: TransferOptions
    member: Optional[str] = None
    backing_chain: bool = True
    disk_is_zero: bool = False
    format: Optional[str] = None
    detect_zeroes: bool = False

    def run(self) -> None:
        """Upload. Everything that can be refused is refused before the first byte is sent."""
        options = self.options
        if options.verify and not self.backing_chain:
            raise InvalidArgument("verify", True, "backing_chain=True: one layer alone cannot be compared")
        with contextlib.ExitStack() as stack:
            remote = options.remote(self.url, self.cafile)
            stack.callback(remote.close)
            first = remote.connect()
            remote.spare(first)
            workers = options.workers(first.abilities.max_writers, remote.reach)
            remote.prepare(min(workers, remote.reach.pieces(first.abilities.size)) - 1)
            image = local.find(self.filename, self.member, self.format, backing_chain=self.backing_chain)
            serving = local.served(image, connections=workers + 1, backing_chain=self.backing_chain)
            open_local = stack.enter_context(serving)
            lister = stack.enter_context(contextlib.closing(open_local()))
            size = lister.size()
            available = check_size(first, size)
            journal = self._journal(lister, first, size)
            options.reporter.begin(max(size, available))
            done = journal.done if journal else ()
            tasks = plan.plan(
                self._extents(lister, size, available),
                self._rules(remote.reach.share_of(size, workers)),
                done,
                self._zeroes(remote, first),
            )
            way, tasks = ways.choose(tasks, remote, first, max(size, available), workers=workers)
            stack.callback(way.close)
            open_lane = way.uploading(open_local, detect_zeroes=self.detect_zeroes)
            options.copy(tasks, open_lane, workers, journal, name="upload")
            options.went(remote, first, way.name, "full")
            log.info("Uploaded by %s", way.name)
            if options.verify:
                with contextlib.closing(remote.open()) as there:
                    verify.compare(lister, HttpBackend(there, writable=False))
            if journal is not None:
                journal.remove()

    def rehearse(self) -> int:
        """Check what can be checked before anything is sent; return the size of the image on the server."""
        with contextlib.ExitStack() as stack:
            there = stack.enter_context(contextlib.closing(self.options.remote(self.url, self.cafile).connect()))
            image = local.find(self.filename, self.member, self.format, backing_chain=self.backing_chain)
            here = stack.enter_context(local.opened(image))
            return check_size(there, here.size())

    def _rules(self, max_copy: int) -> plan.Rules:
        zero = not (self.disk_is_zero and self.backing_chain)
        if self.detect_zeroes:
            max_copy = min(max_copy, lanes.UploadLane.BLOCK)
        return plan.Rules(zero, self.backing_chain, max_gap=UPLOAD_GAP, is_gap_written=True, max_copy=max_copy)

    def _zeroes(self, remote: Remote, there: Image) -> list[tuple[int, int]]:
        """Return what the server says is zero already, so that a new disk need not be zeroed again.

        Not where zeroing is more than that: it allocates a disk that is not sparse, and hides what is below a layer.
        """
        if not there.abilities.is_sparse or not self.backing_chain or self.disk_is_zero:
            return []
        try:
            known = itertools.islice(list_extents(remote, there, "zero"), MAX_KNOWN)
            return [(extent.start, extent.start + extent.length) for extent in known if extent.zero]
        except errors.Error as error:
            log.debug("The server does not tell what is zero: %s", error)
            return []

    def _extents(self, lister: Backend, size: int, available: int) -> Iterator[Extent]:
        """Return what the image has, and zeroes behind its end, where the server may have something old."""
        tail = ZeroExtent(size, available - size, True, not self.backing_chain)
        return itertools.chain(lister.extents("zero"), [tail] if tail.length > 0 else [])

    def _journal(self, lister: Backend, there: Image, size: int) -> Optional[resuming.Journal]:
        info = os.stat(self.filename)
        transfer = {
            "direction": "upload",
            "size": size,
            "source": [info.st_size, info.st_mtime_ns, info.st_ino],
            "member": self.member,
            "format": self.format,
            "backing_chain": self.backing_chain,
        }
        journal = self.options.journal(self.filename, transfer)
        if journal is not None:
            journal.load()
            journal.trust_or_forget(lister, HttpBackend(there, writable=False))
        return journal


@dataclass(frozen=True)
class Download:
    """One download."""

    url: str
    filename: str
    cafile: Optional[str]
    options: TransferOptions
    format: str = "qcow2"
    incremental: bool = False
    backing_file: Optional[str] = None
    backing_format: Optional[str] = None
    overwrite: bool = True

    def run(self) -> None:
        """Download. Everything that can be refused is refused before anything is created."""
        self._check()
        options = self.options
        with contextlib.ExitStack() as stack:
            remote = options.remote(self.url, self.cafile)
            stack.callback(remote.close)
            first = remote.connect()
            stack.callback(first.close)
            limit = first.abilities.max_readers
            workers = options.workers(limit, remote.reach)
            remote.prepare(min(workers, remote.reach.pieces(first.abilities.size)) - 1)
            size = first.size()
            direct = self._direct(remote, first, size)
            target = direct or self._through_qemu(size)
            stack.callback(target.close)
            journal = self._journal(first, size, target)
            listers = 0
            if direct is not None:
                extents: Iterator[Extent] = direct.outline.extents()
                remote.spare(first)
            else:
                # Whether the server can tell is known before anything is created.
                extents = list_extents(remote, first, "dirty" if self.incremental else "zero", options.retries)
                # The first connection does that; another one may go on by NBD, if the server allows as many.
                listers = 2 if workers == limit > 2 else 1
            with partial(target, self.filename, journal):
                with target.served(workers + 1) as open_local:
                    options.reporter.begin(size)
                    rules = self._rules(remote.reach.share_of(size, workers), remote.reach.max_gap)
                    tasks = plan.plan(extents, rules, journal.done if journal else ())
                    listed = spare_after(tasks, remote, first) if listers else tasks
                    way, listed = ways.choose(listed, remote, first, size, workers=workers, listers=listers)
                    stack.callback(way.close)
                    open_lane = way.downloading(open_local)
                    options.copy(listed, open_lane, workers, journal, name="download", listers=listers)
                options.went(remote, first, way.name, "incremental" if self.incremental else "full")
                log.info("Downloaded by %s", way.name)
                if options.verify:
                    # What qemu reads in the file that is complete now.
                    with (
                        local.opened(ImageFile(self.filename, self.format)) as here,
                        contextlib.closing(remote.open()) as there,
                    ):
                        verify.compare(here, HttpBackend(there, writable=False))
            if journal is not None:
                journal.remove()

    def rehearse(self) -> int:
        """Check what can be checked before anything is created; return the size of the image on the server."""
        self._check()
        remote = self.options.remote(self.url, self.cafile)
        with contextlib.closing(remote.connect()) as there:
            if self.incremental:
                # Raises if the server cannot tell what changed.
                list_extents(remote, there, "dirty")
            return there.size()

    def _check(self) -> None:
        local.check_path(self.filename)
        if self.incremental and self.format != "qcow2":
            raise InvalidArgument("fmt", self.format, f'"qcow2" for incremental={self.incremental}')
        if self.options.verify and self.incremental and self.backing_file is None:
            raise InvalidArgument("verify", True, "a backing_file: changes alone cannot be compared")
        if not self.overwrite and not self.options.resume and os.path.lexists(self.filename):
            raise ImageExists(self.filename)
        if os.path.exists(self.filename) and not (os.path.isfile(self.filename) or is_block_device(self.filename)):
            raise InvalidArgument("filename", self.filename, "a file, or a block device")

    def _rules(self, max_copy: int, max_gap: int) -> plan.Rules:
        # A new image reads as zero, but not one with a backing file, nor a device with whatever was on it before.
        is_stale = self.format == "raw" and is_block_device(self.filename)
        return plan.Rules(
            zero=self.backing_file is not None or is_stale,
            hole=is_stale,
            dirty=self.incremental,
            max_gap=max_gap,
            max_copy=max_copy,
        )

    def _direct(self, remote: Remote, there: Image, size: int) -> Optional[NewQcow2]:
        """Return the image if it can be written without qemu: then what is where in it is known before data come."""
        if self.format != "qcow2" or self.incremental or self.backing_file is not None:
            return None
        if size > MAX_DISK or is_block_device(self.filename):
            return None
        with contextlib.closing(list_extents(remote, there, "zero", self.options.retries)) as extents:
            outline = Outline(size, extents, MAX_CHANGES)
        image = NewQcow2(self.filename, outline) if outline.is_complete else None
        return image if image is not None and image.tables_length <= MAX_TABLES else None

    def _through_qemu(self, size: int) -> QemuImage:
        return QemuImage(ImageFile(self.filename, self.format), size, self.backing_file, self.backing_format)

    def _journal(self, there: Image, size: int, target: Target) -> Optional[resuming.Journal]:
        transfer = {
            "direction": "download",
            "size": size,
            "format": self.format,
            "incremental": self.incremental,
            "backing_file": self.backing_file,
            **({} if target.tag is None else {"layout": target.tag}),
        }
        journal = self.options.journal(self.filename, transfer)
        if journal is not None:
            journal.load()
            if journal.done and not os.path.exists(self.filename):
                journal.forget()
            elif journal.done:
                with target.opened() as here:
                    if here.size() < size:
                        log.warning("Starting over: %s is shorter than it was", self.filename)
                        journal.forget()
                    else:
                        journal.trust_or_forget(here, HttpBackend(there, writable=False))
            if not journal.done and not self.overwrite and os.path.lexists(self.filename):
                raise ImageExists(self.filename)
        return journal


def check_size(there: Image, size: int) -> int:
    """Return the size of the image on the server. Raises SizeMismatch if `size` bytes do not fit."""
    available = there.size()
    if available >= size:
        return available
    # Some files grow while they are written, up to a size that the server does not tell. To zero nothing tells.
    if "zero" in there.abilities.features:
        pipeline = Pipeline(there)
        pipeline.zero(size, 0)
        try:
            pipeline.finish()
        except errors.OriginError as error:
            if error.status == 416:
                raise SizeMismatch(size, available) from None
            log.debug("The server does not tell whether %d bytes fit: %s", size, error)
        finally:
            pipeline.drop()
    return available


def spare_after(tasks: Iterable[plan.Task], remote: Remote, image: Image) -> Iterator[plan.Task]:
    """Yield tasks, then leave the connection that listed them to the next worker."""
    yield from tasks
    remote.spare(image)
