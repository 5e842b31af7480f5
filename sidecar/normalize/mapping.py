"""Fields to canonical records: one by one, or a column at a time where many lines have the same shape.

Promise: nothing of a line is lost. What was not taken for a canonical field stays under its own name, and what stands
in the way of a canonical name is kept beside it. `records` says what `record` says of each line, in half the time; it
gives up, having changed nothing, where lines of one shape differ in which of their fields can be read.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sidecar import jsontext, times
from sidecar.formats import fields
from sidecar.model import Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import tzinfo

    from sidecar.formats.format import Fields
    from sidecar.normalize import Normalized, plans, requests
    from sidecar.times import Stamp
    from sidecar.validation import Schema, judges

    Violations = tuple[tuple[str, str], ...]
    Rest = list[tuple[str, list[plans.Path]]]

_MOST_JUDGES = 256
_CANONICAL = frozenset(fields.ORDER)
_UNIT = ("duration_unit", "duration_unit_inferred")
_BESIDE = ("query", *_UNIT)  # what reading adds to a record at its end


class Mapper:
    """Makes records of fields, and tells their requests."""

    def __init__(self, schema: Schema, counting: requests.Requests, *, zone: tzinfo, service_name: str) -> None:
        self._schema = schema
        self._requests = counting
        self._zone = zone
        self._service_name = service_name
        self._judges: dict[tuple[str, ...], Callable[[Fields], Violations]] = {}
        self._column_judges: dict[tuple[str, ...], tuple[Violations, judges.Columns | None]] = {}

    # one line

    def record(self, value: Fields, plan: plans.Plan, received: Stamp, out: Normalized) -> Record:
        """Map fields to the canonical record, validate and encode it, and count its request."""
        form = plan.format
        source = form.prepare(value) if form.prepare else value
        got: Fields = {}
        taken: list[plans.Path] = []
        stamp = None
        for candidate in plan.times:
            known = times.canonical(candidate.find(source), self._zone)
            if known is not None:
                stamp, got["timestamp"] = known
                taken.append(candidate.path)
                break
        for name, candidates in plan.others:
            for candidate in candidates:
                found = source.get(candidate.key) if candidate.key is not None else candidate.find(source)
                if found is None or found == "":
                    continue
                read = candidate.convert(found)
                if read is not None:
                    got[name] = read
                    if candidate.more is None or not candidate.more(found, read):
                        taken.append(candidate.path)
                    break
        if stamp is None:
            stamp = received
            got["timestamp"] = times.format_time(received)
        got.setdefault("service_name", self._service_name)
        if "message" not in got and "error" in got:
            got["message"] = got["error"]
        if _split_path(got, source):
            taken = _without_path(taken, plan)

        access = self._requests.measure(plan, source, got, taken)
        level = got.get("level")
        if level is None:
            level = form.level or "info"
        if access is not None:
            level = _raised(str(level), access.status)
        got["level"] = level

        record = _ordered(got, source, taken, plan.order)
        if access is not None:
            self._requests.observe(access, plan, source, got, stamp.ns, record, out)
        else:
            _learn(got, source, out)
        remaining = self._violations(record)
        trace_id = got.get("trace_id")
        span_id = got.get("span_id")
        return Record(
            stamp.ns,
            Outcome.INVALID if remaining else Outcome.NORMALIZED,
            form.name,
            str(level),
            str(got["service_name"]),
            trace_id if isinstance(trace_id, str) else "",
            span_id if isinstance(span_id, str) else "",
            jsontext.dumps(record),
            remaining,
        )

    def _violations(self, record: Fields) -> Violations:
        """Return what a record still violates; records of one shape share a judge."""
        keys = tuple(record)
        judge = self._judges.get(keys)
        if judge is None:
            if len(self._judges) >= _MOST_JUDGES:
                self._judges.clear()
            judge = self._judges[keys] = self._schema.violations_for(keys)
        return judge(record)

    # many lines of one plan

    def records(
        self, values: list[Fields], plan: plans.Plan, received: Sequence[Stamp], out: Normalized
    ) -> list[Record] | None:
        """Do what `record` does for many lines; None, with nothing done, where their fields are not all alike."""
        prepare = plan.format.prepare
        sources = [prepare(value) for value in values] if prepare else values
        keys = tuple(sources[0])
        if prepare and any(tuple(source) != keys for source in sources):
            return None
        read = self._columns(sources, plan, received)
        if read is None:
            return None
        stamps, columns, taken = read
        names = [name for name in plan.order if name in columns]
        layouts: dict[tuple[plans.Path, ...], Rest | None] = {}
        made: list[Fields] = []
        for source, row, time_ns in zip(
            sources, zip(*[columns[name] for name in names], strict=True), stamps, strict=True
        ):
            got: Fields = dict(zip(names, row, strict=True))
            mine: list[plans.Path] = []
            left = taken
            if "path" in got and _split_path(got, source):
                left = _without_path(taken, plan)
            access = self._requests.measure(plan, source, got, mine)
            if access is not None:
                got["level"] = _raised(str(got["level"]), access.status)
            if plan.durations and got["duration_ms"] is None:
                del got["duration_ms"]
            key = tuple(mine)
            if key not in layouts:
                layouts[key] = _rest(keys, [*taken, *mine])
            record = _laid_out(got, source, layouts[key]) if left is taken else None
            if record is None:
                record = _ordered(got, source, [*left, *mine], plan.order)
            if access is not None:
                self._requests.observe(access, plan, source, got, time_ns, record, out)
            else:
                _learn(got, source, out)
            made.append(record)
        none = [""] * len(made)
        remaining = self._all_violations(made)
        return list(
            map(
                Record,
                stamps,
                [Outcome.INVALID if left else Outcome.NORMALIZED for left in remaining],
                [plan.format.name] * len(made),
                [str(record["level"]) for record in made],
                columns["service_name"],
                columns.get("trace_id", none),
                columns.get("span_id", none),
                map(jsontext.dumps, made),
                remaining,
            )
        )

    def _columns(
        self, sources: list[Fields], plan: plans.Plan, received: Sequence[Stamp]
    ) -> tuple[list[int], dict[str, list[Any]], list[plans.Path]] | None:
        """Read each field of all lines: their times, the columns by name, and where these were found."""
        columns: dict[str, list[Any]] = {}
        taken: list[plans.Path] = []
        count = len(sources)
        stamps = None
        for candidate in plan.times:
            known = [times.canonical(candidate.find(source), self._zone) for source in sources]
            if None not in known:
                stamps, columns["timestamp"] = map(list, zip(*known, strict=True))
                taken.append(candidate.path)
                break
            if known.count(None) < count:
                return None
        if stamps is None:
            stamps, columns["timestamp"] = list(received), list(map(times.format_time, received))
        for name, candidates in plan.others:
            for candidate in candidates:
                written, column = _read(candidate, sources)
                missing = column.count(None)
                if not missing:
                    columns[name] = column
                    more = _more(candidate, written, column)
                    if not more:
                        taken.append(candidate.path)
                    elif more < count:
                        return None
                    break
                if missing < count:
                    return None
        columns.setdefault("service_name", [self._service_name] * count)
        columns.setdefault("level", [plan.format.level or "info"] * count)
        if "message" not in columns and "error" in columns:
            columns["message"] = columns["error"]
        if plan.durations:
            columns["duration_ms"] = [None] * count  # a place to be filled
        return list(map(_ns, stamps)), columns, taken

    def _all_violations(self, records: list[Fields]) -> list[Violations]:
        keys = tuple(records[0])
        known = self._column_judges.get(keys)
        if known is None:
            if len(self._column_judges) >= _MOST_JUDGES:
                self._column_judges.clear()
            known = self._column_judges[keys] = self._schema.lacking(keys), self._schema.columns_of(keys)
        lacking, judge = known
        if judge is not None and judge(records) is not None:
            return [lacking] * len(records)
        return [self._violations(record) for record in records]


_ns = attrgetter("ns")


def _more(candidate: plans.Candidate, written: list[Any], read: list[Any]) -> int:
    """Count the values that hold more than what was read from them."""
    if candidate.more is None or written == read:
        return 0
    return sum(map(candidate.more, written, read))


def _read(candidate: plans.Candidate, sources: list[Fields]) -> tuple[list[Any], list[Any]]:
    """Read one column, as written and as understood; texts that many lines share are read once."""
    key, convert = candidate.key, candidate.convert
    found = (
        [source.get(key) for source in sources] if key is not None else [candidate.find(source) for source in sources]
    )
    if {*map(type, found)} == {str}:
        distinct = {*found}
        if len(distinct) * 2 < len(found):
            known = {text: convert(text) if text else None for text in distinct}
            return found, list(map(known.__getitem__, found))
    return found, [None if value is None or value == "" else convert(value) for value in found]


def _rest(keys: Sequence[str], taken: Sequence[plans.Path]) -> Rest | None:
    """Return the keys that stay, with the paths inside them that do not; None where one of them is a name of ours."""
    whole = {path[0] for path in taken if len(path) == 1}
    rest: Rest = []
    for key in keys:
        if key in whole:
            continue
        if key in _CANONICAL:
            return None
        rest.append((key, [path[1:] for path in taken if path[0] == key]))
    return rest


def _laid_out(got: Fields, source: Fields, rest: Rest | None) -> Fields | None:
    """Do what `_ordered` does with `got`, whose fields are in their order; None where it is not that simple."""
    if rest is None or any(name in got for name in _BESIDE):
        return None
    for key, paths in rest:
        value = source[key]
        if paths:
            value = _without(value, paths)
            if not value:
                continue
        got[key] = value
    return got


def _learn(got: Fields, source: Fields, out: Normalized) -> None:
    """Note a route that slog-gin's HandleGinDebug says the service has registered."""
    if got.get("message") == "Route registered" and "handler" in source and "method" in got and "path" in got:
        out.routes.append((str(got["method"]), str(got["path"])))


