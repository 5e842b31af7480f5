"""The places a configuration comes from, each read into one layer: what it says of which option, and where.

Problem: YAML, environment, env files and `--set` spell the same options differently, and people mistype all of them.
Promise: every layer ends in the same texts under the same option names, each with its origin. An unknown name is a
problem with a near miss, never ignored; so is a secret given twice in one layer. Nothing here decides which layer wins.
Refused: understanding values (`settings` does), and variables that Kubernetes sets for a Service named `sidecar…`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar import settings
from sidecar.errors import Problem
from sidecar.options import MASK
from sidecar.settings import PREFIX, Option, Raw, Shape, Tree, yamltree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Read by the loader itself, not options.
_OWN_VARIABLES = {f"{PREFIX}CONFIG"}

# What the kubelet puts into every container for a Service whose name begins with "sidecar" (enableServiceLinks).
# `…_PORT` alone may be ours (SIDECAR_HTTP_PORT, with a Service "sidecar-http"): the address in the value tells.
_SERVICE_LINK = re.compile(
    rf"{PREFIX}(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)"
)
_SERVICE_PORT = re.compile(rf"{PREFIX}(?:[A-Z0-9_]+_)?PORT")
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")

_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*)")
_ENV_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_ENV_SINGLE = re.compile(r"'([^']*)'\s*(?:#.*)?")
_ENV_COMMENT = re.compile(r"(?:^|\s+)#.*")
_ENV_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something was said, in words that lead the reader there."""

    place: str  # "sidecar.yaml", ".env.staging", "--set"; "" for the environment
    key: str  # "sinks.loki.url", "SIDECAR_SINKS_LOKI_URL"
    line: int = 0

    def problem(self, text: str, shown: str = "") -> Problem:
        """Return a problem here; `shown` is what was said, made fit to be seen."""
        separator = " " if self.place == "--set" else ": "
        where = f"{self.place}{separator}{self.key}" if self.place and self.key else self.place or self.key
        suffix = f" (line {self.line})" if self.line else ""
        return Problem(_printable(f"{where}={shown}" if shown else where), _printable(f"{text}{suffix}"))

    def __str__(self) -> str:
        if not self.place:
            return self.key
        return _printable(f"{self.place} line {self.line}" if self.line else self.place)


@dataclass(frozen=True, slots=True)
class Given:
    """What one place says of one option."""

    option: Option
    raw: Raw
    origin: Origin
    said: str  # `raw` as it was written there, for people
    from_file: bool = False  # `raw` names the file that holds the secret

    def problem(self, text: str) -> Problem:
        """Return a problem of this value, showing it, secrets and credentials masked."""
        if self.option.kind.secret and not self.from_file:
            return self.origin.problem(text, f'"{MASK}"')
        said = settings.mask_credentials(self.said)
        said = said if len(said) <= _LONGEST_SHOWN else f"{said[:_LONGEST_SHOWN]}…"
        return self.origin.problem(text, said if said[:1] in {"[", "{"} else f'"{said}"')


