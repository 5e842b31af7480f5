"""Reads what the protobuf encoding of a push is made of, independently of the code that writes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|\})')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", '"': '"', "\\": "\\"}


class Corrupt(Exception):  # noqa: N818  what the other side wrote is
    """The bytes are not what they should be."""


def unsnap(data: bytes) -> bytes:
    """Return what a raw snappy block holds."""
    try:
        length, at = varint(data, 0)
        out = bytearray()
        while at < len(data):
            tag = data[at]
            at += 1
            if tag & 3 == 0:
                size = tag >> 2
                if size >= 60:
                    extra = size - 59
                    size = int.from_bytes(data[at : at + extra], "little")
                    at += extra
                size += 1
                if at + size > len(data):
                    raise Corrupt("snappy: corrupt input")
                out += data[at : at + size]
                at += size
                continue
            if tag & 3 == 1:
                size, offset = 4 + (tag >> 2 & 7), (tag >> 5) << 8 | data[at]
                at += 1
            else:
                width = 2 if tag & 3 == 2 else 4
                size, offset = 1 + (tag >> 2), int.from_bytes(data[at : at + width], "little")
                at += width
            if not 0 < offset <= len(out):
                raise Corrupt("snappy: corrupt input")
            for _ in range(size):
                out.append(out[-offset])
    except IndexError as error:
        raise Corrupt("snappy: corrupt input") from error
    if len(out) != length:
        raise Corrupt("snappy: corrupt input")
    return bytes(out)


Entry = tuple[int, str, list[tuple[str, str]]]


def read_protobuf(data: bytes) -> list[tuple[dict[str, str], list[Entry]]]:
    """Return streams and entries of a PushRequest."""
    streams = []
    for number, stream in fields(data):
        if number != 1:
            continue
        labels: dict[str, str] = {}
        entries = []
        for part, value in fields(stream):
            if part == 1:
                labels = _labels(value.decode())
            elif part == 2:
                entries.append(_entry(value))
        streams.append((labels, entries))
    return streams


def _entry(data: bytes) -> Entry:
    ns, line, pairs = -62135596800 * 10**9, "", []  # a missing time is the year 1
    for number, value in fields(data):
        if number == 1:
            time = dict(fields(value))
            seconds, nanos = int(time.get(1, 0)), int(time.get(2, 0))
            if not 0 <= nanos < 10**9:
                raise Corrupt("loghttp: timestamp: nanos out of range")
            ns = seconds * 10**9 + nanos
        elif number == 2:
            line = value.decode(errors="replace")
        elif number == 3:
            pair = dict(fields(value))
            pairs.append((pair.get(1, b"").decode(), pair.get(2, b"").decode(errors="replace")))
    return ns, line, pairs


def _labels(text: str) -> dict[str, str]:
    if not text.startswith("{"):
        raise Corrupt(f"couldn't parse labels: {text}")
    labels, at = {}, 1
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            raise Corrupt(f"couldn't parse labels: {text}")
        labels[match[1]] = re.sub(r"\\(u[0-9a-f]{4}|.)", _unescape, match[2])
        at = match.end()
    return {name: value for name, value in labels.items() if value}


def _unescape(match: re.Match[str]) -> str:
    return chr(int(match[1][1:], 16)) if match[1][0] == "u" else _ESCAPES[match[1]]


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a message; numbers are numbers."""
    at = 0
    try:
        while at < len(data):
            key, at = varint(data, at)
            if key & 7 == 0:
                value, at = varint(data, at)
                yield key >> 3, value  # type: ignore[misc]
            elif key & 7 == 2:
                size, at = varint(data, at)
                if at + size > len(data):
                    raise Corrupt("proto: unexpected EOF")
                yield key >> 3, data[at : at + size]
                at += size
            else:
                raise Corrupt("proto: illegal wire type")
    except IndexError as error:
        raise Corrupt("proto: unexpected EOF") from error


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
