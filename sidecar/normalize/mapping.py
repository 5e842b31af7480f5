"""What a record is made of once its fields are known: their order, what is left of the line, and its level.

Promise: nothing of a line is lost. What was not taken for a canonical field stays under its own name, and what stands
in the way of a canonical name is kept beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.formats import fields

if TYPE_CHECKING:
    from sidecar.formats.format import Fields
    from sidecar.normalize import plans


def split_path(got: Fields, source: Fields) -> None:
    """Part the query from the path, and an address from its host: the label is made of the path alone."""
    path = got.get("path")
    if not isinstance(path, str):
        return
    if "://" in path[:12]:
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    path, mark, query = path.partition("?")
    got["path"] = path
    if mark and query and not source.get("query"):
        got["query"] = query


def ordered(got: Fields, source: Fields, taken: list[plans.Path], order: tuple[str, ...]) -> Fields:
    """Lay the canonical fields in their order, then whatever else the line had, under its own name."""
    record = {name: got[name] for name in order if name in got}
    whole = {path[0] for path in taken if len(path) == 1}
    nested = {path[0] for path in taken if len(path) > 1} if len(whole) < len(taken) else ()
    for key, value in source.items():
        if key in whole:
            continue
        rest = value
        if key in nested:
            rest = _without(value, [path[1:] for path in taken if path[0] == key])
            if not rest:
                continue
        if key in record:
            # A name of ours that holds something else: both are kept, ours under the name that the schema knows.
            record.setdefault(f"{key}_original", rest)
        else:
            record[key] = rest
    if "query" in got and "query" not in record:
        record["query"] = got["query"]
    for name in ("duration_unit", "duration_unit_inferred"):
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


def raised(level: str, status: int) -> str:
    """Raise an access line's level to what its status says: ginzap logs a 500 as info."""
    implied = "error" if status >= 500 else "warn" if status >= 400 else "trace"
    return implied if _RANK[implied] > _RANK.get(level, 0) else level
