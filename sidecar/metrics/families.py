"""The three request families, as the text formats and as protobuf write them.

Problem: this is most of a scrape, 24 lines for each label set, and the part that must agree with itself.
Promise: all lines of a label set are from one moment and stand together, family by family; a template per sample name
costs 0.25 µs a line. After a few label sets the generators give way, so that a scrape never holds the
event loop. Refused: everything that is not about requests (`exposition` takes it from the registry).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from math import inf
from typing import TYPE_CHECKING

from sidecar.metrics import negotiation, protobuf, series, sketch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sidecar.metrics.durations import Requests

Kind = negotiation.Kind

# Label sets a turn of the event loop: half a millisecond of work, as a probe that waits meanwhile takes several turns.
SETS_PER_TURN = 6
PROTOBUF_SETS_PER_TURN = 2

_SUMMARY = "http_request_duration_ms"
_HISTOGRAM = "http_request_duration_seconds"
_COUNTER = "http_requests"
NAMES = frozenset({_SUMMARY, _HISTOGRAM, _COUNTER})
_MARK = "\0"  # where a template wants the labels of a series; no label holds it


@dataclass(frozen=True, slots=True)
class _Section:
    """The lines of one sample name for one label set."""

    sample: str
    write: Callable[[series.Series, str], str]  # the series, its labels with `%` doubled


@dataclass(slots=True)
class _Family:
    name: str  # as OpenMetrics has it: a counter without `_total`
    kind: str
    help: str
    sections: list[_Section]

    def restricted(self, names: frozenset[str]) -> _Family | None:
        """Return what `name[]=` leaves: all by the family's name, else single samples; None where that is nothing."""
        if not names or self.name in names:
            return self
        sections = [section for section in self.sections if section.sample in names]
        return _Family(self.name, self.kind, self.help, sections) if sections else None


