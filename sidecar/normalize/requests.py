"""Which lines are HTTP requests, how long those took, and that each is counted once.

A line counts as one request when it has a method, a status 100–599 and a place for a duration, and its format or a key
says that a server wrote it: clients' and jobs' lines have durations too, and a handler's line about its request has
none. A duration that cannot be read is rejected, its request counts. A duration whose unit is still open is held until
the service's numbers tell it; the request counts at once, the duration when it is known, or as rejected. A line with
`sample_weight` (or a number as `sampled`) stands for that many requests; where that is no whole number from 1 on, the
request counts once and its duration is rejected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sidecar import units
from sidecar.formats import fields
from sidecar.model import RequestGroup, RequestKey
from sidecar.normalize import duplicates
from sidecar.units import Reading, Sticky, Unit

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sidecar.formats.format import Fields
    from sidecar.normalize import plans

    class Sums(Protocol):
        """Where counts go: normalize.Normalized."""

        requests: dict[RequestKey, RequestGroup]
        rejected: Counter[str]
        deduplicated: int


_MOST_SAVED = 256
_METHODS = re.compile(r"[A-Za-z][A-Za-z-]{2,19}")
_MOST_HELD = 1000
_UNITS = frozenset({"ns", "us", "ms", "s"})  # as a record's own `duration_unit` names them
_MOST_WEIGHT = 1_000_000
LIVE_LINES = 512  # from here on: a backlog, or a service too busy to look at each request's time
_ABSORBED = 64


@lru_cache(maxsize=64)
def _is_method(text: str) -> bool:
    return _METHODS.fullmatch(text) is not None


def _weight(plan: plans.Plan, source: Fields) -> int | None:
    """Return how many requests a line stands for; None where it says something else than a number of requests."""
    for candidate in plan.weights:
        value = candidate.find(source)
        # `sampled: true` says that the line was chosen, not out of how many
        if value is None or (isinstance(value, bool) and fields.bare(candidate.path[-1]) == "sampled"):
            continue
        number = units.number(value) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number <= _MOST_WEIGHT:
            return None
        return int(number) if number == int(number) else None
    return 1


@dataclass(slots=True)
class Access:
    """An access line's request."""

    method: str
    route: str
    path: str
    status: int
    reading: Reading
    open_value: int | None = None  # the number whose unit is not known yet
    written: object = None  # the duration as the line has it


@dataclass(slots=True)
class _Held:
    key: RequestKey
    value: int
    trace_id: str
    weight: int = 1


