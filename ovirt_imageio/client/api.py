"""The functions of the library: upload, download, and what one wants to know of images.

    from ovirt_imageio import client

    client.upload("disk.qcow2", transfer.transfer_url, "ca.pem", progress=client.ProgressBar())
    client.download(transfer.transfer_url, "backup.qcow2", "ca.pem", incremental=True)

Arguments after `*` are newer than those before; callers ask inspect.signature() which ones there are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Optional, Union

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.client import local, transfer
from ovirt_imageio.client.errors import InvalidArgument, translated
from ovirt_imageio.client.listing import list_extents
from ovirt_imageio.client.presets import BUFFER_SIZE, CONNECT_TIMEOUT, MAX_WORKERS, READ_TIMEOUT, RETRIES
from ovirt_imageio.client.progress import Progress
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.ops import checksum as checksums
from ovirt_imageio.origin.url import is_url

__all__ = ["checksum", "download", "extents", "info", "measure", "upload"]

# Where an image is.
Path = Union[str, os.PathLike[str]]


def upload(
    filename: Path,
    url: str,
    cafile: Optional[str],
    buffer_size: int = BUFFER_SIZE,
    secure: bool = True,
    progress: Optional[Progress] = None,
    proxy_url: Optional[str] = None,
    max_workers: int = MAX_WORKERS,
    member: Optional[str] = None,
    backing_chain: bool = True,
    disk_is_zero: bool = False,
    *,
    format: Optional[str] = None,
    detect_zeroes: bool = False,
    resume: Union[bool, Path] = False,
    verify: bool = False,
    retries: int = RETRIES,
    bandwidth: Optional[float] = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
    fingerprint: Optional[str] = None,
) -> None:
    """Upload an image, of any format that qemu reads, as the raw data that a guest sees.

    filename        the image, or with `member` the archive (a tar or OVA, not compressed) that it is in
    backing_chain   False: upload only the top layer, for a snapshot whose lower layers are there already
    disk_is_zero    the image on the server reads as zero, so zeroes need not be sent
    format          what the image is; without it qemu looks, which is dangerous for images of strangers
    detect_zeroes   look for zeroes in what is allocated, and do not send them: for preallocated images

    The other arguments are those of download(), too: help(ovirt_imageio.client) has them. What is beyond the end of a
    smaller image becomes zero on the server. Raises the errors of ovirt_imageio.client.
    """
    options = transfer.TransferOptions(
        secure,
        progress,
        proxy_url,
        max_workers,
        resume,
        verify,
        retries,
        bandwidth,
        connect_timeout,
        read_timeout,
        fingerprint,
    )
    with translated():
        transfer.Upload(
            os.fspath(filename), url, cafile, options, member, backing_chain, disk_is_zero, format, detect_zeroes
        ).run()


def download(
    url: str,
    filename: Path,
    cafile: Optional[str],
    fmt: str = "qcow2",
    incremental: bool = False,
    buffer_size: int = BUFFER_SIZE,
    secure: bool = True,
    progress: Optional[Progress] = None,
    proxy_url: Optional[str] = None,
    max_workers: int = MAX_WORKERS,
    backing_file: Optional[Path] = None,
    backing_format: Optional[str] = None,
    *,
    overwrite: bool = True,
    resume: Union[bool, Path] = False,
    verify: bool = False,
    retries: int = RETRIES,
    bandwidth: Optional[float] = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
    fingerprint: Optional[str] = None,
) -> None:
    """Download an image; what reads as zero takes no space.

    fmt             the format of the file that is created: "qcow2", "raw", or any other that qemu creates
    incremental     only what changed since the checkpoint of the backup; needs "qcow2", and such a transfer
    backing_file    what the new image stands on, and its format; zeroes that hide data of it are written
    overwrite       False: raise ImageExists if there is something at filename

    The other arguments are those of upload(), too: help(ovirt_imageio.client) has them. If it fails, no part of an
    image is left behind; with `resume` it is left, and a file beside it tells that it is not complete. Raises the
    errors of ovirt_imageio.client.
    """
    options = transfer.TransferOptions(
        secure,
        progress,
        proxy_url,
        max_workers,
        resume,
        verify,
        retries,
        bandwidth,
        connect_timeout,
        read_timeout,
        fingerprint,
    )
    below = os.fspath(backing_file) if backing_file else None
    with translated():
        transfer.Download(
            url, os.fspath(filename), cafile, options, fmt, incremental, below, backing_format, overwrite
        ).run()


def info(filename: Path, member: Optional[str] = None) -> dict[str, Any]:
    """Return what qemu-img knows of an image: "format", "virtual-size", "actual-size" ...

    For a member of an archive also "member-offset" and "member-size".
    """
    return local.info(os.fspath(filename), member)


def measure(filename: Path, dst_fmt: str, member: Optional[str] = None) -> dict[str, Any]:
    """Return how much space an image needs in the format `dst_fmt`: "required" and "fully-allocated"."""
    return local.measure(os.fspath(filename), dst_fmt, member)


def checksum(
    filename: Path,
    member: Optional[str] = None,
    block_size: int = checksums.BLOCK_SIZE,
    algorithm: str = checksums.DEFAULT_ALGORITHM,
    detect_zeroes: bool = True,
    *,
    cafile: Optional[str] = None,
    secure: bool = True,
    proxy_url: Optional[str] = None,
    read_timeout: float = READ_TIMEOUT,
    fingerprint: Optional[str] = None,
) -> dict[str, Any]:
    """Return the checksum of what a guest sees: "algorithm", "block_size" and "checksum".

    filename        an image here, or the transfer URL of one on a server, which then computes by itself
    block_size      blocks are hashed one by one; equal disks have equal checksums only for the same block size
    algorithm       a name of hashlib; blake2 digests have 32 bytes
    detect_zeroes   accepted for old callers: zeroes are always found, and never change the result

    cafile, secure, proxy_url, read_timeout and fingerprint are for a URL.
    """
    if algorithm not in checksums.algorithms():
        raise InvalidArgument("algorithm", algorithm, f"one of {', '.join(checksums.algorithms())}")
    if block_size <= 0:
        raise InvalidArgument("block_size", block_size, "a positive number of bytes")
    place = opened(filename, member, cafile, secure, proxy_url, read_timeout, fingerprint)
    with translated(), place as backend:
        operation = checksums.Checksum(backend, algorithm, block_size)
        operation.run()
    return {"algorithm": algorithm, "block_size": block_size, "checksum": operation.result}


def extents(
    filename: Path,
    member: Optional[str] = None,
    bitmap: Optional[str] = None,
    *,
    dirty: bool = False,
    cafile: Optional[str] = None,
    secure: bool = True,
    proxy_url: Optional[str] = None,
    read_timeout: float = READ_TIMEOUT,
    fingerprint: Optional[str] = None,
) -> Iterator[Extent]:
    """Yield the extents of an image: ZeroExtent, or with `bitmap`, the name of one in a qcow2 image, DirtyExtent.

    filename may be the transfer URL of an image on a server; then `dirty` asks for the dirty ones. Nothing is opened
    before the first extent is asked for; all is closed after the last one, or when the generator is.
    """
    context = "dirty" if dirty or bitmap is not None else "zero"
    path = os.fspath(filename)
    with translated():
        if is_url(path):
            remote = remote_image(path, cafile, secure, proxy_url, read_timeout, fingerprint)
            with contextlib.closing(remote.connect()) as image:
                yield from list_extents(remote, image, context)
        else:
            with local.opened(local.find(path, member), bitmap=bitmap) as backend:
                yield from backend.extents(context)


@contextlib.contextmanager
def opened(
    filename: Path,
    member: Optional[str],
    cafile: Optional[str],
    secure: bool,
    proxy_url: Optional[str],
    read_timeout: float,
    fingerprint: Optional[str],
) -> Iterator[Backend]:
    """Open an image to look at it: one here, or the one at a transfer URL."""
    path = os.fspath(filename)
    if is_url(path):
        remote = remote_image(path, cafile, secure, proxy_url, read_timeout, fingerprint)
        with contextlib.closing(HttpBackend(remote.connect(), writable=False, dirty=True)) as backend:
            yield backend
    else:
        with local.opened(local.find(path, member)) as backend:
            yield backend


def remote_image(
    url: str,
    cafile: Optional[str],
    secure: bool,
    proxy_url: Optional[str],
    read_timeout: float,
    fingerprint: Optional[str],
) -> Remote:
    """Return the image at a transfer URL."""
    return Remote(url, cafile, secure=secure, fingerprint=fingerprint, proxy_url=proxy_url, read_timeout=read_timeout)
