"""The structured-log JSON Schema: a compiled verdict for every line, jsonschema for the words.

Problem: jsonschema takes 33 µs a line, and a flood of bad lines must not become our outage. Promise: a schema is
compiled once to straight Python; the verdict, and every violation's (field, rule), equal jsonschema's, which stays
the reference (tests/property/test_validation.py compares the two on random schemas and values). A schema that uses
a keyword the compiler does not know is judged by jsonschema alone, and start-up says so: slow, never wrong.
Refused: to guess at a broken schema. It is a configuration error that says where.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from sidecar import times
from sidecar.errors import ConfigError, Problem
from sidecar.options import option
from sidecar.validation import judges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    package = Path(__file__).parent.parent
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
    from sidecar.validation import references  # noqa: PLC0415  with jsonschema

    return _broken_pattern(document, []) or references.broken(document)


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
        self.unsupported = sorted(judges.unsupported(document))
        if self.unsupported:
            self.violations: Callable[[Any], Violations] = self._reference_violations
            self.valid: Callable[[Any], bool] = self._reference_valid
        else:
            self.violations = judges.compiled(document, collect=True)
            self.valid = judges.compiled(document, collect=False)

    def verdict_for(self, keys: tuple[str, ...]) -> Callable[[Any], bool] | None:
        """Return the verdict of objects with exactly these keys; None when no such object can be valid."""
        if self.unsupported:
            return self.valid
        if isinstance(self.document, dict) and not set(self.document.get("required", ())) <= set(keys):
            return None
        return judges.compiled(self.document, collect=False, keys=frozenset(keys))

    def violations_for(self, keys: tuple[str, ...]) -> Callable[[Any], Violations]:
        """Return `violations` for objects with exactly these top-level keys: only what is there is looked at."""
        if self.unsupported:
            return self.violations
        return judges.compiled(self.document, collect=True, keys=frozenset(keys))

    def columns_for(self, keys: tuple[str, ...]) -> judges.Columns | None:
        """Return the judge of whole batches of objects with exactly these keys; None where there can be none.

        The judge answers the columns (key → values, and "" → the times of `timestamp`, ns) when all objects are valid,
        and None when it cannot say so: then each object is judged for itself. A column at a time stays in C and takes a
        third of the time of `verdict_for`.
        """
        return None if self.lacking(keys) else self.columns_of(keys)

    def columns_of(self, keys: tuple[str, ...]) -> judges.Columns | None:
        """Return what `columns_for` does, for objects that may lack what is required: only what is there is judged."""
        document = self.document
        if self.unsupported or not isinstance(document, dict):
            return None
        if not set(document) <= judges.SILENT | {"type", "required", "properties"} or document.get("type") != "object":
            return None
        columns = {key: document.get("properties", {}).get(key, {}) for key in keys}
        judged = len(keys) > 1 and all(map(judges.is_column, columns.values()))
        return judges.of_columns(columns) if judged else None

    def lacking(self, keys: tuple[str, ...]) -> Violations:
        """Return the violations of any object with just these keys because of what it lacks."""
        required = self.document.get("required", ()) if isinstance(self.document, dict) else ()
        return tuple((name, "required") for name in required if name not in keys)

    def free_text(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the keys whose column, judged by `columns_for`, may hold any text."""
        properties = self.document.get("properties", {}) if isinstance(self.document, dict) else {}
        return tuple(key for key in keys if judges.is_free_text(properties.get(key, {})))

    def explain(self, value: Json) -> list[tuple[Violation, str]]:
        """Return each violation with jsonschema's words for it; slow, for people."""
        try:
            errors = list(self._reference.iter_errors(value))
        except RecursionError:
            return [(("", "depth"), "is too deep for a schema that refers to itself")]
        return [((_field(error), str(error.validator)), error.message) for error in errors]

    @cached_property
    def _reference(self) -> Validator:
        """Build the oracle: jsonschema with `format: date-time` asserted and no other format."""
        import jsonschema  # noqa: PLC0415  costs 4 MiB and `run` needs it only for schemas of the user's own
        from jsonschema import validators  # noqa: PLC0415

        from sidecar.validation import references  # noqa: PLC0415

        checker = jsonschema.FormatChecker(formats=())
        checker.checks("date-time")(_is_date_time)
        cls = validators.validator_for(self.document, default=validators.Draft202012Validator)
        return cls(self.document, format_checker=checker, registry=references.registry())

    def _reference_violations(self, value: Json) -> Violations:
        try:
            return tuple((_field(error), str(error.validator)) for error in self._reference.iter_errors(value))
        except RecursionError:
            return (("", "depth"),)

    def _reference_valid(self, value: Json) -> bool:
        return not self._reference_violations(value)


def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or times.rfc3339(value) is not None


def _field(error: Any) -> str:  # noqa: ANN401  jsonschema's ValidationError, imported lazily
    path = [str(part) for part in error.absolute_path]
    if error.validator == "required":
        # one error per missing property; the message is `'level' is a required property`
        for name in error.validator_value:
            if error.message.startswith(f"{name!r} is"):
                path.append(name)
                break
    return ".".join(path)
