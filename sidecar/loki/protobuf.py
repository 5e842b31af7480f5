"""The other way to write a push: `logproto.PushRequest` by hand, in a raw snappy block, compressed by gzip.

Cheaper for Loki to read than JSON, dearer for us to write. Loki takes protobuf in snappy's block format only, and
takes a block that consists of one literal, so no snappy library is needed; gzip around it makes it small.
Promise: the same as `wire`: equal pushes are equal bytes.
Measured per entry of 366 bytes: 8 µs in all, where JSON takes 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal import igzip

from sidecar.varint import encode as varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.loki.streams import Stream
    from sidecar.loki.wire import Entry

# PushRequest { repeated StreamAdapter streams = 1; }
# StreamAdapter { string labels = 1; repeated EntryAdapter entries = 2; }
# EntryAdapter { Timestamp timestamp = 1; string line = 2; repeated LabelPairAdapter structuredMetadata = 3; }
# LabelPairAdapter { string name = 1; string value = 2; }    Timestamp { int64 seconds = 1; int32 nanos = 2; }
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"
_NANOS = b"\x10"
_LITERAL = b"\xfc"  # snappy: a literal whose length, minus one, follows in four bytes


def body(stream: Stream, made: Sequence[Entry]) -> bytes:
    """Return the bytes of one push."""
    adapter = [_FIELD_1, _sized(stream.key.encode())]
    heads: dict[tuple[str, int], bytes] = {}  # all of a pair but its value, by name and length of the value
    for stamp, line, metadata in made:
        seconds, nanos = divmod(int(stamp), 10**9)
        time = b"\x08" + varint(seconds) + (_NANOS + varint(nanos) if nanos else b"")
        text = line.encode()
        parts = [_FIELD_1, varint(len(time)), time, _FIELD_2, varint(len(text)), text]
        size = sum(map(len, parts))
        for name, value in metadata.items():
            data = value.encode()
            head = heads.get((name, len(data)))
            if head is None:
                head = heads[name, len(data)] = _pair_head(name.encode(), len(data))
            parts += head, data
            size += len(head) + len(data)
        adapter += _FIELD_2, varint(size), *parts
    return igzip.compress(snappy_block(_FIELD_1 + _sized(b"".join(adapter))), 1, mtime=0)


def _pair_head(name: bytes, size: int) -> bytes:
    head = _FIELD_1 + _sized(name) + _FIELD_2 + varint(size)
    return _FIELD_3 + varint(len(head) + size) + head


def snappy_block(data: bytes) -> bytes:
    """Return data as a snappy block of one literal. Data must not be empty."""
    return b"".join((varint(len(data)), _LITERAL, (len(data) - 1).to_bytes(4, "little"), data))


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data
