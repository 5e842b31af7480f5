"""Lines to records: recognize the format, map the fields, validate, encode once. Pure, a batch at a time.

Promise: every line becomes exactly one record with exactly one outcome, whatever its bytes; a line that is valid as
written keeps its bytes; what cannot be known is not invented. Stay in C for as much of a batch as possible: all JSON
lines are parsed as one array, and a run of valid lines of one shape is judged and read a column at a time.
Refused: I/O, logging, metrics. Counts leave as plain sums in `Normalized`, requests as groups of durations.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC
from itertools import repeat
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import orjson

from sidecar import formats, gotext, redact, times, validation
from sidecar.errors import StateError
from sidecar.formats import fields
from sidecar.model import Lines, Mark, Outcome, Record, RequestGroup, RequestKey
from sidecar.normalize import mapping, parsing, plans, requests
from sidecar.options import option
from sidecar.times import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.formats.format import Fields


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `normalize`."""

    timezone: str = option("UTC", "Zone of timestamps that carry none, by its IANA name.")
    duration_unit: str = option(
        "auto",
        "Unit of bare numbers whose format does not tell.",
        choices=("auto", "ns", "us", "ms", "s"),
    )
    redact: redact.Config = field(default_factory=redact.Config)


@dataclass(slots=True)
class Normalized:
    """What a batch of lines became."""

    records: list[Record] = field(default_factory=list)
    requests: dict[RequestKey, RequestGroup] = field(default_factory=dict)
    routes: list[tuple[str, str]] = field(default_factory=list)  # (method, template) that the service registered
    rejected: Counter[str] = field(default_factory=Counter)  # reason → durations that were not observed
    deduplicated: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)  # of the lines as written


@dataclass(slots=True)
class _Work:
    """A batch while its lines become records."""

    texts: list[bytes]
    values: list[Fields | None]  # parallel to texts; None for what is no JSON object
    stamps: list[int] | int  # the runtime's times, or when all of them were read
    records: list[Record | None]  # parallel to texts
    out: Normalized
    clean: bool = False  # no text can hold a secret, the names of fields aside

    def received(self, index: int) -> Stamp:
        return Stamp(self.stamps if isinstance(self.stamps, int) else self.stamps[index], 9)


_REQUEST_KEYS = ("method", "status", "duration_ms")
_MOST_JUDGES = 256
_FEW = 16  # objects that are not worth columns of their own


