"""A JSON array of objects, decoded while it arrives, in constant memory.

A listing of extents may have a million objects; the first are wanted long before the last ones are known.

Pure: knows bytes, not where they come from.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["OBJECT_LIMIT", "objects"]

# An object of a listing has about a hundred characters.
OBJECT_LIMIT = 64 * 1024

BLANKS = " \t\r\n"


def objects(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of the array that chunks make up; raises ValueError if they make up anything else."""
    return Decoder(chunks).objects()


class Decoder:
    """The text that came and was not yet decoded: `_text` from `_position` on."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._texts = codecs.iterdecode(chunks, "utf-8")
        self._text = ""
        self._position = 0
        self._decode = json.JSONDecoder().raw_decode

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield the objects."""
        self._expect("[")
        separator = self._next()
        if separator != "]":
            yield self._object()
            separator = self._next()
            while separator == ",":
                self._position += 1
                yield self._object()
                separator = self._next()
        self._expect("]")
        if self._next():
            raise ValueError("there is more after the array")

    def _object(self) -> dict[str, Any]:
        if self._next() != "{":
            raise ValueError("an object was expected")
        while True:
            try:
                value, self._position = self._decode(self._text, self._position)
            except RecursionError:
                raise ValueError("an object is nested too deeply") from None
            except ValueError:
                if len(self._text) - self._position > OBJECT_LIMIT:
                    raise
                if not self._more():
                    raise ValueError("the array ends within an object") from None
            else:
                result: dict[str, Any] = value
                return result

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise ValueError(f"{character!r} was expected")
        self._position += 1

    def _next(self) -> str:
        """Return the next character that is not blank, "" at the end; it stays next."""
        blanks = 0
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in BLANKS:
                    return character
                self._position += 1
                blanks += 1
            if blanks > OBJECT_LIMIT:
                raise ValueError("there is nothing but white space")
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Append the next text and forget what was decoded; return False at the end."""
        text = next(self._texts, None)
        if text is None:
            return False
        self._text = self._text[self._position :] + text
        self._position = 0
        return True
