"""The structured-log JSON Schema: a compiled verdict for every line, jsonschema for the words.

Problem: jsonschema takes 33 µs a line, and a flood of bad lines must not become our outage. Promise: a schema is
compiled once to straight Python; the verdict, and every violation's (field, rule), equal jsonschema's, which stays
the reference (tests/property/test_validation.py compares the two on random schemas and values). A schema that uses
a keyword the compiler does not know is judged by jsonschema alone, and start-up says so: slow, never wrong.
Refused: to guess at a broken schema. It is a configuration error that says where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from sidecar import gotext
from sidecar.errors import ConfigError, Problem
from sidecar.options import option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jsonschema.protocols import Validator

Json = Any  # any JSON value
Violation = tuple[str, str]  # (field, rule): a dotted path and the JSON Schema keyword
Violations = tuple[Violation, ...]

CANONICAL_ID = "https://gin-sidecar.io/schemas/structured-log/v1.json"
NOT_AN_OBJECT: Violations = (("", "object"),)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `schema`."""

    path: str = option("", "A JSON Schema file to use instead of the built-in one.")
    on_invalid: str = option(
        "forward",
        "What to do with records that stay invalid: send them marked, keep them in the quarantine file "
        "(needs `state.dir`), or drop them.",
        choices=("forward", "quarantine", "drop"),
    )


