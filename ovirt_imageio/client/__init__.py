"""Move disk images to and from servers: the library that backup programs import.

    upload, download                    whole images, in any format that qemu knows; changes since a backup
    info, measure, checksum, extents    what is in an image, here or on a server
    ImageioClient                       one connection, to read and write what one likes
    ProgressBar                         shows how far a transfer is
    Error ...                           everything that is raised; see errors.py

Everything else in this package may change. What upload and download both take:

    url             the transfer URL
    cafile          the certificates that the server is verified with; None: those of the system
    buffer_size     accepted for old callers: buffers are small, and there are several
    fingerprint     the SHA-256 of the server's certificate, instead of authorities that vouch for it
    secure          False: trust any server that answers
    progress        a callable that gets numbers of bytes, or an object like ProgressBar
    proxy_url       the same image on a proxy, used if the server of `url` cannot be reached
    max_workers     connections, at most as many as the server allows; the default is 8 where a round trip takes 20 ms
    resume          continue where an earlier call for the same image stopped, as a file beside it tells (or one at
                    the path given); that is deleted when all is done
    verify          compare checksums of both ends after the copy
    retries         how often a lost connection is made again without success in between
    bandwidth       the limit of all connections together, in bytes per second
    connect_timeout, read_timeout   seconds until the server must have answered the call, and until anything moved
"""

import importlib
from typing import TYPE_CHECKING, Any

from ovirt_imageio.client.presets import BUFFER_SIZE, MAX_WORKERS
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.version import __version__

if TYPE_CHECKING:
    from ovirt_imageio.client.api import checksum, download, extents, info, measure, upload
    from ovirt_imageio.client.archive import NotAnArchive
    from ovirt_imageio.client.errors import (
        BackendTimeout,
        BackendUnavailable,
        BackendUntrusted,
        Error,
        ImageExists,
        InvalidArgument,
        InvalidValue,
        MemberNotFound,
        NoSpace,
        OutOfBounds,
        ServerError,
        SizeMismatch,
        StorageError,
        UnexpectedEnd,
        UnsafeImage,
        UnsupportedOperation,
        VerificationFailed,
    )
    from ovirt_imageio.client.imageio import ImageioClient
    from ovirt_imageio.client.progress import ProgressBar

__all__ = [
    "BUFFER_SIZE",
    "MAX_WORKERS",
    "BackendTimeout",
    "BackendUnavailable",
    "BackendUntrusted",
    "DirtyExtent",
    "Error",
    "ImageExists",
    "ImageioClient",
    "InvalidArgument",
    "InvalidValue",
    "MemberNotFound",
    "NoSpace",
    "NotAnArchive",
    "OutOfBounds",
    "ProgressBar",
    "ServerError",
    "SizeMismatch",
    "StorageError",
    "UnexpectedEnd",
    "UnsafeImage",
    "UnsupportedOperation",
    "VerificationFailed",
    "ZeroExtent",
    "__version__",
    "checksum",
    "download",
    "extents",
    "info",
    "measure",
    "upload",
]

# The module of each name that is loaded when a program uses it; the other names are those of errors. Importing a module
# of this package imports the package first, and ovirt-img --help shall not wait for all that moves data.
HOMES = {
    **dict.fromkeys(["checksum", "download", "extents", "info", "measure", "upload"], "api"),
    "ImageioClient": "imageio",
    "NotAnArchive": "archive",
    "ProgressBar": "progress",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
