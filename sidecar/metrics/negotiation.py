"""Which exposition format a scraper wants: RFC 9110's Accept, for the four documents we can write.

Problem: scrapers list formats with versions and weights, and the library we use ignores weights, repeats whatever
version it is sent and fails on one that is no number.
Promise: every header, however broken, gives a format; what the client weighs highest wins, `q=0` excludes, and the
answer names a version that we really write, never one from the header. Nothing acceptable gives text 0.0.4, as every
exporter does, for a scraper that gets a 406 sees nothing. Protobuf goes only to who names it in full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

_LONGEST = 4096  # of a header worth reading
_QUOTED_OR = r'(?:[^{}"]|"(?:[^"\\]|\\.)*"?)+'
_RANGES = re.compile(_QUOTED_OR.format(","))
_PARAMETERS = re.compile(_QUOTED_OR.format(";"))
_WEIGHT = re.compile(r"[0-9]{0,9}\.?[0-9]{0,9}")
_ESCAPINGS = frozenset({"allow-utf-8", "underscores", "dots", "values"})  # our names are the same in all of them


class Kind(Enum):
    """How a body is written."""

    TEXT = auto()
    OPENMETRICS = auto()
    PROTOBUF = auto()


@dataclass(frozen=True, slots=True)
class Format:
    """What to write, and what to call it."""

    kind: Kind
    content_type: str


@dataclass(frozen=True, slots=True)
class _Offer:
    kind: Kind
    type: str
    required: dict[str, str]  # parameters the range must repeat, if it has them at all
    exact: bool = False  # the range must name it in full


@dataclass(frozen=True, slots=True)
class _Range:
    type: str
    parameters: dict[str, str]
    weight: float
    position: int

    def specificity(self, offer: _Offer) -> int:
        """Return how closely this range names the offer; 0 where it does not."""
        if self.type == offer.type:
            for name, value in offer.required.items():
                if self.parameters.get(name, None if offer.exact else value) != value:
                    return 0
            return 3 + sum(name in self.parameters for name in offer.required)
        if offer.exact:
            return 0
        return {f"{offer.type.partition('/')[0]}/*": 2, "*/*": 1}.get(self.type, 0)


_PROTO = "application/vnd.google.protobuf"
_OPENMETRICS = "application/openmetrics-text"
_TEXT = _Offer(Kind.TEXT, "text/plain", {"version": "0.0.4"})
_OPEN_1_0_0 = _Offer(Kind.OPENMETRICS, _OPENMETRICS, {"version": "1.0.0"})
_OPEN_0_0_1 = _Offer(Kind.OPENMETRICS, _OPENMETRICS, {"version": "0.0.1"})  # differs in nothing that we write
_DELIMITED = _Offer(
    Kind.PROTOBUF, _PROTO, {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"}, exact=True
)
_OFFERS = (_TEXT, _OPEN_1_0_0, _OPEN_0_0_1, _DELIMITED)  # the first wins where the client has no preference

TEXT = Format(Kind.TEXT, "text/plain; version=0.0.4; charset=utf-8")
PROTOBUF = Format(Kind.PROTOBUF, f"{_PROTO}; proto=io.prometheus.client.MetricFamily; encoding=delimited")


def negotiate(accept: str | None, *, protobuf: bool = True) -> Format:
    """Return the format to answer with; `protobuf` says whether that may be one of them."""
    ranges = _parse(accept or "")
    best, rank = _TEXT, (0.0, 0)
    chosen: _Range | None = None
    for offer in _OFFERS:
        if offer is _DELIMITED and not protobuf:
            continue
        matching = [(range_.specificity(offer), range_.weight, -range_.position, range_) for range_ in ranges]
        closest = max((match for match in matching if match[0]), default=None, key=lambda match: match[:3])
        if closest is not None and closest[1:3] > rank:  # never with a weight of 0
            best, rank, chosen = offer, closest[1:3], closest[3]
    if best is _DELIMITED:
        return PROTOBUF
    if best is _TEXT or chosen is None:
        return TEXT
    content_type = f"{_OPENMETRICS}; version={best.required['version']}; charset=utf-8"
    if best is _OPEN_1_0_0:
        escaping = chosen.parameters.get("escaping", "")
        content_type += f"; escaping={escaping if escaping in _ESCAPINGS else 'underscores'}"
    return Format(Kind.OPENMETRICS, content_type)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Say whether the client takes gzip: by name or by `*`, with a weight above 0."""
    weigh = weights(accept_encoding)
    return weigh.get("gzip", weigh.get("x-gzip", weigh.get("*", 0.0))) > 0


def weights(header: str | None) -> dict[str, float]:
    """Return what each range of a header weighs, whatever its other parameters; the first mention counts."""
    return {range_.type: range_.weight for range_ in reversed(_parse(header or ""))}


def _parse(header: str) -> list[_Range]:
    """Return the ranges of a header in its order, without those that make no sense."""
    ranges = []
    for position, text in enumerate(_RANGES.findall(header[:_LONGEST])):
        name, *rest = [part.strip() for part in _PARAMETERS.findall(text)] or [""]
        parameters = {}
        for part in rest:
            key, _, value = part.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"').lower()
        weight = _weight(parameters.pop("q", "1"))
        if weight is not None:
            ranges.append(_Range(name.lower(), parameters, weight, position))
    return ranges


def _weight(text: str) -> float | None:
    if text in ("", ".") or not _WEIGHT.fullmatch(text):
        return None
    return min(float(text), 1.0)