def document_path(name: str = "structured-log.schema.json") -> Path:
    """Return where a schema document is: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "schemas" / name
    return installed if installed.exists() else package.parent / "schemas" / name


def load(config: Config) -> Schema:
    """Read and compile the configured schema. Raises ConfigError that says where the schema is broken."""
    path = Path(config.path) if config.path else document_path()
    origin = f"schema.path: {path}"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            [Problem(origin, f"cannot be read: {error.strerror}; expected a JSON Schema file")]
        ) from error
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError([Problem(origin, f"is not JSON at {where}: {error.msg}; expected a JSON Schema")]) from error
    if not config.path:
        return Schema(document)
    problem = _problem(document)
    if problem:
        raise ConfigError([Problem(origin, problem)])
    return Schema(document)


def _problem(document: object) -> str | None:
    """Say where a schema document breaks the rules of JSON Schema, or None."""
    from jsonschema import exceptions, validators  # noqa: PLC0415  costs 4 MiB and is not needed for the built-in one

    if not isinstance(document, dict | bool):
        return f"is {type(document).__name__}; expected a JSON object"
    reference = validators.validator_for(document, default=validators.Draft202012Validator)
    try:
        reference.check_schema(cast("dict[str, Any]", document))
    except exceptions.SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path) or "(the document itself)"
        return f"is not a valid JSON Schema at {where}: {error.message}"
    pattern = _broken_pattern(document, [])
    if pattern:
        return pattern
    return None


def _broken_pattern(node: object, path: list[str]) -> str | None:
    """Find a regular expression that Python cannot compile; jsonschema would only fail at the first line."""
    children: Iterable[tuple[object, object]] = ()
    if isinstance(node, dict):
        pattern, patterns = node.get("pattern"), node.get("patternProperties")
        texts = [("pattern", pattern)] if isinstance(pattern, str) else []
        texts += [("patternProperties", text) for text in patterns] if isinstance(patterns, dict) else []
        for key, text in texts:
            try:
                re.compile(text)
            except re.error as error:
                where = "/".join([*path, key])
                return f"has a pattern at {where} that is no regular expression: {text!r}: {error}"
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for name, child in children:
        problem = _broken_pattern(child, [*path, str(name)])
        if problem:
            return problem
    return None


class Schema:
    """One schema, compiled.

    `violations(value)` names every violation, `valid(value)` is its verdict; `verdict_for(keys)` is the fastest form,
    for objects with exactly these top-level keys.
    """

    def __init__(self, document: dict[str, Any] | bool) -> None:
        self.document = document
        # the built-in schema's guarantees are what the fastest path of normalize rests on
        self.canonical = isinstance(document, dict) and document.get("$id") == CANONICAL_ID
        self.unsupported = sorted(_unsupported(document))
        if self.unsupported:
            self.violations: Callable[[Any], Violations] = self._reference_violations
            self.valid: Callable[[Any], bool] = self._reference_valid
        else:
            self.violations = _compile(document, collect=True)
            self.valid = _compile(document, collect=False)

    def verdict_for(self, keys: tuple[str, ...]) -> Callable[[Any], bool] | None:
        """Return the verdict of objects with exactly these keys; None when no such object can be valid."""
        if self.unsupported:
            return self.valid
        if isinstance(self.document, dict) and not set(self.document.get("required", ())) <= set(keys):
            return None
        return _compile(self.document, collect=False, keys=frozenset(keys))

    def columns_for(self, keys: tuple[str, ...]) -> Columns | None:
        """Return the judge of whole batches of objects with exactly these keys; None where there can be none.

        The judge answers the columns (key → values, and "" → the times of `timestamp`, ns) when all objects are valid,
        and None when it cannot say so: then each object is judged for itself. A column at a time stays in C and takes a
        third of the time of `verdict_for`.
        """
        document = self.document
        if self.unsupported or not isinstance(document, dict) or self.verdict_for(keys) is None:
            return None
        if not set(document) <= _SILENT | {"type", "required", "properties"} or document.get("type") != "object":
            return None
        columns = {key: document.get("properties", {}).get(key, {}) for key in keys}
        return _columns(columns) if all(map(_is_column, columns.values())) else None

    def explain(self, value: Json) -> list[tuple[Violation, str]]:
        """Return each violation with jsonschema's words for it; slow, for people."""
        return [((_field(error), str(error.validator)), error.message) for error in self._reference.iter_errors(value)]

    @cached_property
    def _reference(self) -> Validator:
        """Build the oracle: jsonschema with `format: date-time` asserted and no other format."""
        import jsonschema  # noqa: PLC0415  costs 4 MiB and `run` needs it only for schemas of the user's own
        from jsonschema import validators  # noqa: PLC0415

        checker = jsonschema.FormatChecker(formats=())
        checker.checks("date-time")(_is_date_time)
        cls = validators.validator_for(self.document, default=validators.Draft202012Validator)
        return cls(self.document, format_checker=checker)

    def _reference_violations(self, value: Json) -> Violations:
        try:
            return tuple((_field(error), str(error.validator)) for error in self._reference.iter_errors(value))
        except RecursionError:
            return (("", "depth"),)

    def _reference_valid(self, value: Json) -> bool:
        return not self._reference_violations(value)


def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or gotext.rfc3339(value) is not None


def _field(error: Any) -> str:  # noqa: ANN401  jsonschema's ValidationError, imported lazily
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        # one error per missing property; the message is `'level' is a required property`
        for name in error.validator_value:
            if error.message.startswith(f"{name!r} is"):
                path.append(name)
                break
    return ".".join(path)


# The compiler. A keyword is either checked, known to assert nothing, or makes the schema unsupported.