def _split_path(got: Fields, source: Fields) -> bool:
    """Part the query from the path, and an address from its host: the label is made of the path alone.

    Says whether something of what was written stands nowhere then: host, fragment, a second query.
    """
    path = got.get("path")
    if not isinstance(path, str):
        return False
    more = False
    if path[:1] != "/":
        target = fields.target(path)
        more = target != path
        path = target or path
    path, _, query = path.partition("?")
    got["path"] = path
    if query:
        own = source.get("query")
        if own is None or own == "":
            got["query"] = query
        elif own != query:
            more = True
    return more


def _without_path(taken: list[plans.Path], plan: plans.Plan) -> list[plans.Path]:
    """Return what was taken, but for the place of the path: it stays as it is."""
    places = {candidate.path for candidate in plan.candidates["path"]}
    return [path for path in taken if path not in places]


def _ordered(got: Fields, source: Fields, taken: list[plans.Path], order: tuple[str, ...]) -> Fields:
    """Lay the canonical fields in their order, then whatever else the line had, under its own name.

    A field of ours that could not be read keeps its place and its value, unless that says that there is no value. What
    stands in the way of a name of ours is kept beside it.
    """
    whole = {path[0] for path in taken if len(path) == 1}
    record: Fields = {}
    for name in order:
        if name in got:
            record[name] = got[name]
        elif name in source and name not in whole and not fields.is_no_value(name, source[name]):
            record[name] = None  # filled below
    nested = {path[0] for path in taken if len(path) > 1} if len(whole) < len(taken) else ()
    for key, value in source.items():
        if key in whole:
            continue
        rest = value
        if key in nested:
            rest = _without(value, [path[1:] for path in taken if path[0] == key])
            if not rest:
                if key not in got:
                    record.pop(key, None)
                continue
        if key in _UNIT and key in got and value == got[key]:
            continue
        if (key in got and key != "query") or fields.is_no_value(key, value):
            beside = f"{key}_original"
            while beside in source:
                beside += "_original"
            record[beside] = rest
        else:
            record[key] = rest
    for name in _BESIDE:
        if name in got:
            record[name] = got[name]
    return record


def _without(value: object, paths: list[plans.Path]) -> object:
    """Return a nested object without the leaves at these paths."""
    if not isinstance(value, dict):
        return value
    gone = {path[0] for path in paths if len(path) == 1}
    deeper = {path[0] for path in paths if len(path) > 1}
    kept: Fields = {}
    for key, inner in value.items():
        if key in gone:
            continue
        if key in deeper:
            rest = _without(inner, [path[1:] for path in paths if path[0] == key and len(path) > 1])
            if rest:
                kept[key] = rest
        else:
            kept[key] = inner
    return kept


_RANK = {level: rank for rank, level in enumerate(fields.LEVELS)}


def _raised(level: str, status: int) -> str:
    """Raise an access line's level to what its status says: ginzap logs a 500 as info."""
    implied = "error" if status >= 500 else "warn" if status >= 400 else "trace"
    return implied if _RANK[implied] > _RANK.get(level, 0) else level
