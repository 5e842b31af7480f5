"""Lines to records: recognize the format, map the fields, validate, encode once. Pure, a batch at a time.

Promise: every line becomes exactly one record with exactly one outcome, whatever its bytes; a line that is valid as
written keeps its bytes; what cannot be known is not invented. Stay in C for as much of a batch as possible: all JSON
lines are parsed as one array, and a run of valid lines of one shape is judged and read a column at a time.
Refused: I/O, logging, metrics. Counts leave as plain sums in `Normalized`, requests as groups of durations.
"""

from __future__ import annotations

import codecs
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

from sidecar import columnar, formats, gotext, jsontext, redact, validation
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

    records: Sequence[Record] = ()
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
    whole: columnar.Records | None = None  # all of them, where they are valid and of one shape
    clean: bool = False  # no text that is looked at can hold a secret, the names of fields aside
    huge: bool = True  # some of these texts may hold an integer beyond 64 bits

    @property
    def made(self) -> Sequence[Record]:
        return self.records if self.whole is None else self.whole  # type: ignore[return-value]

    def received(self, index: int) -> Stamp:
        return Stamp(self.stamps if isinstance(self.stamps, int) else self.stamps[index], 9)

    def put(self, index: int, record: Record) -> None:
        self.records[index] = record
        self.out.outcomes[record.outcome] += 1
        self.out.formats[record.format] += 1
        self.out.levels[record.level] += 1


@dataclass(slots=True)
class _Group:
    """Lines of one plan."""

    plan: plans.Plan
    indexes: list[int] = field(default_factory=list)
    values: list[Fields] = field(default_factory=list)


class _Groups(dict[int, _Group]):
    """The lines of a batch by their plan, in the order in which plans first came."""

    def put(self, plan: plans.Plan, index: int, value: Fields) -> None:
        group = self.get(id(plan))
        if group is None:
            group = self[id(plan)] = _Group(plan)
        group.indexes.append(index)
        group.values.append(value)


