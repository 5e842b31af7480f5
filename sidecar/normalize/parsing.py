"""Lines that are JSON objects, parsed many at a time.

Problem: parsing a line takes half as long in an array with others as by itself. Promise: each line is parsed as
`jsontext.parse` would alone, whatever its neighbours are.
Refused: anything but objects.
"""

from __future__ import annotations

import secrets
from itertools import repeat
from typing import TYPE_CHECKING

import orjson

from sidecar import jsontext

if TYPE_CHECKING:
    from sidecar.formats.format import Fields


class Parser:
    """Parses batches of lines."""

    def __init__(self) -> None:
        # A number that no line can guess stands between the lines of a batch: were it constant, a crafted line could
        # shift its neighbours' records.
        self._nonce = secrets.randbits(62)
        self._separator = b",%d," % self._nonce

    def objects(self, texts: list[bytes]) -> list[Fields | None]:
        """Parse every line that is a JSON object; None for the others."""
        if all(map(bytes.startswith, texts, repeat(b"{"))):
            parsed = self._together(texts)
            if parsed is not None:
                return parsed
        braced = [text[:1] == b"{" and text[-1:] == b"}" for text in texts]
        if any(braced) and not all(braced):
            together = self._together([text for text, ok in zip(texts, braced, strict=True) if ok])
            if together is not None:
                rest = iter(together)
                return [next(rest) if ok else jsontext.parse(text) for text, ok in zip(texts, braced, strict=True)]
        return [jsontext.parse(text) for text in texts]

    def _together(self, texts: list[bytes]) -> list[Fields | None] | None:
        """Parse lines as one array; None unless each of them is one object by itself."""
        try:
            parsed = orjson.loads(b"[" + self._separator.join(texts) + b"]")
        except orjson.JSONDecodeError:
            return None
        values: list[Fields | None] = parsed[::2]
        between = parsed[1::2]
        if len(parsed) != 2 * len(texts) - 1 or between.count(self._nonce) != len(between):
            return None
        return values if {*map(type, values)} == {dict} else None
