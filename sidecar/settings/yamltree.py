"""YAML as text with line numbers: what a configuration file says, before anyone interprets it.

Problem: a loader that builds Python values loses the lines, keeps the last of two equal keys, and guesses types
(`no` becomes False, 0123 becomes 83, a date becomes an object), so that a file and the environment would disagree.
Promise: every scalar arrives as it is written, every node knows its line, duplicate keys and everything that is not
plain data are problems with their line, whatever the bytes. Anchors and merge keys (`<<`) work.
Refused: building objects, several documents, and importing the YAML library before there is YAML to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import yaml

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value")}
_HINTS = {"found character '\\t' that cannot start any token": "a tab cannot indent; use spaces"}


@dataclass(slots=True)
class Node:
    """One value with the line it begins on. None stands for null."""

    value: str | list[Node] | dict[str, Node] | None
    line: int

    @property
    def what(self) -> str:
        names: dict[type, str] = {str: "text", list: "a list", dict: "a mapping"}
        return names.get(type(self.value), "nothing")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with the YAML itself."""

    text: str
    line: int


def parse(text: str) -> tuple[Node, list[Flaw]]:
    """Return the one document of the text (null where there is none) and what is wrong with it."""
    import yaml  # noqa: PLC0415  0.8 MiB that a sidecar configured by environment does not pay

    try:
        # The pure Python loader: the C one overflows its stack on deep nesting instead of raising.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not YAML"
        flaw = _HINTS.get(problem) or f"not YAML: {problem}"
        return Node(None, 1), [Flaw(flaw, mark.line + 1 if mark else 1)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return Node(None, 1), [Flaw(f"not YAML: character {chr(error.character)!r}", line)]
    except RecursionError:
        return Node(None, 1), [Flaw("nested too deeply", 1)]
    if root is None:
        return Node(None, 1), []
    reader = _Reader()
    return reader.node(root), reader.flaws


class _Reader:
    """Turns composed nodes into plain ones. Each is visited once, so that aliases cost nothing, however they nest."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self._seen: dict[int, Node] = {}
        self._open: set[int] = set()

    def node(self, composed: yaml.Node) -> Node:
        identity = id(composed)
        if (known := self._seen.get(identity)) is not None:
            return known
        line = composed.start_mark.line + 1
        if identity in self._open:
            self.flaws.append(Flaw("an alias refers to what it is part of", line))
            return Node(None, line)
        self._open.add(identity)
        node = self._seen[identity] = Node(self._value(composed, line), line)
        self._open.discard(identity)
        return node

    def _value(self, composed: yaml.Node, line: int) -> str | list[Node] | dict[str, Node] | None:
        tag, value = composed.tag, composed.value
        if _shape(composed) == "scalar" and tag in _PLAIN_TAGS:
            return None if tag == _TAG + "null" else value
        if _shape(composed) == "sequence" and tag == _TAG + "seq":
            return [self.node(item) for item in value]
        if _shape(composed) == "mapping" and tag == _TAG + "map":
            return self._mapping(value)
        self.flaws.append(Flaw(f"the tag {tag.replace(_TAG, '!!')} has no meaning here", line))
        return None

    def _mapping(self, pairs: list[tuple[yaml.Node, yaml.Node]]) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in pairs:
            line = key.start_mark.line + 1
            if key.tag == _TAG + "merge":
                merged = self._merge(value, line) | merged
            elif _shape(key) != "scalar":
                self.flaws.append(Flaw("a key must be text", line))
            elif key.value in own:
                self.flaws.append(Flaw(f'"{key.value}" stands here and on line {own[key.value].line}', line))
            else:
                node = self.node(value)
                # The line of the key: that of an alias' value is somewhere else, that of a block is one too late.
                own[key.value] = Node(node.value, line)
        return merged | own

    def _merge(self, composed: yaml.Node, line: int) -> dict[str, Node]:
        node = self.node(composed)
        merged: dict[str, Node] = {}
        for part in node.value if isinstance(node.value, list) else [node]:
            if isinstance(part.value, dict):
                merged = part.value | merged  # the first of a list wins
            else:
                self.flaws.append(Flaw("<< merges mappings only", line))
        return merged


def _shape(composed: yaml.Node) -> str:
    shape: str = composed.id  # type: ignore[attr-defined]  # the stubs leave it out
    return shape
