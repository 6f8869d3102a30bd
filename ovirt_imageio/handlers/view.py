"""/view: a page for people, who open /view#TICKET in a browser.

The ticket stays behind the #: no browser sends that part. The page asks for the disk as every other client does.
"""

from __future__ import annotations

import base64
import hashlib
import re

from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response

__all__ = ["View"]

HTML = "text/html; charset=UTF-8"


class View:
    """Answers with a page that holds its one style and its one script.

    Threads: any number at once.
    """

    # A page of another origin has no use for it.
    cors = None

    def __init__(self, page: bytes) -> None:
        self._page = page
        self._headers = {
            "cache-control": "no-cache",
            "content-security-policy": policy(page),
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }

    def get(self, request: Request, response: Response) -> None:
        """Answer with the page."""
        response.headers.update(self._headers)
        response.send(200, self._page, HTML)


def policy(page: bytes) -> str:
    """Return a policy that lets a browser run what the page holds, speak to us, and do nothing else.

    The worker of an upload is a script that the page makes.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {digest(page, b'script')}",
            f"style-src {digest(page, b'style')}",
            "connect-src 'self'",
            # An icon that is empty, instead of one that is not there.
            "img-src data:",
            "worker-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def digest(page: bytes, tag: bytes) -> str:
    """Return what a policy says of the content of the only such element."""
    (content,) = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
