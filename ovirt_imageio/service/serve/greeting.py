"""What people and scripts are told when serve is ready: URLs, whom to trust, and commands to paste.

Text from facts; looks only which programs are installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from typing import NamedTuple, Optional

from ovirt_imageio import units
from ovirt_imageio.service.serve.images import ServedImage

__all__ = ["Share", "Tools", "Trust", "greet", "record"]


class Share(NamedTuple):
    """An image, and its URLs: the first one works from wherever a client may be."""

    image: ServedImage
    urls: list[str]

    @property
    def page(self) -> str:
        """The address of the page that shows the image in a browser."""
        return page_of(self.urls[0])


class Trust(NamedTuple):
    """How clients know that it is us."""

    fingerprint: str
    # Of the public key, for curl.
    pin: str
    # A certificate of our own making is its own authority; None: the user gave another one.
    ca_file: Optional[str]


class Tools(NamedTuple):
    """The programs for the commands."""

    has_curl: bool
    # How it is called here; None: not installed.
    ovirt_img: Optional[str]

    @classmethod
    def installed(cls, is_public: bool) -> Tools:
        """Return those of this machine; others will have curl."""
        return cls(is_public or shutil.which("curl") is not None, find_ovirt_img())


def page_of(url: str) -> str:
    """Return where a browser shows the disk of a transfer URL: what comes after the # is not sent.

    >>> page_of("https://host:54322/images/TICKET")
    'https://host:54322/view#TICKET'
    """
    base, _, ticket_id = url.rpartition("/images/")
    return f"{base}/view#{ticket_id}"


def find_ovirt_img() -> Optional[str]:
    """Return what to type for ovirt-img, which may be installed where the shell does not look."""
    if shutil.which("ovirt-img"):
        return "ovirt-img"
    for neighbour in (sys.argv[0], sys.executable):
        path = os.path.join(os.path.dirname(os.path.abspath(neighbour)), "ovirt-img")
        if os.access(path, os.X_OK):
            return shlex.quote(path)
    if importlib.util.find_spec("ovirt_imageio.client"):
        return f"{shlex.quote(sys.executable)} -m ovirt_imageio.client.cli"
    return None


def record(offers: list[Share], trust: Optional[Trust]) -> str:
    """Return everything in one line of JSON."""
    images = [
        {
            "name": offer.image.name,
            "path": offer.image.path,
            "format": offer.image.format,
            "size": offer.image.size,
            "page": offer.page,
            "url": offer.urls[0],
            "urls": offer.urls,
        }
        for offer in offers
    ]
    known = trust or Trust("", "", None)
    return json.dumps(
        {
            "pid": os.getpid(),
            "ca_file": known.ca_file,
            "fingerprint": known.fingerprint or None,
            "public_key_pin": known.pin or None,
            "images": images,
        }
    )


def greet(offers: list[Share], trust: Optional[Trust], *, is_public: bool, read_only: bool, tools: Tools) -> str:
    """Return what the user needs to know, with commands to paste. trust: None without TLS."""
    first = offers[0]
    lines = [*list_images(offers), ""]
    if trust:
        lines += [f"  CA file:       {trust.ca_file}"] if trust.ca_file else []
        lines += [f"  fingerprint:   {trust.fingerprint} (SHA-256)", ""]
        if trust.ca_file:
            lines += [
                "A browser warns, as no authority signed this certificate: compare the fingerprint, then go on.",
                "",
            ]
    if not is_public:
        lines += ["Only this machine can reach it; with --listen '[::]' others can, too.", ""]
    elif trust:
        lines += ["The commands trust this certificate alone: nothing needs to be copied to the other machine.", ""]
    lines += downloads(first, trust, is_public, tools)
    if not read_only and not first.image.is_file:
        lines += uploads(first, trust, is_public, tools)
    lines.append(f"Every client that has {'a' if offers[1:] else 'the'} URL can use the disk. Ctrl-C stops.")
    return "\n".join([*lines, ""])


def list_images(offers: list[Share]) -> list[str]:
    """Return what is served, and where."""
    if not offers[1:]:
        image, urls = offers[0]
        lines = [f"Serving {image.path} ({image.format}, {units.size(image.size)})", ""]
        lines += [f"  in a browser:  {offers[0].page}"]
        return [*lines, f"  transfer URL:  {urls[0]}", *(f"  also at:       {url}" for url in urls[1:])]
    lines = [f"Serving {len(offers)} images of {os.path.dirname(offers[0].image.path)}"]
    for offer in offers:
        image = offer.image
        lines += ["", f"  {image.name} ({image.format}, {units.size(image.size)})", f"    {offer.page} (in a browser)"]
        lines += [f"    {url}" for url in offer.urls]
    return lines


def downloads(offer: Share, trust: Optional[Trust], is_public: bool, tools: Tools) -> list[str]:
    """Return the commands that download an image."""
    image, url = offer.image, shlex.quote(offer.urls[0])
    if image.is_file:
        if not tools.has_curl:
            return []
        return [
            "Download the file:",
            "",
            f"  {curl(trust, is_public)} -o {shlex.quote(copy_of(image, None))} {url}",
            "",
        ]
    commands = []
    if tools.has_curl:
        commands.append(f"  {curl(trust, is_public)} -o {shlex.quote(copy_of(image, '.raw'))} {url}")
    if tools.ovirt_img:
        target = shlex.quote(copy_of(image, ".qcow2"))
        commands.append(f"  {tools.ovirt_img} download {trusting(trust, is_public)}{url} {target}")
    if not commands:
        return []
    return [f"Download the disk{choice(tools, ', as raw bytes, or only its data as qcow2')}:", "", *commands, ""]


def uploads(offer: Share, trust: Optional[Trust], is_public: bool, tools: Tools) -> list[str]:
    """Return the commands that upload what was downloaded."""
    image, url = offer.image, shlex.quote(offer.urls[0])
    commands = []
    if tools.has_curl:
        commands.append(f"  {curl(trust, is_public)} -T {shlex.quote(copy_of(image, '.raw'))} {url}")
    if tools.ovirt_img:
        source = shlex.quote(copy_of(image, ".qcow2"))
        commands.append(f"  {tools.ovirt_img} upload {trusting(trust, is_public)}{source} {url}")
    if not commands:
        return []
    return [f"Upload{choice(tools, ' raw bytes, or an image of any format')}:", "", *commands, ""]


def choice(tools: Tools, text: str) -> str:
    """Return the text that tells two commands apart if there are two."""
    return text if tools.has_curl and tools.ovirt_img else ""


def copy_of(image: ServedImage, suffix: Optional[str]) -> str:
    """Return a name for a copy: one that pastes in the folder of the image must not write over what is served."""
    stem, own_suffix = os.path.splitext(image.name)
    name = f"{stem}-copy{own_suffix if suffix is None else suffix}"
    # Programs take a word that begins with a dash for an option.
    return f"./{name}" if name.startswith("-") else name


def curl(trust: Optional[Trust], is_public: bool) -> str:
    """Return the beginning of a curl command. On another machine there is no CA file, so it compares the key alone."""
    if trust is None:
        return "curl --fail"
    if is_public or trust.ca_file is None:
        return f"curl --fail --insecure --pinnedpubkey {shlex.quote(trust.pin)}"
    return f"curl --fail --cacert {shlex.quote(trust.ca_file)}"


def trusting(trust: Optional[Trust], is_public: bool) -> str:
    """Return the option of ovirt-img that says whom to trust."""
    if trust is None:
        return ""
    if is_public or trust.ca_file is None:
        return f"--fingerprint {trust.fingerprint} "
    return f"--cafile {shlex.quote(trust.ca_file)} "