@dataclass(slots=True)
class Layer:
    """Everything one place says, by option name, and what is wrong with it."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, given: Given) -> None:
        """Take one more; a later one for the same option wins."""
        name = given.option.name
        if settings.says_nothing(given.option, given.raw):
            return
        other = self.given.get(name)
        if other is not None and other.from_file != given.from_file:
            self.problems.append(given.origin.problem(f"give either {name} or {name}_file, not both"))
        self.given[name] = given


Variables = dict[str, tuple[str, int]]  # name → value, line in its file (0 in the environment)


def environment(variables: Variables, tree: Tree, place: str = "") -> Layer:
    """Read the variables that begin with `SIDECAR_`."""
    layer = Layer()
    for key, (text, line) in variables.items():
        if not key.startswith(PREFIX) or key in _OWN_VARIABLES:
            continue
        origin = Origin(place, key, line)
        name = tree.variables.get(key)
        if _SERVICE_PORT.fullmatch(key) and _SERVICE_ADDRESS.match(text):
            continue
        if name is not None:
            _add_text(layer, tree, name, text, origin)
        elif not _SERVICE_LINK.fullmatch(key):
            sections = {PREFIX[:-1], *(settings.variable(section) for section in tree.sections)}
            layer.problems.append(origin.problem(f"unknown variable{_near(key, tree.variables, sections, '_')}"))
    return layer


def sets(arguments: Iterable[str], tree: Tree) -> Layer:
    """Read the values of `--set`."""
    layer = Layer()
    for argument in arguments:
        key, equals, text = argument.partition("=")
        name = key.strip()
        origin = Origin("--set", name)
        if not equals:
            layer.problems.append(origin.problem("expected KEY=VALUE"))
        elif name in tree.options or name in tree.secret_files:
            _add_text(layer, tree, name, text, origin)
        elif name in tree.sections:
            layer.problems.append(origin.problem("is a section; set the options in it one by one"))
        else:
            near = _near(name, tree.variables.values(), tree.sections, ".")
            layer.problems.append(origin.problem(f"unknown option{near}"))
    return layer


def env_file(text: str, place: str) -> tuple[Variables, list[Problem]]:
    """Read `NAME=value` lines as dotenv does: comments, `export`, quotes. Values are not expanded."""
    variables: Variables = {}
    problems = []
    for number, full in enumerate(text.split("\n"), start=1):
        line = full.strip()
        if not line or line.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        value = _env_value(match[2]) if match else None
        if match and value is not None:
            variables[match[1]] = value, number
        else:
            said = "a quoted value must end with its quote, on its line" if match else "expected NAME=value"
            problems.append(Origin(place, "", number).problem(said))
    return variables, problems


def yaml(text: str, place: str, tree: Tree) -> Layer:
    """Read a configuration file."""
    root, flaws = yamltree.parse(text)
    layer = Layer(problems=[Origin(place, "", flaw.line).problem(flaw.text) for flaw in flaws])
    if root.value is None:
        return layer
    if isinstance(root.value, dict):
        _add_section(layer, tree, "", root.value, place)
    else:
        problem = Origin(place, "", root.line).problem(
            f"expected options such as `http: {{port: 9180}}`, got {root.what}"
        )
        layer.problems.append(problem)
    return layer


def _add_section(layer: Layer, tree: Tree, prefix: str, members: Mapping[str, yamltree.Node], place: str) -> None:
    for key, node in members.items():
        name = prefix + key
        origin = Origin(place, name, node.line)
        if "." not in key and (name in tree.options or name in tree.secret_files):
            _add_node(layer, tree, name, node, origin)
        elif "." in key and (name in tree.options or name in tree.secret_files or name in tree.sections):
            outer, _, inner = key.rpartition(".")
            text = f"in YAML a section is a level of its own: write {outer.replace('.', ': {')}: {{{inner}: …}}"
            layer.problems.append(origin.problem(text + "}" * outer.count(".")))
        elif "." in key or name not in tree.sections:
            near = _near(name, tree.variables.values(), tree.sections, ".")
            # The section is plain from the indentation: only what stands elsewhere is named in full.
            near = near.replace(f'"{prefix}', '"').replace('.…"', '"')
            layer.problems.append(origin.problem(f"unknown option{near}"))
        elif isinstance(node.value, dict):
            _add_section(layer, tree, f"{name}.", node.value, place)
        elif node.value is not None:
            layer.problems.append(origin.problem(f"expected a section of options, got {node.what}"))


def _near(word: str, names: Iterable[str], sections: Iterable[str], separator: str) -> str:
    """Return a near miss of the word: within the innermost section that it names, else the same word elsewhere.

    Long names are alike by their sections; compared whole, `sinks.loki.bach` would be nearest to `sinks.loki.url`.
    """
    sections = [f"{section}{separator}" for section in sections]
    prefix = max((section for section in sections if word.startswith(section)), key=len, default="")
    rest = word.removeprefix(prefix)
    inside = {name[len(prefix) :]: name for name in names if name.startswith(prefix)}
    below = {section[len(prefix) : -1]: f"{section}…" for section in sections if section.startswith(prefix)}
    if near := settings.nearest(rest, inside | below):
        return f'; did you mean "{(inside | below)[near]}"?'
    elsewhere = [name for name in names if name.endswith(f"{separator}{rest.removeprefix(PREFIX)}")]
    return f'; did you mean "{elsewhere[0]}"?' if elsewhere else ""


def _add_text(layer: Layer, tree: Tree, name: str, text: str, origin: Origin) -> None:
    if name in tree.secret_files:
        layer.add(Given(tree.secret_files[name], text, origin, text, from_file=True))
        return
    option = tree.options[name]
    try:
        raw = unfold(option, text)
    except ValueError as error:
        layer.problems.append(Given(option, text, origin, text).problem(str(error)))
    else:
        layer.add(Given(option, raw, origin, text))


def _add_node(layer: Layer, tree: Tree, name: str, node: yamltree.Node, origin: Origin) -> None:
    from_file = name in tree.secret_files
    option = tree.secret_files[name] if from_file else tree.options[name]
    try:
        raw = _plain(node)
    except ValueError as error:
        layer.problems.append(origin.problem(str(error)))
    else:
        layer.add(Given(option, raw, origin, _said(raw), from_file=from_file))


def _said(raw: Raw) -> str:
    if isinstance(raw, dict):
        return "{" + ", ".join(f"{key}: {text}" for key, text in raw.items()) + "}"
    return f"[{', '.join(raw)}]" if isinstance(raw, list) else raw or ""


def _plain(node: yamltree.Node) -> Raw:
    """Return the texts of a node. Raises ValueError where there is more than one level of them."""
    if isinstance(node.value, list):
        return [_scalar(item, f"item {place}") for place, item in enumerate(node.value, start=1)]
    if isinstance(node.value, dict):
        return {key: _scalar(item, f'"{key}"') for key, item in node.value.items()}
    return node.value


def _scalar(node: yamltree.Node, which: str) -> str:
    if not isinstance(node.value, str):
        raise ValueError(f"{which}: expected one value, got {node.what}")  # noqa: TRY004  a problem of the text
    return node.value


def unfold(option: Option, text: str) -> Raw:
    """Split a text into the items of a list or mapping: YAML's flow form, else separated by commas."""
    shape, stripped = option.kind.shape, text.strip()
    if shape is Shape.ONE:
        return text
    if not stripped:
        return None
    if stripped[:1] + stripped[-1:] == ("[]" if shape is Shape.LIST else "{}"):
        node, flaws = yamltree.parse(stripped)
        if flaws:
            raise ValueError(flaws[0].text)
        return _plain(node)
    items = _split(stripped)
    if shape is Shape.LIST:
        return items
    pairs: dict[str, str] = {}
    for item in items:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError("expected pairs such as a=b,c=d")
        if key in pairs:
            raise ValueError(f'"{key}" stands here twice')
        pairs[key] = value
    return pairs


def _split(text: str) -> list[str]:
    """Split at commas, except within brackets: a regular expression such as `[0-9]{4,6}` stays whole."""
    items, depth, start = [], 0, 0
    for match in re.finditer(r"\\.|[\[{(]|[\]})]|,", text):
        mark = match[0]
        if mark == "," and not depth:
            items.append(text[start : match.start()])
            start = match.end()
        elif mark in "[{(":
            depth += 1
        elif mark in "]})":
            depth = max(0, depth - 1)
    items.append(text[start:])
    return [item.strip() for item in items if item.strip()]


def _env_value(text: str) -> str | None:
    """Return the value of a line of an env file; None where a quote does not end."""
    if text.startswith('"'):
        match = _ENV_DOUBLE.fullmatch(text)
        return re.sub(r"\\(.)", lambda m: _ENV_ESCAPES.get(m[1], m[1]), match[1]) if match else None
    if text.startswith("'"):
        match = _ENV_SINGLE.fullmatch(text)
        return match[1] if match else None
    return _ENV_COMMENT.sub("", text)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