class Families:
    """Writes the request metrics."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._families = {
            kind: [self._summary(), self._histogram(exemplars=kind is Kind.OPENMETRICS), self._counter()]
            for kind in Kind
        }

    def write(self, kind: Kind, names: frozenset[str]) -> Generator[None, None, list[bytes]]:
        """Return the parts of the page; only what `names` leave where there are any."""
        families = [left for family in self._families[kind] if (left := family.restricted(names)) is not None]
        if not families:
            return []
        return (yield from self._protobuf(families) if kind is Kind.PROTOBUF else self._text(families, kind))

    # the request families as text

    def _summary(self) -> _Family:
        requests = self._requests
        quantiles = _template(_SUMMARY, [f'quantile="{quantile!r}"' for quantile in requests.quantiles], "%s")
        return _Family(
            _SUMMARY,
            "summary",
            f"Duration of HTTP requests in milliseconds. The quantiles cover the last {requests.window} and are not "
            f"aggregatable: for that, use {_HISTOGRAM}.",
            [
                _Section(
                    _SUMMARY,
                    lambda one, labels: (
                        quantiles.replace(_MARK, labels) % tuple(map(number, requests.quantiles_of(one)))
                    ),
                ),
                _Section(f"{_SUMMARY}_sum", lambda one, _: f"{_SUMMARY}_sum{{{one.labels}}} {number(one.sum_ms)}\n"),
                _Section(f"{_SUMMARY}_count", lambda one, _: f"{_SUMMARY}_count{{{one.labels}}} {one.count}\n"),
            ],
        )

    def _histogram(self, *, exemplars: bool) -> _Family:
        bounds = [f'le="{number(bound)}"' for bound in (*self._requests.bounds, inf)]
        buckets = _template(f"{_HISTOGRAM}_bucket", bounds, "%d%s" if exemplars else "%d")

        def plain(one: series.Series, labels: str) -> str:
            return buckets.replace(_MARK, labels) % tuple(accumulate(one.cells))

        def exemplary(one: series.Series, labels: str) -> str:
            values = zip(accumulate(one.cells), map(_exemplar, one.exemplars), strict=True)
            return buckets.replace(_MARK, labels) % tuple(chain.from_iterable(values))

        return _Family(
            _HISTOGRAM,
            "histogram",
            "Duration of HTTP requests in seconds.",
            [
                _Section(f"{_HISTOGRAM}_bucket", exemplary if exemplars else plain),
                _Section(
                    f"{_HISTOGRAM}_sum",
                    lambda one, _: f"{_HISTOGRAM}_sum{{{one.labels}}} {number(one.sum_ms / 1000)}\n",
                ),
                _Section(f"{_HISTOGRAM}_count", lambda one, _: f"{_HISTOGRAM}_count{{{one.labels}}} {one.count}\n"),
            ],
        )

    def _counter(self) -> _Family:
        sample = f"{_COUNTER}_total"

        def write(one: series.Series, _: str) -> str:
            return "".join(
                f'{sample}{{{one.labels},status="{status}"}} {count}\n'
                for status, count in sorted(one.statuses.items())
            )

        return _Family(_COUNTER, "counter", "HTTP requests by status code.", [_Section(sample, write)])

    def _text(self, families: list[_Family], kind: Kind) -> Generator[None, None, list[bytes]]:
        lines: list[list[str]] = [[_head(family, kind)] for family in families]
        writers = [[section.write for section in family.sections] for family in families]
        for index, one in enumerate(self._requests.all()):
            if index and not index % SETS_PER_TURN:
                yield
            labels = one.labels.replace("%", "%%")
            for into, sections in zip(lines, writers, strict=True):
                for write in sections:
                    into.append(write(one, labels))
        parts = []
        for into in lines:
            yield
            parts.append("".join(into).encode("utf-8", "replace"))
        return parts

    # the request families as protobuf

    def _protobuf(self, families: list[_Family]) -> Generator[None, None, list[bytes]]:
        requests = self._requests
        wanted = {family.name for family in families}
        summaries: list[bytes] = []
        histograms: list[bytes] = []
        counters: list[bytes] = []
        bounds = (*requests.bounds, inf)
        for index, one in enumerate(requests.all()):
            if index and not index % PROTOBUF_SETS_PER_TURN:
                yield
            pairs = protobuf.labels({"method": one.method, "path": one.path})
            if _SUMMARY in wanted:
                quantiles = zip(requests.quantiles, requests.quantiles_of(one), strict=True)
                summaries.append(
                    protobuf.summary(pairs, count=one.count, total=one.sum_ms, quantiles=quantiles, created=one.created)
                )
            if _HISTOGRAM in wanted:
                schema, counts, zeros = one.native()
                histograms.append(
                    protobuf.histogram(
                        pairs,
                        count=one.count,
                        total=one.sum_ms / 1000,
                        bounds=bounds,
                        cells=one.cells,
                        exemplars=[exemplar if _fit(exemplar) else None for exemplar in one.exemplars],
                        schema=schema,
                        zero_threshold=sketch.ZERO_THRESHOLD,
                        zeros=zeros,
                        counts=counts,
                        created=one.created,
                    )
                )
            if _COUNTER in wanted:
                counters += (
                    protobuf.counter(pairs + protobuf.labels({"status": status}), count, one.created)
                    for status, count in sorted(one.statuses.items())
                )
        metrics = {_SUMMARY: summaries, _HISTOGRAM: histograms, _COUNTER: counters}
        kinds = {_SUMMARY: protobuf.SUMMARY, _HISTOGRAM: protobuf.HISTOGRAM, _COUNTER: protobuf.COUNTER}
        parts = []
        for family in families:
            yield
            if metrics[family.name]:
                name = f"{_COUNTER}_total" if family.name == _COUNTER else family.name
                parts.append(protobuf.family(name, family.help, kinds[family.name], metrics[family.name]))
        return parts


def number(value: float) -> str:
    """Return a float as Go's Prometheus reads it back."""
    if value != value:  # noqa: PLR0124  NaN
        return "NaN"
    return repr(float(value)) if -inf < value < inf else "+Inf" if value > 0 else "-Inf"


def _template(sample: str, labels: list[str], value: str) -> str:
    return "".join(f"{sample}{{{_MARK},{label}}} {value}\n" for label in labels)


def _head(family: _Family, kind: Kind) -> str:
    name = f"{family.name}_total" if family.kind == "counter" and kind is Kind.TEXT else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"


def _fit(exemplar: protobuf.Exemplar | None) -> bool:
    if exemplar is None:
        return False
    trace_id = exemplar[0]
    # No quotes and braces: not every parser of OpenMetrics expects them in an exemplar, and no trace id has them.
    return len(trace_id) <= series.LONGEST_TRACE_ID and trace_id.isascii() and trace_id.replace("-", "").isalnum()


def _exemplar(exemplar: protobuf.Exemplar | None) -> str:
    if exemplar is None or not _fit(exemplar):
        return ""
    trace_id, value, at = exemplar
    return f' # {{trace_id="{trace_id}"}} {number(value)} {at:.3f}'
