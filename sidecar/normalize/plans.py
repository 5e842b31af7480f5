"""From the shape of an object to the plan of its normalization, compiled once per shape.

Problem: recognizing a format and finding its fields takes 100 µs; a container writes a handful of shapes. Promise:
a plan is found by the object's keys in order (nested ones too), holds for every object of that shape whatever the
types of its values, and is forgotten only when there are too many. What a plan cannot read stays in the record
under its own name: nothing is lost by mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from sidecar import formats, units
from sidecar.formats import fields
from sidecar.formats.format import Dialect, Fields, Format, Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.units import Unit
    from sidecar.validation import judges

Path = tuple[str, ...]
Converter = Callable[[object], object]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_MOST_SHAPES = 256
_DEEPEST = 3
_MOST_LEAVES = 200
_WEIGHTS = {"sampleweight": 0, "sampled": 1}


@dataclass(slots=True)
class Candidate:
    """One place where a field's value may stand."""

    path: Path
    convert: Converter
    unit: Unit | None = None  # duration: what the key's own suffix says
    more: Callable[[object, object], bool] | None = None  # tells whether a value holds more than what was read
    key: str | None = None  # of a path of one key: that key

    def __post_init__(self) -> None:
        self.key = self.path[0] if len(self.path) == 1 else None

    def find(self, source: Fields) -> object:
        """Return what stands there, or None."""
        if self.key is not None:
            return source.get(self.key)
        value: object = source
        for key in self.path:
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value


_ALWAYS = {"timestamp", "level", "service_name", "message"}  # the last one may be made of the error


@dataclass(slots=True)
class Plan:
    """How objects of one shape become records."""

    format: Format
    candidates: dict[str, list[Candidate]]
    hinted: bool  # a key says that this is a server's line: a request may be counted
    sensitive: tuple[str, ...] = ()  # top-level keys whose values are secrets
    columns: judges.Columns | None = None  # judges whole batches of objects of this shape that are valid as written
    violations: Callable[[Fields], tuple[tuple[str, str], ...]] | None = None  # of objects of this shape, as written
    free_text: tuple[str, ...] = ()  # of these columns, those that may hold a secret
    verdict: Callable[[Fields], bool] | None = None  # None when no object of this shape can be valid as written
    counts: bool = False  # objects judged by columns are requests
    times: list[Candidate] = field(default_factory=list)
    durations: list[Candidate] = field(default_factory=list)
    others: list[tuple[str, list[Candidate]]] = field(default_factory=list)  # every field but those two
    weights: tuple[Candidate, ...] = ()  # where it stands how many requests a line stands for
    order: tuple[str, ...] = ()  # the canonical fields that a record of this shape may have, as it writes them

    def __post_init__(self) -> None:
        self.times = self.candidates.get("timestamp", [])
        self.durations = self.candidates.get("duration_ms", [])
        self.others = [pair for pair in self.candidates.items() if pair[0] not in ("timestamp", "duration_ms")]
        self.order = tuple(name for name in fields.ORDER if name in self.candidates or name in _ALWAYS)


class Plans:
    """Finds or makes the plan of an object."""

    def __init__(self, finish: Callable[[Plan, tuple[str, ...]], None]) -> None:
        """`finish` completes a new plan with what the schema and redaction know of its top-level keys."""
        self._finish = finish
        self._by_keys: dict[tuple[str, ...], Plan | tuple[str, ...]] = {}
        self._by_shape: dict[Hashable, Plan] = {}
        self._by_text: dict[Hashable, Plan] = {}
        self.misses = 0

    def of_object(self, value: Fields) -> Plan:
        """Return the plan of a JSON object."""
        keys = tuple(value)
        found = self._by_keys.get(keys)
        if found is None:
            nested = tuple(key for key, inner in value.items() if isinstance(inner, dict))
            found = nested or self._make(value, recognize(value))
            _keep(self._by_keys, keys, found)
        if isinstance(found, Plan):
            return found
        shape = (keys, tuple(_shape(value[key], 1) for key in found))
        plan = self._by_shape.get(shape)
        if plan is None:
            plan = self._make(value, recognize(value))
            _keep(self._by_shape, shape, plan)
        return plan

    def of_text(self, value: Fields, dialect: Dialect) -> Plan:
        """Return the plan of the fields that a dialect's parser found."""
        key = (id(dialect), tuple(value))
        plan = self._by_text.get(key)
        if plan is None:
            known = keys_of(value)
            plan = self._make(value, next((f for f in dialect.formats if f.when(known)), dialect.formats[-1]))
            _keep(self._by_text, key, plan)
        return plan

    def _make(self, value: Fields, form: Format) -> Plan:
        self.misses += 1
        leaves = list(_leaves(form.prepare(value) if form.prepare else value, ()))[:_MOST_LEAVES]
        candidates = _candidates(leaves, form)
        hinted = _hinted(leaves) or not _SERVER_FIELDS.isdisjoint(candidates)
        if not (hinted or form.access):
            # an address that no server's key stands beside is what a client called; as `path` it would pass for ours
            candidates.pop("path", None)
        plan = Plan(form, candidates, hinted, weights=_weights(leaves))
        self._finish(plan, tuple(value))
        return plan


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(cache) >= _MOST_SHAPES:
        cache.clear()
    cache[key] = value