class Requests:
    """Reads and counts the requests of access lines."""

    def __init__(self, duration_unit: str) -> None:
        self._configured = None if duration_unit == "auto" else Unit(duration_unit)
        self._sticky: dict[tuple[str, str], Sticky] = {}
        self._held: dict[tuple[str, str], list[_Held]] = {}
        self._errors = duplicates.ErrorLines()
        self._twins = duplicates.Twins()
        self._latest: tuple[str, dict[str, Sequence[Any]]] | None = None

    # one line

    def measure(self, plan: plans.Plan, source: Fields, got: Fields, taken: list[plans.Path]) -> Access | None:
        """Read the duration of an access line into `got`; None when the line is not one request."""
        method = got.get("method")
        status = got.get("status")
        if not plan.durations:
            return None
        server = plan.format.access or plan.hinted
        request = None
        if server and isinstance(method, str) and isinstance(status, int) and _is_method(method):
            request = (method, status)
        service = str(got["service_name"])
        found = self._duration(plan, source, service, matched=request is not None and status != 404)
        if found is None:
            if request is None:
                return None
            candidate = plan.durations[0]
            found = candidate, Reading(rejected="not_a_number"), None, candidate.find(source)
        candidate, reading, open_value, written = found
        access = None
        if request:
            route, path = str(got.get("route", "")), str(got.get("path", ""))
            access = Access(request[0], route, path, request[1], reading, open_value, written)
        elif candidate.path[-1] != "duration_ms" and (method is None or status is None):
            return None  # a job's or a query's duration keeps its own name and unit
        if reading.ms is not None:
            got["duration_ms"] = reading.ms
            taken.append(candidate.path)
            if reading.inferred:
                got["duration_unit_inferred"] = True
        elif open_value is not None:
            got["duration_unit"] = "ambiguous"
        elif reading.unit is not None:
            got["duration_unit"] = str(reading.unit)
        return access

    def _duration(
        self, plan: plans.Plan, source: Fields, service: str, *, matched: bool
    ) -> tuple[plans.Candidate, Reading, int | None, object] | None:
        """Find the best duration of a line: the canonical one, then one with its unit in its text, then numbers."""
        written = []
        for candidate in plan.durations:
            value = candidate.find(source)
            if value is not None and value != "":
                written.append((candidate, value))
        for candidate, value in written:
            if candidate.path == ("duration_ms",):
                reading = units.read(value, Unit.MS)
                if reading is not None:
                    return candidate, reading, None, value
        for candidate, value in written:
            if isinstance(value, str) and not value[-1:].isdecimal():
                reading = units.read(value, Unit.NS)
                if reading is not None:
                    return candidate, reading, None, value
        for candidate, value in written:
            found = self._number(plan, candidate, source, value, service, matched=matched)
            if found is not None:
                return found
        return None

    def _number(
        self,
        plan: plans.Plan,
        candidate: plans.Candidate,
        source: Fields,
        value: object,
        service: str,
        *,
        matched: bool,
    ) -> tuple[plans.Candidate, Reading, int | None, object] | None:
        unit = candidate.unit
        told = unit is not None
        inferred = False
        said = source.get("duration_unit")
        if unit is None and isinstance(said, str) and said in _UNITS:
            unit = Unit(said)
        if unit is None:
            number = units.number(value) if isinstance(value, str) else value
            if number is None:
                return None
            integral = isinstance(number, int)
            unit = plan.format.integer if integral else plan.format.floating
            if unit is Unit.STICKY and isinstance(number, int):
                if self._configured is not None:
                    unit = self._configured
                elif source.get("duration_unit") == "ambiguous":
                    return candidate, Reading(), None, value
                else:
                    name = (service, plan.format.name)
                    sticky = self._sticky.setdefault(name, Sticky())
                    unit = sticky.show(number, matched=matched)
                    if unit is None:
                        return candidate, Reading(), number, value
            elif unit is Unit.UNKNOWN:
                if source.get("duration_unit") == "ambiguous":
                    return candidate, Reading(), None, value
                unit = self._configured or (Unit.NS if integral else Unit.S)
                inferred = self._configured is None
        reading = units.read(value, unit)
        if reading is None:
            return None
        reading.inferred = inferred and reading.ms is not None
        if reading.rejected and not told and not isinstance(value, bool):
            reading.unit = unit
        return candidate, reading, None, value

    def observe(
        self, access: Access, plan: plans.Plan, source: Fields, got: Fields, time_ns: int, record: Fields, out: Sums
    ) -> None:
        """Count the request of an access line, unless another line of it has been counted."""
        form = plan.format
        bare_path = access.path
        if form.repeats_errors and record["level"] == "error":
            identity = (
                access.method, bare_path, access.status, str(source.get("query")), str(source.get("ip")),
                str(source.get("user-agent")), str(access.written),
            )  # fmt: skip
            message = str(got.get("message"))
            if message != bare_path and self._errors.repeats(
                identity, message, time_ns, exact=not isinstance(access.written, int)
            ):
                out.deduplicated += 1
                return
        self._absorb(form.name)
        if self._twins.counted(form.name, (access.method, bare_path, access.status), access.reading.ms, time_ns):
            out.deduplicated += 1
            return
        key = (access.method, access.route, "" if access.route else access.path, access.status)
        group = out.requests.get(key)
        if group is None:
            group = out.requests[key] = RequestGroup()
        trace_id = str(got.get("trace_id", ""))
        reading = access.reading
        weight = _weight(plan, source) if plan.weights else 1
        if weight is None:
            group.unmeasured += 1
            out.rejected["bad_weight"] += 1
            return
        if reading.ms is not None:
            if weight == 1:
                group.durations.append(reading.ms)
                group.trace_ids.append(trace_id)
                if not plan.weights:
                    group.times_ns.append(time_ns)
            else:
                group.weighted.append((reading.ms, trace_id, weight))
            self._release(form.name, str(got["service_name"]), out)
        else:
            group.unmeasured += weight
            if access.open_value is not None:
                self._hold((str(got["service_name"]), form.name), _Held(key, access.open_value, trace_id, weight), out)
            else:
                out.rejected[reading.rejected or "ambiguous_unit"] += weight

    # durations whose unit is open

    def _hold(self, name: tuple[str, str], held: _Held, out: Sums) -> None:
        waiting = self._held.setdefault(name, [])
        if len(waiting) >= _MOST_HELD:
            out.rejected["ambiguous_unit"] += held.weight
        else:
            waiting.append(held)

    def _release(self, form: str, service: str, out: Sums) -> None:
        """Observe what was held for a unit that is known by now. Their requests are counted already."""
        if not self._held:
            return
        name = (service, form)
        sticky = self._sticky.get(name)
        if sticky is None or sticky.unit is None or name not in self._held:
            return
        for held in self._held.pop(name):
            reading = units.read(held.value, sticky.unit)
            if reading is None or reading.ms is None:
                out.rejected[reading.rejected if reading else "not_a_number"] += held.weight
                continue
            group = out.requests.setdefault(held.key, RequestGroup())
            if held.weight == 1:
                group.durations.append(reading.ms)
                group.trace_ids.append(held.trace_id)
            else:
                group.weighted.append((reading.ms, held.trace_id, held.weight))
            group.unmeasured -= held.weight

    def give_up(self, rejected: Counter[str]) -> None:
        """Count what is still held as rejected: nothing told its unit. Its requests are counted already."""
        for waiting in self._held.values():
            rejected["ambiguous_unit"] += sum(held.weight for held in waiting)
        self._held.clear()

    # what the next process goes on with

    def save(self) -> dict[str, Any]:
        """Return what decides about later lines, as plain JSON: units, held durations, and what may have a twin."""
        latest = None
        if self._latest is not None:
            form, columns = self._latest
            names = ("method", "path", "status", "duration_ms", "")
            latest = [form, {name: columns[name][-_ABSORBED:] for name in names if name in columns}]
        return {
            "sticky": [[*name, *sticky.save()] for name, sticky in list(self._sticky.items())[-_MOST_SAVED:]],
            "held": [
                [*name, [[*one.key, one.value, one.trace_id, one.weight] for one in waiting]]
                for name, waiting in list(self._held.items())[-_MOST_SAVED:]
                if waiting
            ],
            "errors": self._errors.save(),
            "twins": self._twins.save(),
            "latest": latest,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take what `save` returned. Raises KeyError, TypeError or ValueError where it is something else."""
        self._sticky = {(str(service), str(form)): Sticky.load(state) for service, form, *state in saved["sticky"]}
        self._held = {
            (str(service), str(form)): [
                _Held((str(method), str(route), str(path), int(status)), int(value), str(trace_id), *map(int, weight))
                for method, route, path, status, value, trace_id, *weight in waiting  # no weight: saved by an older one
            ]
            for service, form, waiting in saved["held"]
        }
        self._errors.restore(saved["errors"])
        self._twins.restore(saved["twins"])
        latest = saved["latest"]
        self._latest = None if latest is None else (str(latest[0]), dict(latest[1]))

    # whole columns of valid lines

    def observe_columns(
        self, form: str, columns: dict[str, Sequence[Any]], trace_ids: Sequence[str], out: Sums
    ) -> None:
        """Count the requests of valid lines of one shape."""
        methods = columns["method"]
        statuses = columns["status"]
        durations = columns["duration_ms"]
        blank = [""] * len(methods)
        routes = columns.get("route", blank)
        paths = columns.get("path", blank)
        if (
            max(durations) > units.DAY_MS
            or self._twins.several
            or (self._latest is not None and self._latest[0] != form)
        ):
            self._observe_rows(form, columns, trace_ids, out)
            return
        self._latest = (form, columns)
        if all(routes):
            keys: Iterable[RequestKey] = zip(methods, routes, blank, statuses, strict=True)
        else:
            keys = [
                (method, route, "" if route else path, status)
                for method, route, path, status in zip(methods, routes, paths, statuses, strict=True)
            ]
        # Two bound methods a group: looking them up for every line takes as long as all the rest of this loop.
        adders: dict[RequestKey, tuple[Callable[[float], None], Callable[[str], None]]] = {}
        for key, ms, trace_id in zip(keys, durations, trace_ids, strict=True):
            try:
                add_duration, add_trace_id = adders[key]
            except KeyError:
                group = out.requests.setdefault(key, RequestGroup())
                add_duration, add_trace_id = adders[key] = group.durations.append, group.trace_ids.append
            add_duration(ms)
            add_trace_id(trace_id)
        if len(methods) < LIVE_LINES:
            for method, route, path, status, time_ns in zip(methods, routes, paths, statuses, columns[""], strict=True):
                out.requests[method, route, "" if route else path, status].times_ns.append(time_ns)

    def _observe_rows(self, form: str, columns: dict[str, Sequence[Any]], trace_ids: Sequence[str], out: Sums) -> None:
        """Count row by row: a duration is out of range, or the service logs requests in several formats."""
        self._absorb(form)
        blank = [""] * len(trace_ids)
        for method, route, path, status, ms, trace_id, time_ns in zip(
            columns["method"],
            columns.get("route", blank),
            columns.get("path", blank),
            columns["status"],
            columns["duration_ms"],
            trace_ids,
            columns[""],
            strict=True,
        ):
            bare_path = path.partition("?")[0]
            if self._twins.counted(form, (method, bare_path, status), ms, time_ns):
                out.deduplicated += 1
                continue
            key = (method, route, "", status) if route else (method, "", path, status)
            group = out.requests.setdefault(key, RequestGroup())
            if ms > units.DAY_MS:
                group.unmeasured += 1
                out.rejected["too_long"] += 1
            else:
                group.durations.append(ms)
                group.trace_ids.append(trace_id)

    def _absorb(self, form: str) -> None:
        """Remember the latest columns line by line once a second format shows up: its twins may be among them."""
        if self._latest is None or self._latest[0] == form:
            return
        name, columns = self._latest
        self._latest = None
        blank = [""] * len(columns["method"])
        paths = columns.get("path", blank)
        rows = zip(columns["method"], paths, columns["status"], columns["duration_ms"], columns[""], strict=True)
        for method, path, status, ms, time_ns in list(rows)[-_ABSORBED:]:
            self._twins.counted(name, (method, path.partition("?")[0], status), ms, time_ns)