_CHECKED = {
    "type", "enum", "const", "pattern", "format", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minItems", "maxItems", "minProperties", "maxProperties", "required", "properties", "items",
    "additionalProperties", "allOf",
}  # fmt: skip
_SILENT = {
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


def _unsupported(schema: object) -> set[str]:
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
        found |= _unsupported(child)
    return found


def _compile(
    schema: dict[str, Any] | bool, *, collect: bool, keys: frozenset[str] | None = None
) -> Callable[[Any], Any]:
    """Turn a supported schema into one Python function over one value."""
    writer = _Writer(collect=collect)
    writer.line(0, "def judge(v0):")
    if collect:
        writer.line(1, "out = []")
    writer.schema(schema, "v0", '""', 1, keys)
    writer.line(1, "return tuple(out)" if collect else "return True")
    scope: dict[str, Any] = dict(writer.constants, missing=object(), stamp=gotext.rfc3339, path=_path)
    exec("\n".join(writer.lines), scope)  # noqa: S102  the text is ours; every value of the schema is a constant
    judge: Callable[[Any], Any] = scope["judge"]
    return judge


Columns = Callable[[list[dict[str, Any]]], dict[str, list[Any]] | None]

_COLUMN_KEYWORDS = _SILENT | {"type", "enum", "pattern", "format", "minLength", "maxLength", "minimum", "maximum"}
_COLUMN_TYPES = {"string": frozenset((str,)), "integer": frozenset((int,)), "number": frozenset((int, float))}
# Hex ids are told by deleting the digits they may have: a regular expression takes four times as long.
_HEX_IDS = {"^(?!0{32})[0-9a-f]{32}(?!\\n)$": 32, "^[0-9a-f]{16}(?!\\n)$": 16}
_HEX = b"0123456789abcdef"


def _is_column(schema: object) -> bool:
    """Say whether a property can be judged a column at a time: one scalar type and plain keywords."""
    if schema == {}:
        return True
    return (
        isinstance(schema, dict)
        and set(schema) <= _COLUMN_KEYWORDS
        and isinstance(schema.get("type"), str)
        and schema["type"] in _COLUMN_TYPES
        and all(isinstance(value, str) for value in schema.get("enum", ()))
    )


def _columns(schemas: dict[str, dict[str, Any]]) -> Columns:
    checks = {key: _column_checks(schema) for key, schema in schemas.items() if schema}
    times = {key for key, schema in schemas.items() if schema.get("format") == "date-time"}
    types = {key: _COLUMN_TYPES[schema["type"]] for key, schema in schemas.items() if schema}

    def judge(objects: list[dict[str, Any]]) -> dict[str, list[Any]] | None:
        columns: dict[str, list[Any]] = {}
        for key in schemas:
            column = columns[key] = [each[key] for each in objects]
            if key in types:
                if not types[key].issuperset(map(type, column)):
                    return None
                for passes in checks[key]:
                    if not passes(column):
                        return None
            if key in times:
                stamps = gotext.rfc3339_column(column)
                if stamps is None:
                    return None
                if key == "timestamp":
                    columns[""] = stamps
        return columns

    return judge


def _column_checks(schema: dict[str, Any]) -> list[Callable[[list[Any]], bool]]:
    """Return the checks of one column beyond its type; the time of `timestamp` is read by the caller."""
    checks: list[Callable[[list[Any]], bool]] = []
    if "enum" in schema:
        allowed = frozenset(schema["enum"])
        checks.append(allowed.issuperset)
    if schema["type"] == "string":
        if "minLength" in schema:
            checks.append(lambda column, low=schema["minLength"]: min(map(len, column)) >= low)  # type: ignore[misc]
        if "maxLength" in schema:
            checks.append(lambda column, high=schema["maxLength"]: max(map(len, column)) <= high)  # type: ignore[misc]
        if schema.get("pattern") in _HEX_IDS:
            checks.append(_hex_column(_HEX_IDS[schema["pattern"]]))
        elif "pattern" in schema:
            search = re.compile(schema["pattern"]).search
            checks.append(lambda column: all(map(search, column)))
    else:
        if "minimum" in schema:
            checks.append(lambda column, low=schema["minimum"]: min(column) >= low)  # type: ignore[misc]
        if "maximum" in schema:
            checks.append(lambda column, high=schema["maximum"]: max(column) <= high)  # type: ignore[misc]
    return checks


def _hex_column(length: int) -> Callable[[list[str]], bool]:
    zeros = "0" * length

    def passes(column: list[str]) -> bool:
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
                self.check(depth, f"{name!r} not in {v}", f"path({field}, {name!r})", "required")
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
