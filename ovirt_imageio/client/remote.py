"""An image on a server: which of its URLs can be reached, and connections to it.

Knows URLs and TLS; knows nothing of images here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ovirt_imageio import errors
from ovirt_imageio.client.ahead import Ahead
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.copy.ends import NBDEnd, attach, translated_there
from ovirt_imageio.client.copy.reach import NEAR, reach
from ovirt_imageio.client.errors import InvalidArgument
from ovirt_imageio.client.presets import CONNECT_TIMEOUT, READ_TIMEOUT
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.connect import speak
from ovirt_imageio.nbd.errors import ConnectionDead
from ovirt_imageio.net import tls
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.abilities import Abilities
from ovirt_imageio.origin.answers import is_passing
from ovirt_imageio.origin.connection import Lost
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.server import Approach
from ovirt_imageio.origin.tunnel import choose
from ovirt_imageio.origin.url import bracketed, without_secrets

__all__ = ["Remote"]

log = logging.getLogger(__name__)

# What can stand in a header: three texts of base64.
TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Remote:
    """The image at a transfer URL, or at the URL of the same image on a proxy.

    A server is trusted when authorities in `cafile` vouch for its certificate, or when that has the `fingerprint`. The
    proxy is used only if the first connection to `transfer_url` cannot be made; never because the server there refuses,
    or cannot be trusted.

    Threads: any, once `connect` has returned.
    """

    def __init__(
        self,
        transfer_url: str,
        cafile: Optional[str],
        *,
        secure: bool = True,
        fingerprint: Optional[str] = None,
        proxy_url: Optional[str] = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        retries: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Whether it is the URL of an image is seen when it is opened; an empty one would not even be tried.
        if not transfer_url:
            raise errors.InvalidValue("url", transfer_url, "https://HOST:PORT/images/TICKET")
        self._urls = [plain_url(url) for url in (transfer_url, proxy_url) if url]
        is_secret = any(url.startswith("https:") for url in self._urls)
        self._approach = Approach(
            context=make_context(cafile, secure, fingerprint) if is_secret else None,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            token=token_of(transfer_url),
        )
        self._retries = retries
        self._clock = clock
        self._lock = threading.Lock()
        self._spare: Optional[Image] = None
        self._ahead: Optional[Ahead[Image]] = None
        # Known when connect() has returned.
        self.is_proxy = False
        self.reach = NEAR
        # Those of the image, which a server that is far is not asked for again: it takes one round trip.
        self._abilities: Optional[Abilities] = None

    def connect(self) -> Image:
        """Make the first connection, and so decide which URL to use."""
        for number, url in enumerate(self._urls):
            try:
                image = self._open(url, Lifeline())
            except (errors.BackendUnavailable, errors.BackendTimeout) as error:
                if number == len(self._urls) - 1 or isinstance(error, errors.BackendUntrusted):
                    raise
                log.warning("Trying the proxy, as the transfer URL cannot be used: %s", error)
            else:
                self._urls = [url]
                self.is_proxy = number > 0
                self.reach = reach(image.round_trip, image.abilities.can_pipeline)
                if self.reach != NEAR:
                    self._abilities = image.abilities
                return self._limited(image)
        raise AssertionError("there is always one URL")

    def prepare(self, count: int) -> None:
        """Begin to open so many connections, which `open` and `speaking` will return, if the server is far."""
        assert self._ahead is None
        if self.reach != NEAR:
            self._ahead = Ahead(count, lambda line: self._try(self._urls[0], line))

    def open(self, line: Optional[Lifeline] = None) -> Image:
        """Return a connection: the spare one, or another one. A thread that cuts the line ends the wait for it."""
        with self._lock:
            spare, self._spare = self._spare, None
        return spare or self._another(line or Lifeline())

    def attach(self, line: Lifeline) -> NBDEnd[Any]:
        """Return a connection over which the server speaks NBD. A thread that cuts the line ends the wait for it.

        Raises errors.StorageError if the server does not want to.
        """
        return attach(self.open(line), line, self._approach.read_timeout)

    @contextlib.contextmanager
    def speaking(self, *, dirty: bool) -> Iterator[Client]:
        """Give a connection, never the spare one, over which the server speaks NBD and tells all about extents.

        Raises errors.StorageError if the server does not want to.
        """
        with contextlib.closing(self._another(Lifeline())) as image, image.attached() as stream:
            try:
                nbd = speak(stream, dirty=dirty, reply_timeout=self._approach.read_timeout)
            except ConnectionDead as error:
                raise translated_there("list extents", error) from error
            with nbd:
                yield nbd

    def spare(self, image: Image) -> None:
        """Keep a connection for the next one that is opened."""
        with self._lock:
            assert self._spare is None
            self._spare = image

    def close(self) -> None:
        """Close the connections that were not needed."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()
        if self._ahead is not None:
            self._ahead.close()

    def _another(self, line: Lifeline) -> Image:
        """Return a connection, never the spare one."""
        ahead = self._ahead.take(line) if self._ahead is not None else None
        return ahead or self._open(self._urls[0], line)

    def _open(self, url: str, line: Lifeline) -> Image:
        """Connect; a connection that is lost on the way is made again, one that is refused is not."""
        for pause in pace.backoff(self._retries):
            try:
                return self._try(url, line)
            except errors.OriginError as error:
                if not is_passing(error):
                    raise
                log.warning("Trying again in %.1f seconds: %s", pause, error)
            except Lost as error:
                log.warning("Trying again in %.1f seconds: %s", pause, error)
            is_cut = threading.Event()
            with line.waking(is_cut.set):
                is_cut.wait(pause)
        return self._try(url, line)

    def _try(self, url: str, line: Lifeline) -> Image:
        tunnel = choose(urlsplit(url).hostname or "", os.environ)
        with naming(url):
            image = Image(
                url,
                dataclasses.replace(self._approach, tunnel=tunnel),
                line=line,
                abilities=self._abilities,
                clock=self._clock,
            )
        return self._limited(image)

    def _limited(self, image: Image) -> Image:
        if self.reach.unsent is not None:
            image.limit_unsent(self.reach.unsent)
        return image


