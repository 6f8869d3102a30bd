"""Problem details (RFC 9457): what is wrong, as a document for programs.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

import json
import re

from ovirt_imageio.httpd.refusal import Refusal, phrase_of

__all__ = ["CONTENT_TYPE", "describe", "is_wanted"]

CONTENT_TYPE = "application/problem+json"

TEXT = "text/plain"

# RFC 9110, 12.4.2.
WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


def is_wanted(accept: str) -> bool:
    """Return True if an Accept header names problem details, and does not prefer plain text.

    Plain text stays what those get that take anything.

    >>> is_wanted("application/json, application/problem+json"), is_wanted("*/*")
    (True, False)
    """
    if CONTENT_TYPE not in accept.lower():
        return False
    weights = dict(map(weighed, accept.lower().split(",")))
    return weights.get(CONTENT_TYPE, 0) > 0 and weights[CONTENT_TYPE] >= weights.get(TEXT, 0)


def weighed(item: str) -> tuple[str, float]:
    """Return the type and the weight of an item of an Accept header; a weight that cannot be read is 0.

    >>> weighed(" text/plain; q=0.5")
    ('text/plain', 0.5)
    """
    name, *parameters = map(str.strip, item.split(";"))
    for parameter in parameters:
        if parameter.startswith("q"):
            match = WEIGHT.fullmatch(parameter)
            return name, float(match[1]) if match else 0
    return name, 1


def describe(refusal: Refusal) -> bytes:
    """Return the document for a refusal, in one line. Its status says what kind of problem it is."""
    members = {
        "type": "about:blank",
        "title": phrase_of(refusal.status),
        "status": refusal.status,
        "detail": refusal.text,
    }
    return f"{json.dumps(members)}\n".encode()
