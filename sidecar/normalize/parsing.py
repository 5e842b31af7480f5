"""Lines that are JSON objects, parsed many at a time.

Problem: parsing a line takes half as long in an array with others as by itself. Promise: each line is parsed as it
would be alone, whatever its neighbours are; an integer beyond 64 bits is kept as it is written where asked for. What
JSON allows and orjson does not is read all the same: half of a surrogate pair becomes U+FFFD, a number beyond a double
the text that it is.
Refused: anything but objects; NaN and Infinity, which are no JSON.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import secrets
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.formats.format import Fields

_DIGITS = bytes.maketrans(b"123456789", b"000000000")


class Parser:
    """Parses batches of lines."""

    def __init__(self) -> None:
        # A number that no line can guess stands between the lines of a batch: were it constant, a crafted line could
        # shift its neighbours' records.
        self._nonce = secrets.randbits(62)
        self._separator = b",%d," % self._nonce

    def objects(self, texts: list[bytes]) -> list[Fields | None]:
        """Parse every line that is a JSON object; None for the others."""
        braced = [text[:1] == b"{" and text[-1:] == b"}" for text in texts]
        if all(braced):
            parsed = self._together(texts)
            if parsed is not None:
                return parsed
        elif any(braced):
            together = self._together([text for text, ok in zip(texts, braced, strict=True) if ok])
            if together is not None:
                rest = iter(together)
                return [next(rest) if ok else parse(text) for text, ok in zip(texts, braced, strict=True)]
        return [parse(text) for text in texts]

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


def unsigned(text: bytes) -> bytes:
    """Return a line without a byte order mark: the signature of a file's encoding is no part of its first line."""
    return text.removeprefix(codecs.BOM_UTF8)


def parse(text: bytes) -> Fields | None:
    """Return the JSON object that a line is, or None."""
    if b"{" not in text[:64]:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_slowly(text, _number) if text.lstrip()[:1] == b"{" else None
    return value if isinstance(value, dict) else None


def _parse_slowly(text: bytes, integer: Callable[[str], object]) -> Fields | None:
    """Parse what the standard library takes for JSON; None for what is none, or is too deep for it."""
    try:
        value = json.loads(text.decode(), parse_int=integer, parse_float=_finite, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if b"\\u" in text:
        try:
            value = _whole(value)
        except RecursionError:
            return None
    return value if isinstance(value, dict) else None


def _finite(digits: str) -> object:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _refuse(name: str) -> object:
    raise ValueError(name)


_HALVES = re.compile("[\ud800-\udfff]")


def _whole(value: object) -> object:
    """Return a value without halves of surrogate pairs, which no UTF-8 can hold."""
    if isinstance(value, str):
        return _HALVES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_HALVES.sub("\ufffd", key): _whole(inner) for key, inner in value.items()}
    return value


def has_huge_integer(text: bytes) -> bool:
    """Say whether a text may hold an integer beyond 64 bits, which orjson would make a float of."""
    zeros = text.translate(_DIGITS)
    return b"0" * 20 in zeros or b"-" + b"0" * 19 in zeros


def parse_exactly(text: bytes) -> Fields | None:
    """Parse an object again with integers beyond 64 bits kept as they are written: orjson makes floats of them.

    None where it is hundreds of levels deep: what is there counts more than the last digits.
    """
    return _parse_slowly(text, _integer)


def _number(digits: str) -> object:
    """Read an integer as orjson does: beyond 64 bits as a float."""
    number = _integer(digits)
    return number if isinstance(number, int) else _finite(digits)


def _integer(digits: str) -> object:
    if len(digits) < 19:
        return int(digits)
    if len(digits) < 32 and -(1 << 63) <= (number := int(digits)) < 1 << 64:
        return number
    return digits if isinstance(_finite(digits), str) else orjson.Fragment(digits)