class Normalizer:
    """Turns lines into records; remembers only what telling formats, units and duplicates apart needs."""

    def __init__(
        self,
        config: Config,
        schema: validation.Schema,
        *,
        service_name: str,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._schema = schema
        self._service_name = service_name
        self._clock_ns = clock_ns
        self._zone = UTC if config.timezone == "UTC" else ZoneInfo(config.timezone)
        self._redactor = redact.Redactor(config.redact)
        self._plans = plans.Plans(self._finish)
        self._requests = requests.Requests(config.duration_unit)
        self._judges: dict[tuple[str, ...], Callable[[Fields], tuple[tuple[str, str], ...]]] = {}
        self._parser = parsing.Parser()

    def normalize(self, lines: Lines) -> Normalized:
        """Return the records of these lines, in their order, with the sums of what they say."""
        out = Normalized()
        texts = lines.texts
        values = self._parser.objects(texts)
        work = _Work(texts, values, lines.stamps or self._clock_ns(), [None] * len(texts), out)
        if texts and None not in values:
            plan = self._plans.of_object(values[0])  # type: ignore[arg-type]
            columns = plan.columns(values) if plan.columns is not None else None  # type: ignore[arg-type]
            if columns is not None:
                self._valid(work, plan, columns, range(len(texts)))
                out.records = work.records  # type: ignore[assignment]
                return out
        work.clean = not self._redactor.suspects(b"\n".join(texts))  # half the time of asking line by line
        by_shape: dict[tuple[str, ...], list[int]] = {}
        for index, value in enumerate(values):
            if value is None:
                record = self._text(work, index, lines.kinds.get(index), lines.marks.get(index))
                work.records[index] = _counted(record, out)
            else:
                by_shape.setdefault(tuple(value), []).append(index)
        for indexes in by_shape.values():
            self._objects(work, indexes)

        # only now is every index filled: objects were read shape by shape
        out.records = work.records  # type: ignore[assignment]
        return out

    def finish(self) -> Normalized:
        """Return what was still waiting for the unit of its durations; nothing more will come."""
        out = Normalized()
        self._requests.give_up(out.rejected)
        return out

    def save(self) -> dict[str, Any]:
        """Return what decides how later lines count, as plain JSON."""
        return self._requests.save()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `save` stood. Raises StateError where `saved` is something else."""
        try:
            self._requests.restore(saved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the saved state of the normalizer is unusable: {error!r}") from error

    # plans

    def _finish(self, plan: plans.Plan, keys: tuple[str, ...]) -> None:
        plan.sensitive = tuple(key for key in keys if self._redactor.sensitive(key))
        plan.verdict = self._schema.verdict_for(keys)
        plan.violations = self._schema.violations_for(keys)
        if plan.verdict is None or plan.sensitive or not self._schema.canonical:
            return
        counts = all(key in keys for key in _REQUEST_KEYS)
        if counts or not all(name in plan.candidates for name in _REQUEST_KEYS):
            plan.counts = counts and (plan.format.access or plan.hinted)
            plan.columns = self._schema.columns_for(keys)
            plan.free_text = self._schema.free_text(keys)

    # JSON objects

    def _objects(self, work: _Work, indexes: Sequence[int]) -> None:
        """Make the records of all objects with the same keys, as many as possible from columns.

        One object that is not valid spoils the columns it is in: halves of halves keep it from spoiling all others.
        """
        values = work.values
        plan = self._plans.of_object(values[indexes[0]])  # type: ignore[arg-type]
        pending = [indexes]
        while pending:
            part = pending.pop()
            judge = plan.columns if len(part) > _FEW or part is indexes else None
            columns = judge([values[index] for index in part]) if judge is not None else None  # type: ignore[misc]
            if columns is not None:
                self._valid(work, plan, columns, part)
            elif judge is None:
                self._each(work, part)
            else:
                middle = len(part) // 2
                pending += part[middle:], part[:middle]  # the earlier half is next: requests count in their order

    def _valid(self, work: _Work, plan: plans.Plan, columns: dict[str, Sequence[Any]], indexes: Sequence[int]) -> None:
        """Make the records of objects that are all valid as written; those that hold a secret one by one."""
        secret = self._secret(work, plan, columns, indexes)
        if secret:
            # a few rows among many: the others stay in columns
            work.clean = False
            self._each(work, secret)
            hidden = set(secret)
            kept = [row for row, index in enumerate(indexes) if index not in hidden]
            if not kept:
                return
            indexes = [indexes[row] for row in kept]
            columns = {key: [column[row] for row in kept] for key, column in columns.items()}
        self._columns(work, plan, columns, indexes)

    def _each(self, work: _Work, indexes: Sequence[int]) -> None:
        """Make the records of objects one by one."""
        for index in indexes:
            work.records[index] = _counted(self._object(work, index), work.out)

    def _secret(
        self, work: _Work, plan: plans.Plan, columns: dict[str, Sequence[Any]], indexes: Sequence[int]
    ) -> Sequence[int]:
        """Return the rows of valid objects that hold a secret: their lines cannot go out as they are."""
        redactor, values = self._redactor, work.values
        if not redactor.may_hide_in(columns[key] for key in plan.free_text):
            return ()
        suspected = [index for index in indexes if redactor.suspects(work.texts[index])]
        return [index for index in suspected if redactor.value(values[index]) is not values[index]]

    def _columns(
        self, work: _Work, plan: plans.Plan, columns: dict[str, Sequence[Any]], indexes: Sequence[int]
    ) -> None:
        """Make the records of objects that are all valid as written, from their columns."""
        form = plan.format.name
        texts, out = work.texts, work.out
        count = len(indexes)
        trace_ids = columns["trace_id"]
        valid = Outcome.VALID
        whole = count == len(texts)
        made = map(
            Record,
            columns[""],
            repeat(valid, count),
            repeat(form, count),
            columns["level"],
            columns["service_name"],
            trace_ids,
            columns.get("span_id") or repeat("", count),
            texts if whole else [texts[index] for index in indexes],
        )
        if whole:
            work.records[:] = made
        else:
            for index, record in zip(indexes, made, strict=True):
                work.records[index] = record
        out.outcomes[valid] += count
        out.formats[form] += count
        out.levels.update(columns["level"])
        if plan.counts:
            self._requests.observe_columns(form, columns, trace_ids, out)

    def _violations(self, record: Fields) -> tuple[tuple[str, str], ...]:
        """Return what a record still violates; records of one shape share a judge."""
        keys = tuple(record)
        judge = self._judges.get(keys)
        if judge is None:
            if len(self._judges) >= _MOST_JUDGES:
                self._judges.clear()
            judge = self._judges[keys] = self._schema.violations_for(keys)
        return judge(record)

    def _object(self, work: _Work, index: int) -> Record:
        """Make the record of one object."""
        text, out = work.texts[index], work.out
        value: Fields = work.values[index]  # type: ignore[assignment]
        plan = self._plans.of_object(value)
        valid = plan.verdict is not None and plan.verdict(value)
        if not valid:
            for violation in (plan.violations or self._schema.violations)(value):
                out.violations[violation] += 1
            if parsing.has_huge_integer(text):
                value = parsing.parse_exactly(text)
        clean: Fields = value
        if plan.sensitive or (not work.clean and self._redactor.suspects(text)):
            clean = self._redactor.value(value)  # type: ignore[assignment]
        record = self._map(clean, plan, work.received(index), out)
        if valid:
            line = text if clean is value else orjson.dumps(clean)
            record = Record(
                record.time_ns, Outcome.VALID, record.format, record.level, record.service_name, record.trace_id,
                record.span_id, line,
            )  # fmt: skip
            own = value.get("level")
            if isinstance(own, str) and own in fields.LEVELS:
                record.level = own
        return record

    # text

    def _text(self, work: _Work, index: int, kind: str | None, mark: Mark | None) -> Record:
        """Make the record of a line that is no JSON object."""
        raw, out = work.texts[index], work.out
        for violation in validation.NOT_AN_OBJECT:
            out.violations[violation] += 1
        text = gotext.strip_ansi(raw.decode("utf-8", "replace"))
        if not work.clean and self._redactor.suspects(raw):
            text = self._redactor.text(text)
        value, dialect = _read_text(text.strip("\r\n") if kind else text.removesuffix("\r"))
        if mark is not None:
            value[mark.value] = True
        plan = self._plans.of_text(value, dialect)
        for key in plan.sensitive:
            value[key] = self._redactor.value({key: value[key]})[key]  # type: ignore[index]
        if plan.format.name == "gin_debug" and "route" in value:
            out.routes.append((str(value["method"]), str(value["route"])))
        return self._map(value, plan, work.received(index), out)

    # mapping

    def _map(self, value: Fields, plan: plans.Plan, received: Stamp, out: Normalized) -> Record:
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
                    taken.append(candidate.path)
                    break
        if stamp is None:
            stamp = received
            got["timestamp"] = times.format_time(received)
        got.setdefault("service_name", self._service_name)
        if "message" not in got and "error" in got:
            got["message"] = got["error"]
        mapping.split_path(got, source)

        access = self._requests.measure(plan, source, got, taken)
        level = got.get("level")
        if level is None:
            level = form.level or "info"
        if access is not None:
            level = mapping.raised(str(level), access.status)
        got["level"] = level

        record = mapping.ordered(got, source, taken, plan.order)
        if access is not None:
            self._requests.observe(access, plan, source, got, stamp.ns, record, out)
        elif got.get("message") == "Route registered" and "handler" in source and "method" in got and "path" in got:
            out.routes.append((str(got["method"]), str(got["path"])))  # slog-gin's HandleGinDebug
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
            orjson.dumps(record),
            remaining,
        )


def _counted(record: Record, out: Normalized) -> Record:
    out.outcomes[record.outcome] += 1
    out.formats[record.format] += 1
    out.levels[record.level] += 1
    return record


def _read_text(text: str) -> tuple[Fields, Any]:
    for dialect in formats.TEXTS:
        if not dialect.starts or text.startswith(dialect.starts):
            found = dialect.parse(text)
            if found is not None:
                return found, dialect
    raise AssertionError("the last dialect takes every text")
