"""io.prometheus.client.MetricFamily on the wire, written by hand: the one format that carries native histograms.

Problem: Prometheus reads native histograms from protobuf only, and the protobuf package costs more memory than a
sidecar may spend.
Promise: the few messages of the exposition, delimited, with the field numbers of client_model's metrics.proto; 60 µs
for a histogram with all its buckets. Refused: reading, and every other message.
"""

from __future__ import annotations

from functools import cache, lru_cache
from struct import Struct
from typing import TYPE_CHECKING

from sidecar.varint import encode as _varint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

COUNTER, GAUGE, SUMMARY, UNTYPED, HISTOGRAM = range(5)
_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_pack_double = Struct("<d").pack

Exemplar = tuple[str, float, float]  # trace id, value, unix seconds


def _zigzag(number: int) -> int:
    return number * 2 if number >= 0 else -number * 2 - 1


@cache  # a dozen pairs
def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _message(field: int, content: bytes) -> bytes:
    return _tag(field, _LENGTH) + _varint(len(content)) + content


def _string(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _double(field: int, value: float) -> bytes:
    return _tag(field, _FIXED64) + _pack_double(value)


def _number(field: int, value: int) -> bytes:
    return _tag(field, _VARINT) + _varint(value)


@cache  # the configured bounds
def _upper_bound(bound: float) -> bytes:
    return _double(2, bound)


def _timestamp(field: int, seconds: float) -> bytes:
    whole = max(0, int(seconds))
    return _message(field, _number(1, whole) + _number(2, max(0, int((seconds - whole) * 1e9))))


_BUCKET_COUNT = _tag(1, _VARINT)
_TRACE_ID = _string(1, "trace_id")


def labels(pairs: Mapping[str, str]) -> bytes:
    """Return the label pairs of one metric."""
    return b"".join([_message(1, _string(1, name) + _string(2, value)) for name, value in pairs.items()])


def family(name: str, text: str, kind: int, metrics: Iterable[bytes]) -> bytes:
    """Return a delimited family. `metrics` come from the functions below, of the same kind."""
    content = b"".join((_string(1, name), _string(2, text), _number(3, kind), *(_message(4, one) for one in metrics)))
    return _varint(len(content)) + content


def gauge(pairs: bytes, value: float) -> bytes:
    return pairs + _message(2, _double(1, value))


def counter(pairs: bytes, value: float, created: float | None = None) -> bytes:
    return pairs + _message(3, _double(1, value) + (b"" if created is None else _timestamp(3, created)))


def untyped(pairs: bytes, value: float) -> bytes:
    return pairs + _message(5, _double(1, value))


def summary(
    pairs: bytes, *, count: int, total: float, quantiles: Iterable[tuple[float, float]], created: float
) -> bytes:
    parts = [_number(1, count), _double(2, total)]
    parts += [_message(3, _double(1, quantile) + _double(2, value)) for quantile, value in quantiles]
    parts.append(_timestamp(4, created))
    return pairs + _message(4, b"".join(parts))


def histogram(
    pairs: bytes,
    *,
    count: int,
    total: float,
    bounds: Sequence[float],
    cells: Sequence[int],
    exemplars: Sequence[Exemplar | None],
    schema: int,
    zero_threshold: float,
    zeros: int,
    counts: Mapping[int, int],
    created: float,
) -> bytes:
    """Return one histogram, classic and native. `cells` are not cumulative, `bounds` end with infinity."""
    parts = [_number(1, count), _double(2, total)]
    cumulative, written = 0, []
    for bound, cell, exemplar in zip(bounds, cells, exemplars, strict=True):
        cumulative += cell
        bucket = _BUCKET_COUNT + _varint(cumulative) + _upper_bound(bound)
        if exemplar is not None:
            encoded = _exemplar(exemplar)
            written.append(_message(16, encoded))
            bucket += _message(3, encoded)
        parts.append(_message(3, bucket))
    parts += [_number(5, _zigzag(schema)), _double(6, zero_threshold), _number(7, zeros)]
    parts += _native(counts)
    parts.append(_timestamp(15, created))
    parts += written
    return pairs + _message(7, b"".join(parts))


def _exemplar(exemplar: Exemplar) -> bytes:
    trace_id, value, at = exemplar
    return _message(1, _TRACE_ID + _string(2, trace_id)) + _double(2, value) + _timestamp(3, at)


@lru_cache(maxsize=2048)  # gaps and runs are short: a few hundred pairs are nearly all of them
def _span(offset: int, length: int) -> bytes:
    return _message(12, _number(1, _zigzag(offset)) + _number(2, length))


def _native(counts: Mapping[int, int]) -> list[bytes]:
    """Return positive_span and positive_delta. Without buckets a no-op span tells a native histogram from a classic."""
    if not counts:
        return [_span(0, 0)]
    spans: list[list[int]] = []  # distance from the end of the one before, length
    deltas = bytearray()
    before, end = 0, None
    for bucket, count in sorted(counts.items()):
        if bucket == end:
            spans[-1][1] += 1
        else:
            spans.append([bucket - (end or 0), 1])
        end = bucket + 1
        delta = count - before
        before = count
        if -0x40 <= delta < 0x40:
            deltas.append(delta * 2 if delta >= 0 else -delta * 2 - 1)
        else:
            deltas += _varint(_zigzag(delta))
    parts = [_span(offset, length) for offset, length in spans]
    return [*parts, _message(13, bytes(deltas))]