_REQUEST_KEYS = ("method", "status", "duration_ms")
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
        self._clock_ns = clock_ns
        zone = UTC if config.timezone == "UTC" else _zone(config.timezone)
        self._redactor = redact.Redactor(config.redact)
        self._plans = plans.Plans(self._finish)
        self._requests = requests.Requests(config.duration_unit)
        self._mapper = mapping.Mapper(schema, self._requests, zone=zone, service_name=service_name)
        self._parser = parsing.Parser()

    def normalize(self, lines: Lines) -> Normalized:
        """Return the records of these lines, in their order, with the sums of what they say."""
        out = Normalized()
        texts = lines.texts
        values = self._parser.objects(texts)
        if None in values and texts[values.index(None)].startswith(codecs.BOM_UTF8):
            texts = [jsontext.unsigned(text) for text in texts]
            values = self._parser.objects(texts)
        work = _Work(texts, values, lines.stamps or self._clock_ns(), [None] * len(texts), out)
        if texts and None not in values:
            plan = self._plans.of_object(values[0])  # type: ignore[arg-type]
            columns = plan.columns(values) if plan.columns is not None else None  # type: ignore[arg-type]
            if columns is not None:
                self._valid(work, plan, columns, range(len(texts)))
                out.records = work.made
                return out
        by_shape: dict[tuple[str, ...], list[int]] = {}
        for index, value in enumerate(values):
            if value is not None:
                by_shape.setdefault(tuple(value), []).append(index)
        self._texts(work, lines)
        for indexes in by_shape.values():
            self._objects(work, indexes)

        # only now is every index filled: objects were read shape by shape
        out.records = work.made
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
        if plan.verdict is None or plan.sensitive or plan.weights or not self._schema.canonical:
            return
        counts = all(key in keys for key in _REQUEST_KEYS)
        if counts or not all(name in plan.candidates for name in _REQUEST_KEYS):
            plan.counts = counts and (plan.format.access or plan.hinted)
            plan.columns = self._schema.columns_for(keys)
            plan.free_text = self._schema.free_text(keys)

    # JSON objects

    def _objects(self, work: _Work, indexes: Sequence[int]) -> None:
        """Make the records of all objects with the same keys: of the valid ones from columns, if they are of a kind."""
        values: list[Fields] = work.values  # type: ignore[assignment]
        plan = self._plans.of_object(values[indexes[0]])
        if plan.columns is not None and plan.verdict is not None:
            columns = plan.columns([values[index] for index in indexes])
            valid = indexes
            if columns is None:  # one object that is not valid must not cost all others their columns
                valid = [index for index in indexes if plan.verdict(values[index])]
                columns = plan.columns([values[index] for index in valid]) if valid else None
            if columns is not None:
                self._valid(work, plan, columns, valid)
                sound = set(valid)
                indexes = [index for index in indexes if index not in sound]
        self._each(work, indexes)

    def _valid(self, work: _Work, plan: plans.Plan, columns: dict[str, Sequence[Any]], indexes: Sequence[int]) -> None:
        """Make the records of objects that are all valid as written; those that hold a secret one by one."""
        secret = self._secret(work, plan, columns, indexes)
        if secret:
            # a few rows among many: the others stay in columns
            work.clean = False
            for index in secret:
                work.put(index, self._valid_object(work, index, plan))
            hidden = set(secret)
            kept = [row for row, index in enumerate(indexes) if index not in hidden]
            if not kept:
                return
            indexes = [indexes[row] for row in kept]
            columns = {key: [column[row] for row in kept] for key, column in columns.items()}
        self._columns(work, plan, columns, indexes)

    def _each(self, work: _Work, indexes: Sequence[int]) -> None:
        """Make the records of objects that are not all valid: the valid ones alone, the others plan by plan."""
        self._look_over(work, indexes)
        groups = _Groups()
        for index in indexes:
            value: Fields = work.values[index]  # type: ignore[assignment]
            plan = self._plans.of_object(value)
            if plan.verdict is not None and plan.verdict(value):
                work.put(index, self._valid_object(work, index, plan))
                continue
            groups.put(plan, index, self._clean(work, index, plan, value))
            for violation in (plan.violations or self._schema.violations)(value):
                work.out.violations[violation] += 1
        for group in groups.values():
            self._map(work, group)

    def _look_over(self, work: _Work, indexes: Sequence[int]) -> None:
        """Say what need not be asked of each line: asking all of them at once takes half the time."""
        joined = b"\n".join([work.texts[index] for index in indexes])
        work.clean = not self._redactor.suspects(joined)
        work.huge = jsontext.has_huge_integer(joined)

    def _clean(self, work: _Work, index: int, plan: plans.Plan, value: Fields) -> Fields:
        """Return an object as it may leave the pod, with its numbers as they are written."""
        text = work.texts[index]
        if work.huge and jsontext.has_huge_integer(text):
            value = jsontext.parse_exactly(text) or value
        return self._hide(work, index, plan, value)

    def _hide(self, work: _Work, index: int, plan: plans.Plan, value: Fields) -> Fields:
        """Return an object without its secrets; the same one where it has none."""
        if plan.sensitive or (not work.clean and self._redactor.suspects(work.texts[index])):
            return self._redactor.value(value)  # type: ignore[return-value]
        return value

    def _map(self, work: _Work, group: _Group) -> None:
        """Make the records of objects or texts of one plan that are not valid as written."""
        indexes, received = group.indexes, [work.received(index) for index in group.indexes]
        records = None
        if len(indexes) > _FEW:
            records = self._mapper.records(group.values, group.plan, received, work.out)
        if records is None:
            records = [
                self._mapper.record(value, group.plan, stamp, work.out)
                for value, stamp in zip(group.values, received, strict=True)
            ]
        for index, record in zip(indexes, records, strict=True):
            work.records[index] = record
        work.out.formats[group.plan.format.name] += len(records)
        work.out.outcomes.update([record.outcome for record in records])
        work.out.levels.update([record.level for record in records])

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
        whole = count == len(texts)
        made = columnar.Records(
            form,
            columns[""],
            columns["level"],
            columns["service_name"],
            trace_ids,
            columns.get("span_id") or [""] * count,
            texts if whole else [texts[index] for index in indexes],
        )
        if whole:
            work.whole = made
        else:
            for index, record in zip(indexes, made.rows, strict=True):
                work.records[index] = record
        out.outcomes[Outcome.VALID] += count
        out.formats[form] += count
        out.levels.update(columns["level"])
        if plan.counts:
            self._requests.observe_columns(form, columns, trace_ids, out)

    def _valid_object(self, work: _Work, index: int, plan: plans.Plan) -> Record:
        """Make the record of an object that is valid as written; its line changes only where it holds a secret."""
        text = work.texts[index]
        value: Fields = work.values[index]  # type: ignore[assignment]
        clean = self._hide(work, index, plan, value)
        if clean is not value and work.huge and jsontext.has_huge_integer(text):
            clean = self._clean(work, index, plan, value)
        record = self._mapper.record(clean, plan, work.received(index), work.out)
        own = value.get("level")
        return Record(
            record.time_ns,
            Outcome.VALID,
            record.format,
            own if isinstance(own, str) and own in fields.LEVELS else record.level,
            record.service_name,
            record.trace_id,
            record.span_id,
            text if clean is value else jsontext.dumps(clean),
        )

    # text

    def _texts(self, work: _Work, lines: Lines) -> None:
        """Make the records of lines that are no JSON objects."""
        indexes = [index for index, value in enumerate(work.values) if value is None]
        if not indexes:
            return
        self._look_over(work, indexes)
        groups = _Groups()
        for index in indexes:
            plan, read = self._read(work, index, lines.kinds.get(index), lines.marks.get(index))
            groups.put(plan, index, read)
        work.out.violations.update(dict.fromkeys(validation.NOT_AN_OBJECT, len(indexes)))
        for group in groups.values():
            self._map(work, group)

    def _read(self, work: _Work, index: int, kind: str | None, mark: Mark | None) -> tuple[plans.Plan, Fields]:
        """Read the fields of a text, then hide their secrets: a text without them might read as something else."""
        text = gotext.strip_ansi(work.texts[index].decode("utf-8", "replace"))
        value, dialect = _read_text(text.strip("\r\n") if kind else text.removesuffix("\r"))
        if mark is not None:
            value[mark.value] = True
        plan = self._plans.of_text(value, dialect)
        value = self._hide(work, index, plan, value)
        if plan.format.name == "gin_debug" and "route" in value:
            work.out.routes.append((str(value["method"]), str(value["route"])))
        return plan, value


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # noqa: PLC0415  0.3 MiB that few need

    return ZoneInfo(name)


def _read_text(text: str) -> tuple[Fields, Any]:
    for dialect in formats.TEXTS:
        if not dialect.starts or text.startswith(dialect.starts):
            found = dialect.parse(text)
            if found is not None:
                return found, dialect
    raise AssertionError("the last dialect takes every text")
