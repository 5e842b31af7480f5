"""The declared options as one tree: which there are, what each may hold, and how its value is written.

Problem: the loader, `sidecar check`, the README table and the JSON Schema must agree on every option.
Promise: all of them ask this module, which reads nothing but the declarations beside the components. Every value can
be written as text and read back as the same value, whichever way the text came (YAML, environment, command line).
Refused: knowing any component, opening files (a secret does that itself), a default in place of a wrong value.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum, auto
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any, get_type_hints

from sidecar import options
from sidecar.options import Duration, Secret, Size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "SIDECAR_"

_hints = cache(get_type_hints)

# What a place of the configuration says of one option, before it is understood. None: nothing.
Raw = str | list[str] | dict[str, str] | None

_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})")  # no leading zeros: YAML 1.1 reads them as octal
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # surrogates: what was not UTF-8 in the environment
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


class Shape(Enum):
    """How much text a value is made of."""

    ONE = auto()
    LIST = auto()
    MAPPING = auto()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an option may hold: how one text of it is read and written."""

    expected: str
    parse: Callable[[str], Any]  # raises ValueError with the whole message
    show: Callable[[Any], str]  # parse(show(value)) == value
    schema: Mapping[str, Any]  # of one text
    shape: Shape = Shape.ONE

    @property
    def secret(self) -> bool:
        return self.parse is Secret


