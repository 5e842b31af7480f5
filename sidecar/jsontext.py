"""JSON objects as text, read and written as exactly as can be.

Problem: orjson is fast and knows less than JSON: it refuses half of a surrogate pair and a number beyond a double,
makes floats of integers beyond 64 bits, and writes 254 of the 1024 levels that it reads. One such line must not be
lost, nor end the process. Promise: what orjson takes is done by it; the rest is done slowly. Half of a pair becomes
U+FFFD, a number beyond a double the text that it is, and an integer keeps its digits where asked for.
Refused: NaN and Infinity, which are no JSON.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

_DIGITS = bytes.maketrans(b"123456789", b"000000000")


def unsigned(text: bytes) -> bytes:
    """Return a line without a byte order mark: the signature of a file's encoding is no part of its first line."""
    return text.removeprefix(codecs.BOM_UTF8)


def parse(text: bytes) -> dict[str, object] | None:
    """Return the JSON object that a line is, or None."""
    if b"{" not in text[:64]:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_slowly(text, _number) if text.lstrip()[:1] == b"{" else None
    return value if isinstance(value, dict) else None


def parse_as_written(text: bytes) -> dict[str, object] | None:
    """Return the JSON object that a text is with all its digits, or None."""
    return (parse_exactly(text) if has_huge_integer(text) else None) or parse(text)


def _parse_slowly(text: bytes, integer: Callable[[str], object]) -> dict[str, object] | None:
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


def parse_exactly(text: bytes) -> dict[str, object] | None:
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


def dumps(value: object) -> bytes:
    """Return the JSON text of a value that a parser made."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _deep(value)


def _deep(value: object) -> bytes:
    out: list[bytes] = []
    waiting: list[object] = [value]  # last first; bytes are text that is ready
    while waiting:
        node = waiting.pop()
        if isinstance(node, bytes):
            out.append(node)
        elif isinstance(node, dict):
            parts: list[object] = [b"{"]
            for key, inner in node.items():
                parts += (b"," if len(parts) > 1 else b"") + orjson.dumps(key) + b":", inner
            waiting += reversed([*parts, b"}"])
        elif isinstance(node, list):
            parts = [b"["]
            for inner in node:
                parts += (b"," if len(parts) > 1 else b""), inner
            waiting += reversed([*parts, b"]"])
        else:
            out.append(orjson.dumps(node))
    return b"".join(out)
