"""The options written down: the effective configuration, the JSON Schema of the file, the table of the README.

Problem: three texts about the same options drift apart.
Promise: all of them are written from the declarations and nothing else. What `describe` writes is YAML that loads as
the same configuration (secrets and credentials excepted, which it masks), and the schema accepts it.
Refused: the YAML library: a few quoting rules are enough for text, lists and mappings of text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from sidecar import settings
from sidecar.options import Secret
from sidecar.settings import Option, Shape, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SCHEMA_ID = "https://gin-sidecar.io/schemas/config/v1.json"
_PLAIN = re.compile(
    r"(?!(?:null|true|false|yes|no|on|off|y|n)$)[A-Za-z/_][\w./-]*(?::[\w./-]+)*", re.ASCII | re.IGNORECASE
)
_MEASURE = re.compile(r"[0-9]+(?:ms|s|m|h|KiB|MiB|GiB|(?:\.[0-9]+){3})")  # with a unit, or an address: no number
_NUMERIC = ("integer", "number", "boolean")
# What YAML takes for a line break or refuses, beyond what JSON escapes.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WIDTH = 100


def describe(tree: Tree, value: Callable[[str], Any], origins: Mapping[str, str]) -> str:
    """Return every option with its value as YAML; a comment tells the origin of what is not a default."""
    lines: list[str] = []
    inside: list[str] = []
    for option in tree.options.values():
        *sections, key = option.name.split(".")
        common = 0
        while common < min(len(inside), len(sections)) and inside[common] == sections[common]:
            common += 1
        lines += [f"{'  ' * depth}{sections[depth]}:" for depth in range(common, len(sections))]
        inside = sections
        key, written = _written(option, key, value(option.name))
        indent = "  " * len(sections)
        comment = f"  # {origins[option.name]}" if option.name in origins else ""
        if isinstance(written, list) and len(flow := f"[{', '.join(written)}]") + len(indent) + len(key) > _WIDTH:
            lines += [f"{indent}{key}:{comment}", *(f"{indent}  - {item}" for item in written)]
        else:
            lines.append(f"{indent}{key}: {flow if isinstance(written, list) else written}{comment}")
    return "\n".join(lines) + "\n"


def _written(option: Option, key: str, value: Any) -> tuple[str, str | list[str]]:  # noqa: ANN401  the kind tells
    """Return the key and the YAML of one value; a list as its items."""
    if isinstance(value, Secret):
        return (f"{key}_file", _quoted(value.path)) if value.path else (key, json.dumps(str(value)))
    raw = settings.show(option, value)
    plain = option.kind.schema["type"] in _NUMERIC
    match raw:
        case list():
            return key, [item if plain else _quoted(item) for item in raw]
        case dict():
            return key, "{" + ", ".join(f"{_quoted(name)}: {_quoted(text)}" for name, text in raw.items()) + "}"
        case str():
            return key, raw if plain else _quoted(raw)
        case None:
            return key, "null"


def _quoted(text: str) -> str:
    """Write text as YAML, plain where nobody could read it as something else."""
    if _PLAIN.fullmatch(text) or _MEASURE.fullmatch(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def json_schema(tree: Tree) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": _SCHEMA_ID,
        "title": "gin-sidecar configuration",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {},
    }
    files = {option.name: name for name, option in tree.secret_files.items()}
    for option in tree.options.values():
        section = root
        *sections, key = option.name.split(".")
        for name in sections:
            empty = {"type": ["object", "null"], "additionalProperties": False, "properties": {}}
            section = section["properties"].setdefault(name, empty)
        section["properties"][key] = _property(option)
        if option.name in files:
            file = files[option.name]
            section["properties"][file.rpartition(".")[2]] = {
                "description": f"File that holds `{option.name}`; read again when it changes. "
                f"Environment: {settings.variable(file)}.",
                "type": ["string", "null"],
            }
    return root


def _property(option: Option) -> dict[str, Any]:
    """Return the schema of one option. Null, as `key:` with nothing behind it, means that nothing is said."""
    kind = option.kind
    description = f"{option.doc}{_bounds(option)} Environment: {option.variable}."
    if option.choices:
        said: dict[str, Any] = {"enum": [*option.choices, None]}
    else:
        one = dict(kind.schema)
        if one["type"] != "string":
            one |= {"minimum": option.minimum} if option.minimum is not None else {}
            one |= {"maximum": option.maximum} if option.maximum is not None else {}
        match kind.shape:
            case Shape.LIST:
                said = {"type": ["array", "null"], "items": one}
            case Shape.MAPPING:
                said = {"type": ["object", "null"], "additionalProperties": one}
            case Shape.ONE:
                types = one["type"] if isinstance(one["type"], list) else [one["type"]]
                said = one | {"type": [*types, "null"]}
    default = "" if kind.secret else _default(option)
    return {"description": description, **said} | ({} if default in ("", None) else {"default": default})


def _default(option: Option) -> Any:  # noqa: ANN401  JSON
    """Return the default as the file would say it; blank where it is decided elsewhere or is the empty text."""
    numeric = option.kind.schema["type"] in _NUMERIC
    return option.default if numeric else settings.show(option, option.default)


def _bounds(option: Option) -> str:
    show = option.kind.show
    least = f" At least {show(option.minimum)}." if option.minimum is not None else ""
    most = f" At most {show(option.maximum)}." if option.maximum is not None else ""
    return least + most


def markdown_table(tree: Tree) -> str:
    """Return one row per option: its names, default and meaning."""
    rows = ["| Option and variable | Default | Meaning |", "|---|---|---|"]
    for option in tree.options.values():
        meaning = option.doc + _bounds(option)
        if option.choices:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in option.choices)}."
        if option.kind.secret:
            meaning += f" Secret: also as `{option.name}_file` or `{option.variable}_FILE`, naming a file."
        cells = (f"`{option.name}`<br>`{option.variable}`", _shown_default(option), meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _shown_default(option: Option) -> str:
    if option.kind.secret or option.default in ("", None, {}):
        return ""
    _, written = _written(option, "", option.default)
    if isinstance(written, list):
        written = f"[{', '.join(written)}]" if written else ""
    return f"`{written}`" if written else ""
