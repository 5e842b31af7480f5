"""A JSON Schema compiled to straight Python: a verdict, every violation, or a judge of whole columns.

Promise: what a judge says equals jsonschema's answer; a schema that needs more than the keywords below is named
`unsupported` and never compiled. The text of a judge is ours alone: every value of the schema enters as a constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from sidecar import times

Columns = Callable[[Sequence[dict[str, Any]]], dict[str, Sequence[Any]] | None]

# A keyword is either checked, known to assert nothing, or makes the schema unsupported.

_CHECKED = {
    "type", "enum", "const", "pattern", "format", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items",
    "additionalProperties", "allOf",
}  # fmt: skip
SILENT = {
    "$schema", "$id", "$comment", "$anchor", "$defs", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
}  # fmt: skip
_ASSERTING = {
    "$ref", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "anyOf", "oneOf", "not", "if", "then", "else",
    "dependentSchemas", "dependentRequired", "prefixItems", "contains", "minContains", "maxContains", "uniqueItems",
    "patternProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "multipleOf", "definitions",
    "dependencies", "additionalItems", "$recursiveRef", "$recursiveAnchor", "divisibleBy", "extends", "disallow",
}  # fmt: skip
_DIALECTS = {"", "https://json-schema.org/draft/2020-12/schema"}
_TYPES = {
    "string": "type({v}) is str",
    "integer": "(type({v}) is int or type({v}) is float and {v}.is_integer())",
    "number": "(type({v}) is int or type({v}) is float)",
    "boolean": "type({v}) is bool",
    "object": "type({v}) is dict",
    "array": "type({v}) is list",
    "null": "{v} is None",
}


def unsupported(schema: object) -> set[str]:
    """Name what the compiler cannot judge in a schema; empty when it can judge all of it."""
    if not isinstance(schema, dict):
        return set() if schema is True else {"a schema that is false"}
    found = {key for key in schema if key in _ASSERTING}
    if str(schema.get("$schema", "")).rstrip("#") not in _DIALECTS:
        found.add(f"$schema {schema['$schema']}")
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
    if any(isinstance(value, dict | list) or value is True or value is False for value in values):
        found.add("enum or const of booleans, objects or arrays")
    children = [*schema.get("properties", {}).values(), *schema.get("allOf", ())]
    if "items" in schema:
        children.append(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        children.append(schema["additionalProperties"])
    for child in children:
        found |= unsupported(child)
    return found


def compiled(
    schema: dict[str, Any] | bool, *, collect: bool, keys: frozenset[str] | None = None
) -> Callable[[Any], Any]:
    """Turn a supported schema into one Python function over one value."""
    writer = _Writer(collect=collect)
    writer.line(0, "def judge(v0):")
    if collect:
        writer.line(1, "out = []")
    writer.schema(schema, "v0", '""', 1, keys)
    writer.line(1, "return tuple(out)" if collect else "return True")
    scope: dict[str, Any] = dict(writer.constants, missing=object(), stamp=times.rfc3339, path=_path)
    exec("\n".join(writer.lines), scope)  # noqa: S102  the text is ours; every value of the schema is a constant
    judge: Callable[[Any], Any] = scope["judge"]
    return judge


_COLUMN_KEYWORDS = SILENT | {"type", "enum", "pattern", "format", "minLength", "maxLength", "minimum", "maximum"}
_COLUMN_TYPES = {"integer": frozenset((int,)), "number": frozenset((int, float))}
# Hex ids are told by deleting the digits they may have: a regular expression takes four times as long.
_HEX_IDS = {"^(?!0{32})[0-9a-f]{32}(?!\\n)$": 32, "^[0-9a-f]{16}(?!\\n)$": 16}
_HEX = b"0123456789abcdef"


def is_column(schema: object) -> bool:
    """Say whether a property can be judged a column at a time: one scalar type and plain keywords."""
    if schema == {}:
        return True
    return (
        isinstance(schema, dict)
        and set(schema) <= _COLUMN_KEYWORDS
        and isinstance(schema.get("type"), str)
        and schema["type"] in {"string", *_COLUMN_TYPES}
        and all(isinstance(value, str) for value in schema.get("enum", ()))
    )


def of_columns(schemas: dict[str, dict[str, Any]]) -> Columns:
    names = list(schemas)
    checks = [(key, check) for key, schema in schemas.items() if schema for check in _column_checks(schema)]
    dated = [key for key, schema in schemas.items() if schema.get("format") == "date-time"]
    row = itemgetter(*names)  # two names at least: a row is a tuple

    def judge(objects: Sequence[dict[str, Any]]) -> dict[str, Sequence[Any]] | None:
        if {*map(len, objects)} != {len(names)}:
            return None
        try:
            # The key set is what counts: objects are judged, not written, so the order of their keys does not.
            columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*map(row, objects), strict=True), strict=True))
            for key, passes in checks:
                if not passes(columns[key]):
                    return None
            for key in dated:
                stamps = times.rfc3339_column(columns[key])
                if stamps is None:
                    return None
                if key == "timestamp":
                    columns[""] = stamps
        except (KeyError, TypeError):  # another key, or a value of another type
            return None
        return columns

    return judge


def _column_checks(schema: dict[str, Any]) -> list[Callable[[Sequence[Any]], bool]]:
    """Return the checks of one column, its type among them; the time of `timestamp` is read by the caller.

    A check may raise TypeError instead of answering: what only takes texts tells their type for nothing, where asking
    each value for it costs 50 ns.
    """
    checks: list[Callable[[Sequence[Any]], bool]] = []
    if "enum" in schema:
        checks.append(frozenset(schema["enum"]).issuperset)  # of texts: nothing else equals one
    if schema["type"] != "string":
        kinds = _COLUMN_TYPES[schema["type"]]
        checks.append(lambda column: kinds.issuperset(map(type, column)))
        if "minimum" in schema:
            checks.append(lambda column, low=schema["minimum"]: min(column) >= low)  # type: ignore[misc]
        if "maximum" in schema:
            checks.append(lambda column, high=schema["maximum"]: max(column) <= high)  # type: ignore[misc]
        return checks
    if schema.get("pattern") in _HEX_IDS:
        checks.append(_hex_column(_HEX_IDS[schema["pattern"]]))
    elif "enum" not in schema and schema.get("format") != "date-time":
        checks.append(_are_texts)
    if "minLength" in schema:
        checks.append(lambda column, low=schema["minLength"]: min(map(len, column)) >= low)  # type: ignore[misc]
    if "maxLength" in schema:
        checks.append(lambda column, high=schema["maxLength"]: max(map(len, column)) <= high)  # type: ignore[misc]
    if "pattern" in schema and schema["pattern"] not in _HEX_IDS:
        search = re.compile(schema["pattern"]).search
        checks.append(lambda column: all(map(search, column)))
    return checks


def _are_texts(column: Sequence[Any]) -> bool:
    """Answer True, or raise TypeError."""
    "".join(column)
    return True


def _hex_column(length: int) -> Callable[[Sequence[str]], bool]:
    zeros = "0" * length

    def passes(column: Sequence[str]) -> bool:
        joined = "".join(column)
        return (
            joined.isascii()
            and set(map(len, column)) == {length}
            and not joined.encode().translate(None, _HEX)
            and (length != 32 or zeros not in column)
        )

    return passes


def _path(*parts: object) -> str:
    return ".".join(str(part) for part in parts if part != "")


class _Writer:
    """Writes the statements that check one value against one schema."""

    def __init__(self, *, collect: bool) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self._collect = collect
        self._names = 0

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def constant(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def fail(self, depth: int, field: str, rule: str) -> None:
        self.line(depth, f"out.append(({field}, {rule!r}))" if self._collect else "return False")

    def check(self, depth: int, broken: str, field: str, rule: str) -> None:
        self.line(depth, f"if {broken}:")
        self.fail(depth + 1, field, rule)

    def schema(
        self, schema: dict[str, Any] | bool, v: str, field: str, depth: int, keys: frozenset[str] | None = None
    ) -> None:
        """Check the value named `v`; `field` is a Python expression for its path."""
        if schema is True or not isinstance(schema, dict):
            return
        self._scalar(schema, v, field, depth)
        self._object(schema, v, field, depth, keys)
        self._array(schema, v, field, depth)
        for child in schema.get("allOf", ()):
            self.schema(child, v, field, depth, keys)

    def _scalar(self, schema: dict[str, Any], v: str, field: str, depth: int) -> None:
        if "type" in schema:
            types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            known = " or ".join(_TYPES[name].format(v=v) for name in types)
            self.check(depth, f"not ({known})", field, "type")
        if "enum" in schema:
            self.check(depth, f"not ({self._one_of(schema['enum'], v)})", field, "enum")
        if "const" in schema:
            self.check(depth, f"not ({self._one_of([schema['const']], v)})", field, "const")
        texts = []
        if "pattern" in schema:
            texts.append((f"not {self.constant(re.compile(schema['pattern']).search)}({v})", "pattern"))
        if schema.get("format") == "date-time":
            texts.append((f"stamp({v}) is None", "format"))
        texts += self._bounds(schema, f"len({v})", "minLength", "maxLength")
        self._guarded(depth, f"type({v}) is str", texts, field)
        numbers = self._bounds(schema, v, "minimum", "maximum")
        if "exclusiveMinimum" in schema:
            numbers.append((f"{v} <= {self.constant(schema['exclusiveMinimum'])}", "exclusiveMinimum"))
        if "exclusiveMaximum" in schema:
            numbers.append((f"{v} >= {self.constant(schema['exclusiveMaximum'])}", "exclusiveMaximum"))
        self._guarded(depth, _TYPES["number"].format(v=v), numbers, field)

    def _bounds(self, schema: dict[str, Any], what: str, low: str, high: str) -> list[tuple[str, str]]:
        checks = []
        if low in schema:
            checks.append((f"{what} < {self.constant(schema[low])}", low))
        if high in schema:
            checks.append((f"{what} > {self.constant(schema[high])}", high))
        return checks

    def _guarded(self, depth: int, guard: str, checks: list[tuple[str, str]], field: str) -> None:
        if checks:
            self.line(depth, f"if {guard}:")
            for broken, rule in checks:
                self.check(depth + 1, broken, field, rule)

    def _one_of(self, values: list[Any], v: str) -> str:
        """Say that a value equals one of the constants; True and 1 are different values in JSON."""
        tests = []
        texts = frozenset(value for value in values if isinstance(value, str))
        if texts:
            tests.append(f"(type({v}) is str and {v} in {self.constant(texts)})")
        numbers = [value for value in values if isinstance(value, int | float)]
        if numbers:
            tests.append(f"({_TYPES['number'].format(v=v)} and {v} in {self.constant(numbers)})")
        if None in values:
            tests.append(f"{v} is None")
        return " or ".join(tests) or "False"

    def _object(self, schema: dict[str, Any], v: str, field: str, depth: int, keys: frozenset[str] | None) -> None:
        properties: dict[str, Any] = schema.get("properties", {})
        required = schema.get("required", ())
        additional = schema.get("additionalProperties", True)
        sizes = self._bounds(schema, f"len({v})", "minProperties", "maxProperties")
        if not (properties or required or sizes or additional is not True):
            return
        if keys is None:
            self.line(depth, f"if type({v}) is dict:")
            depth += 1
        start = len(self.lines)
        for broken, rule in sizes:
            self.check(depth, broken, field, rule)
        for name in required:
            if keys is None or name not in keys:
                missing = f"path({field}, {name!r})" if field != '""' else repr(name)
                if keys is None:
                    self.check(depth, f"{name!r} not in {v}", missing, "required")
                else:
                    self.fail(depth, missing, "required")
        for name, child in properties.items():
            self._property(name, child, v, field, depth, keys)
        if additional is not True:
            self._additional(additional, set(properties), v, field, depth)
        if len(self.lines) == start:
            self.line(depth, "pass")

    def _property(
        self, name: str, child: dict[str, Any] | bool, v: str, field: str, depth: int, keys: frozenset[str] | None
    ) -> None:
        if child is True or child == {} or (keys is not None and name not in keys):
            return
        value = self.name()
        path = f"path({field}, {name!r})" if field != '""' else repr(name)
        if keys is not None:
            self.line(depth, f"{value} = {v}[{name!r}]")
            self.schema(child, value, path, depth)
            return
        self.line(depth, f"{value} = {v}.get({name!r}, missing)")
        self.line(depth, f"if {value} is not missing:")
        start = len(self.lines)
        self.schema(child, value, path, depth + 1)
        if len(self.lines) == start:
            self.line(depth + 1, "pass")

    def _additional(self, additional: dict[str, Any] | bool, known: set[str], v: str, field: str, depth: int) -> None:
        names = self.constant(frozenset(known))
        if additional is False:
            self.check(depth, f"not {v}.keys() <= {names}", field, "additionalProperties")
            return
        key, value = self.name(), self.name()
        self.line(depth, f"for {key}, {value} in {v}.items():")
        self.line(depth + 1, f"if {key} in {names}: continue")
        self.schema(additional, value, f"path({field}, {key})", depth + 1)

    def _array(self, schema: dict[str, Any], v: str, field: str, depth: int) -> None:
        sizes = self._bounds(schema, f"len({v})", "minItems", "maxItems")
        self._guarded(depth, f"type({v}) is list", sizes, field)
        items = schema.get("items", True)
        if items is True or items == {}:
            return
        index, value = self.name(), self.name()
        self.line(depth, f"if type({v}) is list:")
        self.line(depth + 1, f"for {index}, {value} in enumerate({v}):")
        start = len(self.lines)
        self.schema(items, value, f"path({field}, {index})", depth + 2)
        if len(self.lines) == start:
            self.line(depth + 2, "pass")


def is_free_text(schema: dict[str, Any]) -> bool:
    """Say whether a judged column may hold any text: no number, no word of a list, no id, no time."""
    return (
        schema.get("type", "string") == "string"
        and "enum" not in schema
        and schema.get("format") != "date-time"
        and schema.get("pattern") not in _HEX_IDS
    )