@dataclass(frozen=True, kw_only=True)
class Option:
    """One declared option with its place in the tree."""

    name: str  # "sinks.loki.url"
    kind: Kind
    default: Any
    doc: str
    choices: tuple[str, ...] | None
    minimum: float | None
    maximum: float | None

    @property
    def variable(self) -> str:
        return variable(self.name)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Every option below one root, in the order of declaration."""

    root: type
    options: dict[str, Option]
    sections: frozenset[str]
    secret_files: dict[str, Option]  # "sinks.loki.password_file" → the secret it is read for
    variables: dict[str, str]  # "SIDECAR_SINKS_LOKI_URL" → "sinks.loki.url", secret files included


def text(text: str) -> str:
    """Return the text if it fits in one line of anything."""
    if bad := _CONTROL.search(text):
        raise ValueError(f"expected text without control characters, found {bad[0]!r} at character {bad.start() + 1}")
    return text


def _boolean(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError("expected true or false") from None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("expected a whole number")
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not isfinite(value := float(text)):
        raise ValueError("expected a number")
    return value


def _duration(text: str) -> Duration:
    try:
        return options.duration(text)
    except ValueError:
        hint = f'; write "{text}s" for seconds' if _NUMBER.fullmatch(text) else ""
        raise ValueError(f'expected a duration such as "5s", "500ms" or "10m"{hint}') from None


def _size(text: str) -> Size:
    try:
        return options.size(text)
    except ValueError:
        raise ValueError('expected a size such as "256KiB" or "1MiB"') from None


def _show_boolean(value: bool) -> str:
    return "true" if value else "false"


def _show_number(value: float) -> str:
    text = repr(float(value)).removesuffix(".0")
    # YAML 1.1 takes an exponent for a number only after a point.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


_STRING = {"type": "string"}
_BOOLEAN = Kind(expected="true or false", parse=_boolean, show=_show_boolean, schema={"type": "boolean"})
_KINDS: dict[Any, Kind] = {
    str: Kind(expected="text", parse=text, show=str, schema=_STRING),
    Secret: Kind(expected="text", parse=Secret, show=str, schema=_STRING),
    bool: _BOOLEAN,
    bool | None: _BOOLEAN,
    int: Kind(expected="a whole number", parse=_integer, show=str, schema={"type": "integer"}),
    float: Kind(expected="a number", parse=_number, show=_show_number, schema={"type": "number"}),
    Duration: Kind(
        expected='a duration such as "5s"',
        parse=_duration,
        show=options.show_duration,
        schema={"type": "string", "pattern": f"^{options.DURATION_PATTERN}$"},
    ),
    Size: Kind(
        expected='a size such as "1MiB"',
        parse=_size,
        show=options.show_size,
        schema={"type": ["string", "integer"], "pattern": f"^{options.SIZE_PATTERN}$", "minimum": 0},
    ),
    list[str]: Kind(expected='a list such as ["a", "b"]', parse=text, show=str, schema=_STRING, shape=Shape.LIST),
    list[float]: Kind(
        expected="a list of numbers such as [0.5, 0.99]",
        parse=_number,
        show=_show_number,
        schema={"type": "number"},
        shape=Shape.LIST,
    ),
    dict[str, str]: Kind(
        expected="a mapping such as {a: b}", parse=text, show=str, schema=_STRING, shape=Shape.MAPPING
    ),
}


def variable(name: str) -> str:
    """Return the environment variable of an option."""
    return PREFIX + name.upper().replace(".", "_")


@cache
def tree(root: type) -> Tree:
    """Walk the declarations below `root`. What is not declared with `option()` (pod identity) is not in it."""
    found: dict[str, Option] = {}
    _walk(root, "", found)
    files = {f"{name}_file": option for name, option in found.items() if option.kind.secret}
    sections = {name[:dot] for name in found for dot in range(len(name)) if name[dot] == "."}
    variables = {variable(name): name for name in (*found, *files)}
    if clash := files.keys() & found.keys() or sections & (files.keys() | found.keys()):
        raise AssertionError(f"declared twice: {sorted(clash)}")
    if len(variables) != len(found) + len(files):
        raise AssertionError("two options share an environment variable")
    return Tree(root=root, options=found, sections=frozenset(sections), secret_files=files, variables=variables)


def _walk(section: type, prefix: str, found: dict[str, Option]) -> None:
    hints = _hints(section)
    for field in fields(section):
        name, declared = prefix + field.name, field.metadata
        if "doc" in declared:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            found[name] = Option(
                name=name,
                kind=_KINDS[hints[field.name]],
                default=default,
                doc=declared["doc"],
                choices=declared["choices"],
                minimum=declared["minimum"],
                maximum=declared["maximum"],
            )
        elif is_dataclass(hints[field.name]):
            _walk(hints[field.name], f"{name}.", found)


def parse(option: Option, raw: Raw) -> Any:  # noqa: ANN401  the option's kind tells
    """Return the value, or None where `raw` says nothing. Raises ValueError that tells what was expected."""
    kind = option.kind
    if raw is None:
        return None
    if kind.shape is Shape.LIST and isinstance(raw, list):
        return [_item(kind, f"item {place}", text) for place, text in enumerate(raw, start=1)]
    if kind.shape is Shape.MAPPING and isinstance(raw, dict):
        return {_item(kind, "a key", key): _item(kind, f'"{key}"', text) for key, text in raw.items()}
    if kind.shape is not Shape.ONE or not isinstance(raw, str):
        raise ValueError(f"expected {kind.expected}")
    if says_nothing(option, raw):
        return None
    free = kind.schema is _STRING and not option.choices
    value = kind.parse(raw if free else raw.strip())
    if option.choices and value not in option.choices:
        allowed = ", ".join(f'"{choice}"' for choice in option.choices)
        raise ValueError(f"expected one of {allowed}{did_you_mean(value, option.choices)}")
    if option.minimum is not None and value < option.minimum:
        raise ValueError(f"must be at least {kind.show(option.minimum)}")
    if option.maximum is not None and value > option.maximum:
        raise ValueError(f"must be at most {kind.show(option.maximum)}")
    return value


def _item(kind: Kind, which: str, text: str) -> Any:  # noqa: ANN401  the kind tells
    try:
        return kind.parse(text)
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from None


def says_nothing(option: Option, raw: Raw) -> bool:
    """Tell whether the option keeps the value it has without this: null, or a blank where blank is no value.

    Where the default is the empty text, a blank switches off what a weaker place has set (`SIDECAR_SINKS_LOKI_URL=`);
    everywhere else `SIDECAR_HTTP_PORT=${UNSET:-}` means that nobody has set it.
    """
    return raw is None or (isinstance(raw, str) and not raw.strip() and option.default != "")


def show(option: Option, value: Any) -> Raw:  # noqa: ANN401  the option's kind tells
    """Return what `parse` reads as this value; secrets and credentials masked."""
    text = option.kind.show
    match option.kind.shape:
        case Shape.LIST:
            return [text(item) for item in value]
        case Shape.MAPPING:
            return {key: text(item) for key, item in value.items()}
        case Shape.ONE:
            return None if value is None else mask_credentials(text(value))


def mask_credentials(text: str) -> str:
    """Hide user and password of every URL in the text."""
    return _USERINFO.sub(f"{options.MASK}@", text)


def build(root: type, values: Mapping[str, Any], prefix: str = "") -> Any:  # noqa: ANN401  an instance of `root`
    """Return an instance of `root` with these values, by option name, and defaults for everything else."""
    arguments = {}
    hints = _hints(root)
    for field in fields(root):
        name = prefix + field.name
        if name in values:
            arguments[field.name] = values[name]
        elif "doc" not in field.metadata and is_dataclass(hints[field.name]):
            arguments[field.name] = build(hints[field.name], values, f"{name}.")
    return root(**arguments)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that the word is probably a slip of; "" where none is near."""
    from difflib import get_close_matches  # noqa: PLC0415  only mistakes pay for it

    return next(iter(get_close_matches(word, list(candidates), n=1)), "")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean "batch"?`, or nothing where no candidate is near."""
    near = nearest(word, candidates)
    return f'; did you mean "{near}"?' if near else ""
