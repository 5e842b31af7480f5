"""The request metrics: one Series per (method, path), created under a cap, fed in bulk, saved and restored.

Problem: what a log says may hold any number of paths, and a metric that forgets or falls is worse than none.
Promise: the number of label sets is bounded where they are created; a request beyond the cap still counts, under
`path="other"` with its method kept; no series disappears while the process lives; known routes exist at 0 from the
moment they are known. Routes that somebody declared have places of their own, so that a scanner that comes first cannot
take them. Windows move on the monotonic clock by arrival, so neither a set wall clock nor replayed lines distort them.
Refused: units (the normalizer converts), exposition (`exposition`), files (`checkpoint`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from sidecar import options, routes
from sidecar.errors import StateError
from sidecar.metrics import sampling, series, sketch
from sidecar.options import Duration, option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar import telemetry as telemetry_module
    from sidecar.model import RequestGroup, RequestKey

_VERSION = 1  # of what `snapshot` returns
_RESERVE = 2  # declared routes have this many times the places that guessed paths compete for
_SWITCHING_PROTOCOLS = 101  # what was logged is how long the connection lasted
_LIFETIME = "connection_lifetime"
_MOST_PLACED = 4096  # remembered keys
_LONGEST_PLACED = 512


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `metrics`."""

    quantiles: list[float] = option([0.5, 0.9, 0.95, 0.99], "Quantiles of `http_request_duration_ms`.")
    window: Duration = option(Duration(600.0), "Summaries forget after this.", minimum=1)
    slices: int = option(5, "In how many steps the window moves.", minimum=1, maximum=60)
    buckets: list[float] = option(
        [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
        "Upper bounds in seconds of `http_request_duration_seconds`.",
    )
    native_histograms: bool = option(True, "Offer native histograms to scrapers that ask for protobuf.")
    routes: list[str] = option([], 'Known route templates, "GET /orders/:id" or "/orders/:id".')
    max_paths: int = option(
        300,
        "Most values of the label `path` while they have to be guessed; further ones become `other`. "
        "Routes that are configured, logged or learned may take as many again.",
        minimum=1,
    )
    max_series: int = option(
        400, "Most label sets of the request metrics, with the same reserve for known routes.", minimum=1
    )
    max_duration: Duration = option(
        Duration(series.LONGEST_SECONDS),
        "Of a request that took longer the duration is left out: WebSockets and event streams log how long connections "
        "last, which status 101 alone tells (always left out); Gin logs most with 200. `60s` suits many services.",
        minimum=1,
        maximum=series.LONGEST_SECONDS,
    )
    app_url: str = option("", "The application's own /metrics, merged into /metrics/merged.")


# Where the requests of one key go: their series, their status, and the labels whose value was replaced.
_Place = tuple[series.Series, str, tuple[str, ...]]


class Requests:
    """All request metrics of this process."""

    def __init__(
        self,
        config: Config,
        table: routes.Table,
        telemetry: telemetry_module.Telemetry,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.telemetry = telemetry
        self.window = options.show_duration(config.window)
        self.quantiles = tuple(sorted({float(quantile) for quantile in config.quantiles}))
        self.bounds = tuple(sorted({float(bound) for bound in config.buckets}))
        self.native_histograms = config.native_histograms
        self.revision = 0  # rises with every change, so that two readers can tell whether they see the same
        self._fractions = tuple(sketch.fraction(quantile) for quantile in self.quantiles)
        self._table = table
        self._clock = clock
        self._wall = wall
        self._keep = config.slices
        self._slice_seconds = config.window / config.slices
        # Slices are numbered from the epoch, so that a restart goes on in the same slice; what happens to the
        # wall clock after this line changes nothing.
        self._offset = wall() - clock()
        self._longest = config.max_duration
        self._sampling = sampling.Watch()
        self._second, self._observed, self._last = 0, 0, 0  # of the monotonic clock: requests in it, in the one before
        self._max_paths = config.max_paths
        self._max_series = config.max_series
        self._all: dict[tuple[str, str], series.Series] = {}
        self._paths: set[str] = set()  # distinct, without the two constants
        self._capped = 0  # label sets, without those of the two constants
        self._places: dict[RequestKey, _Place] = {}
        self._table_version = table.version
        self._changed: set[series.Series] = set()
        self._configured = frozenset(template for _, template in table.templates())
        for method, template in table.templates():
            self._exist(method, template)

    def learn(self, method: str, template: str) -> None:
        """Take a route the application declared: its series exist at 0 from now on."""
        if self._table.learn(method, template):
            self._exist(method, routes.clean(template))
            self.revision += 1

    def templates(self) -> list[tuple[str, str]]:
        """Return the routes that are known; what a path is called depends on them."""
        return list(self._table.templates())

    def observe(self, groups: Mapping[RequestKey, RequestGroup]) -> None:
        """Count the requests of one batch."""
        if self._table.version != self._table_version:
            self._places.clear()
            self._table_version = self._table.version
        number, keep, bounds, now = self._number(), self._keep, self.bounds, self._wall()
        places, changed, longest = self._places, self._changed, self._longest
        overflows: dict[str, int] = {}
        rejected: dict[str, int] = {}
        observed = 0
        for key, group in groups.items():
            one, status, replaced = places.get(key) or self._place(key)
            durations = group.durations
            measured = len(durations)
            if key[3] == _SWITCHING_PROTOCOLS:
                measured += sum(weight for *_, weight in group.weighted)
                if measured:
                    _add(rejected, _LIFETIME, measured)
            else:
                if measured == 1:
                    value = durations[0]
                    if not one.observe_one(value, group.trace_ids[0], 1, number, keep, bounds, now, longest):
                        _add(rejected, _reason(value), 1)
                elif measured:
                    for value in one.observe(durations, group.trace_ids, number, keep, bounds, now, longest):
                        _add(rejected, _reason(value), 1)
                if group.weighted:
                    measured += sum(weight for *_, weight in group.weighted)
                    for value, trace_id, weight in group.weighted:
                        if not one.observe_one(value, trace_id, weight, number, keep, bounds, now, longest):
                            _add(rejected, _reason(value), weight)
            observed += measured
            # `unmeasured` takes back what a batch before counted while its unit was unknown: then this is 0.
            requests = measured + group.unmeasured
            if status in one.statuses:  # as add_status has it; the call costs a third of an observation
                one.statuses[status] += requests
            elif requests and not one.add_status(status, requests):
                _add(overflows, "series", requests)
            for label in replaced:
                _add(overflows, label, requests)
            changed.add(one)
        self.revision += 1
        for label, count in overflows.items():
            self.telemetry.label_overflowed(label, count)
        for reason, count in rejected.items():
            self.telemetry.observations_rejected(reason, count)
        self.telemetry.requests_observed(observed - sum(rejected.values()), now)
        if self._busy(observed):
            self._watch(groups)

    def refusal(self, status: int, ms: float) -> str:
        """Say why a duration is not observed, "" where it is."""
        if status == _SWITCHING_PROTOCOLS:
            return _LIFETIME
        return "" if 0 <= ms / 1000 <= self._longest else _reason(ms)

    def _busy(self, observed: int) -> bool:
        """Say whether any path may have reached what samplers let through: a quiet service need not be watched."""
        second = int(self._clock())
        if second != self._second:
            self._last = self._observed if second == self._second + 1 else 0
            self._second, self._observed = second, 0
        self._observed += observed
        return self._observed >= sampling.FIRST or self._last >= sampling.FIRST

    def _watch(self, groups: Mapping[RequestKey, RequestGroup]) -> None:
        """Look at when the lines of each path were logged: whether somebody left some out."""
        times: dict[str, list[int]] = {}
        named: dict[str, RequestKey] = {}
        for key, group in groups.items():
            if group.times_ns:
                path = key[1] or key[2]
                if path in times:
                    times[path] = sorted(times[path] + group.times_ns)
                else:
                    times[path] = group.times_ns
                    named[path] = key
        if not times:
            return
        fresh = self._sampling.see(times)
        for path in fresh:
            self.telemetry.sampling_suspected(self._table.label(*named[path])[1])
        self.telemetry.sampled_paths(self._sampling.suspected)

    def all(self) -> list[series.Series]:
        """Return every series in a stable order: by path, then by method."""
        return [self._all[labels] for labels in sorted(self._all, key=lambda labels: labels[::-1])]

    def quantiles_of(self, one: series.Series) -> list[float]:
        """Return the milliseconds of each of `quantiles` in the window that ends now; NaN where it is empty."""
        return one.quantiles(self._fractions, self._number(), self._keep)

    # the label sets

    def _number(self) -> int:
        return int((self._clock() + self._offset) // self._slice_seconds)

    def _place(self, key: RequestKey) -> _Place:
        method, path, known = self._table.label(*key)
        overflows = ["method"] if method == routes.OTHER_METHOD else []
        one = self._all.get((method, path))
        if one is None:
            full = self._full(path, known=known)
            if full:
                overflows.append(full)
                path = routes.OTHER
            one = self._all.get((method, path)) or self._create(method, path)
        place = (one, str(key[3]), tuple(overflows))
        if sum(len(str(part)) for part in key) <= _LONGEST_PLACED:
            if len(self._places) >= _MOST_PLACED:
                self._places.clear()
            self._places[key] = place
        return place

    def _full(self, path: str, *, known: bool) -> str:
        """Return the label that has no place for one more value, "" where there is one."""
        if path in (routes.UNMATCHED, routes.OTHER) or path in self._configured:
            return ""  # what somebody configured has its place, whatever came before
        times = _RESERVE if known else 1
        if path not in self._paths and len(self._paths) >= self._max_paths * times:
            return "path"
        return "series" if self._capped >= self._max_series * times else ""

    def _create(self, method: str, path: str) -> series.Series:
        one = series.Series(method, path, created=self._wall(), cells=len(self.bounds) + 1)
        self._adopt(one)
        return one

    def _adopt(self, one: series.Series) -> None:
        self._all[one.method, one.path] = one
        if one.path not in (routes.UNMATCHED, routes.OTHER):
            self._paths.add(one.path)
            self._capped += 1
        self._changed.add(one)
        self.telemetry.request_series(len(self._all))

    def _exist(self, method: str, template: str) -> None:
        """Create a declared route at 0. The reserve is left to routes that are used: `Any()` declares nine at once."""
        label = routes.method_label(method)
        if method and (label, template) not in self._all and not self._full(template, known=False):
            self._create(label, template)

    # what a checkpoint keeps

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain JSON. Exemplars are left out: they point to recent traces."""
        return self._saved({_name(one): one.save() for one in self._all.values()})

    def changed(self) -> dict[str, Any]:
        """Return what changed since the last call; `merge` adds it to a snapshot."""
        return self.take()()

    def take(self) -> Callable[[], dict[str, Any]]:
        """Return what gives what `changed` would return now, in any thread: a tenth of the work is done here."""
        frozen = [one.frozen() for one in self._changed]
        for one in self._changed:
            one.turned = False
        self._changed.clear()
        return lambda: self._saved({_name(one): one.save(whole=one.turned) for one in frozen})

    def _saved(self, states: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "slice_seconds": self._slice_seconds,
            "bounds": list(self.bounds),
            "series": states,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where a snapshot stopped; called before the first observation. Raises StateError, changing nothing."""
        now = self._number()
        try:
            if saved["version"] != _VERSION:
                raise StateError(f"request metrics of version {saved['version']}, expected {_VERSION}")
            scale = float(saved["slice_seconds"]) / self._slice_seconds
            bounds = tuple(float(bound) for bound in saved["bounds"])
            loaded = []
            for labels, state in saved["series"].items():
                method, _, path = labels.partition(" ")
                loaded.append(
                    series.Series.load(
                        method,
                        path,
                        state,
                        # A slice of the future comes from a wall clock that was set back.
                        renumber=lambda number: min(int(number * scale), now),
                        saved_bounds=bounds,
                        bounds=self.bounds,
                    )
                )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise StateError(f"the saved request metrics are unusable: {error!r}") from error
        for one in loaded:
            if (one.method, one.path) in self._all:  # existed at 0
                self._capped -= one.path not in (routes.UNMATCHED, routes.OTHER)
                self._changed.discard(self._all[one.method, one.path])
            self._adopt(one)
        self._places.clear()
        self.revision += 1


def merge(snapshot: dict[str, Any], changed: Mapping[str, Any]) -> None:
    """Bring a snapshot up to date with what `changed` returned later."""
    states = snapshot.setdefault("series", {})
    for name, state in changed["series"].items():
        states.setdefault(name, {}).update(state)
    snapshot.update({key: value for key, value in changed.items() if key != "series"})


def _name(one: series.Series) -> str:
    return f"{one.method} {one.path}"  # no method holds a space


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count


def _reason(ms: float) -> str:
    if not isfinite(ms):
        return "not_finite"
    if ms < 0:
        return "negative"
    return "too_long" if ms / 1000 > series.LONGEST_SECONDS else _LIFETIME
