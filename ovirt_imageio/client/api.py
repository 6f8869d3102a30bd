"""The functions of the library: upload, download, and what one wants to know of images.

    from ovirt_imageio import client

    client.upload("disk.qcow2", transfer.transfer_url, "ca.pem", progress=client.ProgressBar())
    client.download(transfer.transfer_url, "backup.qcow2", "ca.pem", incremental=True)

Arguments after `*` are newer than those before; callers ask inspect.signature() which ones there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Optional, Union

from ovirt_imageio import checksum as checksums
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client import images, transfer
from ovirt_imageio.client.connection import BUFFER_SIZE
from ovirt_imageio.client.copy import MAX_WORKERS
from ovirt_imageio.client.errors import InvalidArgument, translated
from ovirt_imageio.client.progress import Progress
from ovirt_imageio.client.remote import CONNECT_TIMEOUT, READ_TIMEOUT, RETRIES, Remote
from ovirt_imageio.extent import Extent

__all__ = ["checksum", "download", "extents", "info", "measure", "upload"]


def upload(
    filename: str,
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
    resume: Union[bool, str] = False,
    verify: bool = False,
    retries: int = RETRIES,
    bandwidth: Optional[float] = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
) -> None:
    """Upload an image, of any format that qemu reads, as the raw data that a guest sees.

    filename        the image, or with `member` the archive (a tar or OVA, not compressed) that it is in
    url             the transfer URL; proxy_url: the same image on a proxy, used if the first cannot be reached
    cafile          the certificates that the server is verified with; None: those of the system
    buffer_size     accepted for old callers: buffers are small, and there are several
    secure          False: trust anybody who answers
    progress        a callable that gets numbers of bytes, or an object like ProgressBar
    max_workers     connections, at most as many as the server allows
    backing_chain   False: upload only the top layer, for a snapshot whose lower layers are there already
    disk_is_zero    the image on the server reads as zero, so zeroes need not be sent
    format          the format of the image. Without it qemu looks, which an untrusted raw image can abuse: its guest
                    may have written the header of another format there, which names any file of this host
    detect_zeroes   look for zeroes in what is allocated, and do not send them: for preallocated images
    resume          continue where an earlier call with the same image stopped, as a file beside it tells (or one at
                    the path given); it is deleted when all is done
    verify          compare checksums of both ends after the copy
    retries         how often a lost connection is made again without success in between
    bandwidth       the limit of all connections together, in bytes per second
    connect_timeout, read_timeout   seconds until the server must have answered the call, and until anything moved

    What is beyond the end of a smaller image becomes zero on the server. Raises the errors of ovirt_imageio.client.
    """
    options = transfer.Options(
        secure=secure,
        progress=progress,
        proxy_url=proxy_url,
        max_workers=max_workers,
        resume=resume,
        verify=verify,
        retries=retries,
        bandwidth=bandwidth,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    with translated():
        transfer.Upload(
            filename, url, cafile, options, member, backing_chain, disk_is_zero, format, detect_zeroes
        ).run()


def download(
    url: str,
    filename: str,
    cafile: Optional[str],
    fmt: str = "qcow2",
    incremental: bool = False,
    buffer_size: int = BUFFER_SIZE,
    secure: bool = True,
    progress: Optional[Progress] = None,
    proxy_url: Optional[str] = None,
    max_workers: int = MAX_WORKERS,
    backing_file: Optional[str] = None,
    backing_format: Optional[str] = None,
    *,
    overwrite: bool = True,
    resume: Union[bool, str] = False,
    verify: bool = False,
    retries: int = RETRIES,
    bandwidth: Optional[float] = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
) -> None:
    """Download an image; what reads as zero takes no space.

    fmt             the format of the file that is created: "qcow2", "raw", or any other that qemu creates
    incremental     only what changed since the checkpoint of the backup; needs "qcow2", and such a transfer
    backing_file    what the new image stands on, and its format; zeroes that hide data of it are written
    overwrite       False: raise ImageExists if there is something at filename

    The other arguments are those of upload(). If it fails, no part of an image is left behind; with `resume` it is
    left, and a file beside it tells that it is not complete. Raises the errors of ovirt_imageio.client.
    """
    options = transfer.Options(
        secure=secure,
        progress=progress,
        proxy_url=proxy_url,
        max_workers=max_workers,
        resume=resume,
        verify=verify,
        retries=retries,
        bandwidth=bandwidth,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    with translated():
        transfer.Download(
            url, filename, cafile, options, fmt, incremental, backing_file, backing_format, overwrite
        ).run()


def info(filename: str, member: Optional[str] = None) -> dict[str, Any]:
    """Return what qemu-img knows of an image: "format", "virtual-size", "actual-size" ...

    For a member of an archive also "member-offset" and "member-size".
    """
    return images.info(filename, member)


def measure(filename: str, dst_fmt: str, member: Optional[str] = None) -> dict[str, Any]:
    """Return how much space an image needs in the format `dst_fmt`: "required" and "fully-allocated"."""
    return images.measure(filename, dst_fmt, member)


def checksum(
    filename: str,
    member: Optional[str] = None,
    block_size: int = checksums.BLOCK_SIZE,
    algorithm: str = checksums.DEFAULT_ALGORITHM,
    detect_zeroes: bool = True,
    *,
    cafile: Optional[str] = None,
    secure: bool = True,
    proxy_url: Optional[str] = None,
    read_timeout: float = READ_TIMEOUT,
) -> dict[str, Any]:
    """Return the checksum of what a guest sees: "algorithm", "block_size" and "checksum".

    filename        an image here, or the transfer URL of one on a server, which then computes by itself
    block_size      blocks are hashed one by one; equal disks have equal checksums only for the same block size
    algorithm       a name of hashlib; blake2 digests have 32 bytes
    detect_zeroes   accepted for old callers: zeroes are always found, and never change the result

    cafile, secure, proxy_url and read_timeout are for a URL.
    """
    if algorithm not in checksums.algorithms():
        raise InvalidArgument("algorithm", algorithm, f"one of {', '.join(checksums.algorithms())}")
    if block_size <= 0:
        raise InvalidArgument("block_size", block_size, "a positive number of bytes")
    with translated(), contextlib.ExitStack() as stack:
        if is_url(filename):
            backend = stack.enter_context(there(filename, cafile, secure, proxy_url, read_timeout))
        else:
            backend = stack.enter_context(images.opened(images.find(filename, member)))
        operation = checksums.Checksum(backend, algorithm, block_size)
        operation.run()
    return {"algorithm": algorithm, "block_size": block_size, "checksum": operation.result}


def extents(
    filename: str,
    member: Optional[str] = None,
    bitmap: Optional[str] = None,
    *,
    dirty: bool = False,
    cafile: Optional[str] = None,
    secure: bool = True,
    proxy_url: Optional[str] = None,
    read_timeout: float = READ_TIMEOUT,
) -> Iterator[Extent]:
    """Yield the extents of an image: ZeroExtent, or with `bitmap`, the name of one in a qcow2 image, DirtyExtent.

    filename may be the transfer URL of an image on a server; then `dirty` asks for the dirty ones. Nothing is opened
    before the first extent is asked for; all is closed after the last one, or when the generator is.
    """
    with translated(), contextlib.ExitStack() as stack:
        if is_url(filename):
            backend = stack.enter_context(there(filename, cafile, secure, proxy_url, read_timeout))
        else:
            backend = stack.enter_context(images.opened(images.find(filename, member), bitmap=bitmap))
        yield from backend.extents("dirty" if dirty or bitmap is not None else "zero")


def is_url(text: str) -> bool:
    """Is it the URL of an image on a server?"""
    return str(text).startswith(("http://", "https://"))


@contextlib.contextmanager
def there(
    url: str, cafile: Optional[str], secure: bool, proxy_url: Optional[str], read_timeout: float
) -> Iterator[Backend]:
    """Open an image on a server."""
    remote = Remote(url, cafile, secure=secure, proxy_url=proxy_url, read_timeout=read_timeout)
    with contextlib.closing(remote.connect()) as backend:
        yield backend
