"""What the functions of the library raise. All of it is an Error; nothing here knows how it came about.

Error
├── ServerError           the server refused: its status as `code`, its words as `message`
├── UnsupportedOperation  the server or the image cannot do that
├── InvalidValue          an argument cannot be used
├── SizeMismatch          the destination is smaller than the source
├── ImageExists           there is something at the path already (also a FileExistsError)
├── MemberNotFound        the archive has no such member (also a KeyError)
├── NotAnArchive          ... or is not one that we can use (also a tarfile.ReadError; in archive.py)
├── UnsafeImage           ... or an image uses another file that it should not
├── VerificationFailed    both ends differ after the copy
├── BackupDamaged         a file of a folder with backups is not what its manifest says
├── OutOfBounds           a read or write beyond the end (also a RuntimeError)
├── UnexpectedEnd         the data ended too early (also a RuntimeError)
└── StorageError          the disk, a connection, or qemu failed
    ├── NoSpace
    ├── BackendUnavailable
    │   └── BackendUntrusted  what answers has no good certificate, or does not speak HTTP
    └── BackendTimeout
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ovirt_imageio import errors
from ovirt_imageio.errors import (
    BackendTimeout,
    BackendUnavailable,
    BackendUntrusted,
    Error,
    InvalidValue,
    NoSpace,
    NotFound,
    StorageError,
    UnsafeImage,
)
from ovirt_imageio.errors import UnsupportedContext as UnsupportedOperation

__all__ = [
    "BackendTimeout",
    "BackendUnavailable",
    "BackendUntrusted",
    "BackupDamaged",
    "Error",
    "ImageExists",
    "InvalidArgument",
    "InvalidValue",
    "MemberNotFound",
    "NoSpace",
    "OutOfBounds",
    "ServerError",
    "SizeMismatch",
    "StorageError",
    "UnexpectedEnd",
    "UnsafeImage",
    "UnsupportedOperation",
    "VerificationFailed",
    "translated",
]


@dataclass(eq=False)
class ServerError(Error):
    """The server refused: its HTTP status and its words."""

    code: int
    message: str

    def __str__(self) -> str:
        return f"The server answered {self.code}: {self.message}"


class InvalidArgument(InvalidValue, ValueError):
    """Arguments that do not go together."""


@dataclass(eq=False)
class SizeMismatch(Error):
    """Nothing was sent or written: `size` bytes do not fit into `available`."""

    size: int
    available: int

    def __str__(self) -> str:
        return f"The source has {self.size} bytes, but the destination only {self.available}"


@dataclass(eq=False)
class ImageExists(Error, FileExistsError):
    """There is something at the path, and it may not be overwritten."""

    path: str

    def __str__(self) -> str:
        return f"{self.path} exists already"


class MemberNotFound(NotFound, KeyError):
    """The archive has no such member."""


@dataclass(eq=False)
class VerificationFailed(Error):
    """The checksums of both ends differ after the copy."""

    algorithm: str
    here: str
    there: str

    def __str__(self) -> str:
        return f"The copy differs: {self.algorithm} is {self.here} here, but {self.there} on the server"


@dataclass(eq=False)
class BackupDamaged(Error):
    """A file of a folder with backups is missing, or is not what it was."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


class OutOfBounds(errors.RangeNotSatisfiable, RuntimeError):
    """A read or write beyond the end of the image."""


class UnexpectedEnd(errors.PartialContent, RuntimeError):
    """The data ended too early."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors that mean something to a server into those of the library."""
    try:
        yield
    except errors.OriginError as error:
        raise ServerError(error.status, error.reason) from error