def plain_url(url: str) -> str:
    """Return a URL without the query that some transfer URLs have, and with all brackets."""
    try:
        parts = urlsplit(bracketed(url))
    except ValueError:
        raise errors.InvalidValue("url", without_secrets(url), "https://HOST:PORT/images/TICKET") from None
    return urlunsplit(parts._replace(query="", fragment=""))


def token_of(url: str) -> Optional[str]:
    """Return the signed ticket in a URL, None if there is none."""
    shown = dict(parse_qsl(urlsplit(bracketed(url)).query)).get("ticket")
    if shown is not None and not TOKEN.fullmatch(shown):
        raise errors.InvalidValue("ticket", "(not shown)", "a signed ticket: three texts with dots between them")
    return shown


def make_context(cafile: Optional[str], secure: bool, fingerprint: Optional[str] = None) -> ssl.SSLContext:
    """Return whom to trust. Raises errors.InvalidValue for a cafile or fingerprint that cannot be used, or for both."""
    if fingerprint and (cafile or not secure):
        raise InvalidArgument("fingerprint", fingerprint, "neither a cafile nor secure=False beside it")
    try:
        return tls.client_context(cafile or "", insecure=not secure, fingerprint=fingerprint or "")
    except errors.ConfigError as error:
        raise errors.InvalidValue("cafile", cafile, error.expected) from None


@contextlib.contextmanager
def naming(url: str) -> Iterator[None]:
    """Let errors of the connection tell the host and port, which people know, instead of the image server."""
    try:
        yield
    except (errors.BackendUnavailable, errors.BackendTimeout) as error:
        error.reason = error.reason.replace("the image server", address(url), 1)
        error.operation = "open the image" if error.operation == "open" else error.operation
        raise


def address(url: str) -> str:
    """Return host and port of a URL."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