def recognize(value: Fields) -> Format:
    """Return the first object format whose keys are there."""
    keys = keys_of(value)
    return next(form for form in formats.OBJECTS if form.when(keys))


def keys_of(value: Fields) -> Keys:
    """Return the bare names of an object's keys, nested ones joined with their path."""
    keys = Keys(_names(value, "", 0))
    keys.first = fields.bare(next(iter(value), ""))
    return keys


def _names(value: Fields, prefix: str, depth: int) -> Iterator[str]:
    for key, inner in value.items():
        name = prefix + fields.bare(key)
        yield name
        if isinstance(inner, dict) and depth < _DEEPEST:
            yield from _names(inner, name, depth + 1)


def _shape(value: object, depth: int) -> Hashable:
    if not isinstance(value, dict):
        return None
    nested = (
        [_shape(inner, depth + 1) for inner in value.values() if isinstance(inner, dict)] if depth < _DEEPEST else ()
    )
    return (tuple(value), *nested)


def _leaves(value: Fields, path: Path) -> Iterator[tuple[Path, object]]:
    for key, inner in value.items():
        yield (*path, key), inner
        if isinstance(inner, dict) and len(path) < _DEEPEST:
            yield from _leaves(inner, (*path, key))


def _candidates(leaves: list[tuple[Path, object]], form: Format) -> dict[str, list[Candidate]]:
    """Find for each canonical field the places to look at, best first.

    An alias matches a whole path ("request.method" both as a dotted key and as a nested one) before it matches a key
    inside a container, and the aliases of the format come before the common ones. Of several spellings of one alias
    ("trace_id" and "Trace-Id") the exact one comes first, whatever the order in which the line has them.
    """
    whole: dict[str, list[Path]] = {}
    inside: dict[str, list[Path]] = {}
    for path, _ in leaves:
        whole.setdefault(fields.bare("".join(path)), []).append(path)
        for depth in range(1, len(path)):
            if fields.bare(path[depth - 1]) not in fields.CONTAINERS:
                break
            inside.setdefault(fields.bare("".join(path[depth:])), []).append(path)
    candidates: dict[str, list[Candidate]] = {}
    for name in fields.ORDER:
        spellings: dict[str, list[str]] = {}
        for alias in (name, *form.aliases.get(name, ()), *fields.ALIASES[name]):
            spellings.setdefault(fields.bare(alias), []).append(alias)
        found = [
            (alias, path)
            for table in (whole, inside)
            for alias, spelled in spellings.items()
            for path in _exact_first(table.get(alias, ()), spelled, nested=table is inside)
        ]
        if found:
            unique = dict.fromkeys(path for _, path in found)
            alias_of = {path: alias for alias, path in reversed(found)}
            candidates[name] = [_candidate(name, alias_of[path], path) for path in unique]
    return candidates


def _exact_first(paths: Sequence[Path], spelled: list[str], *, nested: bool) -> Sequence[Path]:
    """Put the nearest paths first, and of these the ones written as an alias is before its other spellings."""
    if len(paths) < 2:
        return paths

    def variant(path: Path) -> tuple[object, bool]:
        place = _distance(path) if nested else ()
        return place, not any(f".{'.'.join(path)}".endswith(f".{alias}") for alias in spelled)

    return sorted(paths, key=variant)


def _weights(leaves: list[tuple[Path, object]]) -> tuple[Candidate, ...]:
    """Find the weight that whoever sampled a line gave it; the field that says no more than "sampled" comes last."""
    found = [
        (rank, len(path), path)
        for path, _ in leaves
        if (rank := _WEIGHTS.get(fields.bare(path[-1]))) is not None
        and all(fields.bare(key) in fields.CONTAINERS for key in path[:-1])
    ]
    return tuple(Candidate(path, fields.text) for *_, path in sorted(found))


def _distance(path: Path) -> tuple[int, int]:
    return len(path), fields.CONTAINERS.index(fields.bare(path[0]))


def _candidate(name: str, alias: str, path: Path) -> Candidate:
    if name == "duration_ms":
        return Candidate(path, fields.text, units.of_key(path[-1]))
    special = fields.SPECIAL.get((name, alias))
    if special is not None:
        return Candidate(path, special)
    return Candidate(path, fields.CONVERTERS.get(name, fields.text), more=fields.MORE.get(name))


# A client's line has method, url, status and duration too; these keys only a server writes.
_SERVER_FIELDS = frozenset({"client_ip", "route", "user_agent"})
_SERVER_KEYS = frozenset(fields.bare(alias) for name in _SERVER_FIELDS for alias in (name, *fields.ALIASES[name])) | {
    "path",
    "uri",
    "requesturi",
    "requestpath",
    "urlpath",
}


def _hinted(leaves: list[tuple[Path, object]]) -> bool:
    for path, _ in leaves:
        names = {fields.bare("".join(path)), fields.bare(path[-1])} if len(path) > 1 else {fields.bare(path[0])}
        if names & _SERVER_KEYS:
            return True
    return False
