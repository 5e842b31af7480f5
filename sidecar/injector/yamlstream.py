"""A stream of YAML documents of which some are changed and all others stay as they are, byte by byte.

Problem: reading YAML and writing it again loses comments, anchors, quotes, and what others mean by `y` or `0o17`.
Promise: a document that nobody changes is never written anew. One that is changed keeps its order, its head comment and
every scalar as it was written; its aliases are written out, because a change to one must not become a change to all.
What is no YAML, a duplicate key included, is a problem with its line. Refused: several documents in one text without
`---`, and building objects.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from sidecar.errors import Problem
from sidecar.settings import yamltree

if TYPE_CHECKING:
    from collections.abc import Iterable

_START = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_DIRECTIVE = re.compile(r"\ufeff?%")
_EMPTY = re.compile(r"(?:[ \t]*(?:[#%][^\n]*)?(?:\n|\Z))*")  # comments and directives
_HEAD = re.compile(r"\ufeff?(?:---[ \t]*(?:#[^\n]*)?\r?\n)?(?:[ \t]*(?:#[^\n]*)?\r?\n)*")
_EITHER = re.IGNORECASE | re.ASCII
_PLAIN = re.compile(r"(?!(?:null|true|false|yes|no|on|off|y|n)$)[A-Za-z/_][\w./-]*(?::[\w./-]+)*", _EITHER)
_MEASURE = re.compile(r"[0-9]+(?:s|m|h|Ki|Mi|Gi|Ti)")  # nobody's number
_TAG = "tag:yaml.org,2002:"
_LARGEST = 200_000  # nodes of a document with its aliases written out; more is an attack
_TRUE = ("true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a stream. `text` includes its `---`."""

    text: str
    line: int  # of the stream, where it begins


class TooLarge(ValueError):  # noqa: N818  says what it is
    """The document is too large when its aliases are written out."""


def split(stream: str) -> list[Document]:
    """Cut a stream into documents; joined again they are the stream. A `---` in column 1 is never content in YAML."""
    cuts = [0, *(match.start() for match in _START.finditer(stream) if match.start()), len(stream)]
    parts = [stream[start:end] for start, end in pairwise(cuts)]
    documents: list[Document] = []
    line, held = 1, ""
    for part in parts:
        if _EMPTY.fullmatch(part) and "%" in part:  # directives belong to the document behind them
            held += part
            continue
        text = held + part
        documents.append(Document(text, line))
        line += text.count("\n")
        held = ""
    return [*documents, Document(held, line)] if held else documents


def decode(data: bytes, name: str) -> tuple[str, list[Problem]]:
    """Return the text of a stream. Line ends stay as they are."""
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return "", [Problem(f"{name} line {line}", f"not UTF-8 text (byte {error.start + 1})")]


def read(document: Document, name: str) -> tuple[yamltree.Node, list[Problem]]:
    """Return what a document says, and what is wrong with it."""
    root, flaws = yamltree.parse(document.text.removeprefix("\ufeff"))
    return root, [Problem(f"{name} line {document.line + flaw.line - 1}", flaw.text) for flaw in flaws]


class Editable:
    """A document to be changed: its JSON value to decide about, and its text with additions."""

    def __init__(self, document: Document) -> None:
        """Raises TooLarge."""
        self._head = _HEAD.match(document.text)
        self._line_end = "\r\n" if "\r\n" in document.text else "\n"
        self._json: Any = None
        body = document.text.removeprefix("\ufeff")
        if body.lstrip().startswith("{"):
            with contextlib.suppress(ValueError):  # else it is YAML in flow style
                self._json = json.loads(body)
        if self._json is None:
            composed = yaml.compose(body, Loader=yaml.SafeLoader)
            assert composed is not None, "an empty document has nothing to change"
            self._node = _unshared(composed, [0])
        self.value: Any = copy.deepcopy(self._json) if self._json is not None else _value(self._node)

    def add(self, operations: Iterable[dict[str, Any]]) -> None:
        """Apply `add` operations of JSON Patch whose parents exist."""
        for operation in operations:
            parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
            if self._json is not None:
                _add_to_json(self._json, parts, operation["value"])
            else:
                _add_to_node(self._node, parts, operation["value"])

    def text(self) -> str:
        """Return the document with what was added."""
        if self._json is not None:
            return _json(self._json)
        head = self._head[0] if self._head else ""
        written: str = yaml.serialize(self._node, Dumper=_Dumper, allow_unicode=True, width=1000)
        return head + written.replace("\n", self._line_end)


def dump(value: object) -> str:
    """Write a value of ours as one document."""
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=1000, sort_keys=False)
    return f"---\n{text}"


def joined(texts: list[str], added: list[dict[str, Any]]) -> str:
    """Return documents, and objects behind them, as one stream: JSON where all of it is JSON, else YAML."""
    if len(texts) + len(added) > 1 and (objects := _objects(texts)):
        items = [item for one in objects for item in (one["items"] if _listed(one) else [one])]
        whole = objects[0] if len(objects) == 1 and _listed(objects[0]) else {"apiVersion": "v1", "kind": "List"}
        return _json({**whole, "items": [*items, *added]})
    stream = ""
    for text in [*texts, *map(dump, added)]:
        if stream and not stream.endswith("\n"):
            stream += "\n"
        if stream.strip() and not _START.match(text.removeprefix("\ufeff")) and not _DIRECTIVE.match(text):
            stream += "---\n"
        stream += text
    return stream


def _objects(texts: list[str]) -> list[dict[str, Any]]:
    """Return the objects of documents that are all JSON; none where one is not."""
    found = []
    for text in texts:
        try:
            value = json.loads(text.removeprefix("\ufeff"))
        except ValueError:
            return []
        if not isinstance(value, dict):
            return []
        found.append(value)
    return found


def _listed(value: dict[str, Any]) -> bool:
    return value.get("kind") == "List" and isinstance(value.get("items"), list)


def _json(value: object) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes text so that no reader of YAML 1.1 or 1.2 takes it for anything else, and no aliases."""

    yaml_representers: ClassVar[dict[Any, Any]] = dict(yaml.SafeDumper.yaml_representers)

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def text(self, data: str) -> yaml.Node:
        plain = _PLAIN.fullmatch(data) or _MEASURE.fullmatch(data)
        quote = "'" if '"' in data and data.isprintable() else '"'
        return self.represent_scalar(f"{_TAG}str", data, style=None if plain else quote)


_Dumper.add_representer(str, _Dumper.text)


def _unshared(node: yaml.Node, count: list[int]) -> yaml.Node:
    """Copy a graph of nodes as a tree, with merge keys written out. Raises TooLarge."""
    count[0] += 1
    if count[0] > _LARGEST:
        raise TooLarge
    if isinstance(node, yaml.MappingNode):
        # The keys too: one node in two places is written as an anchor and an alias, which is no key in YAML 1.2.
        pairs = [(key, value) for key, value in node.value if key.tag != f"{_TAG}merge"]
        own = [(_unshared(key, count), _unshared(value, count)) for key, value in pairs]
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    tree = _unshared(merged, count)
                    present = {one.value for one, _ in own}
                    own += [pair for pair in tree.value if pair[0].value not in present]
        return yaml.MappingNode(node.tag, own, flow_style=node.flow_style)
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(node.tag, [_unshared(one, count) for one in node.value], flow_style=node.flow_style)
    assert isinstance(node, yaml.ScalarNode)
    return yaml.ScalarNode(node.tag, node.value, style=node.style)


def _value(node: yaml.Node) -> Any:  # noqa: ANN401  JSON
    """Return what a node says, as kubectl would send it. What has no place in JSON stays text."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: _value(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_value(one) for one in node.value]
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() in _TRUE
        case "int":
            return int(text, 0) if re.fullmatch(r"[+-]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)", text) else 0
        case "float":
            return 0.0
        case _:
            return text


def _add_to_json(root: Any, parts: list[str], value: object) -> None:  # noqa: ANN401  JSON
    for part in parts[:-1]:
        root = root[int(part)] if isinstance(root, list) else root[part]
    if isinstance(root, list):
        root.insert(len(root) if parts[-1] == "-" else int(parts[-1]), value)
    else:
        root[parts[-1]] = value


def _add_to_node(root: yaml.Node, parts: list[str], value: object) -> None:
    for part in parts[:-1]:
        if isinstance(root, yaml.SequenceNode):
            root = root.value[int(part)]
        else:
            root = next(node for key, node in root.value if key.value == part)
    dumper, last = _Dumper(io.StringIO(), sort_keys=False), parts[-1]
    made = dumper.represent_data(value)
    if isinstance(root, yaml.SequenceNode):
        root.value.insert(len(root.value) if last == "-" else int(last), made)
    else:
        root.value[:] = [pair for pair in root.value if pair[0].value != last]
        root.value.append((dumper.represent_data(last), made))
    if isinstance(root, yaml.CollectionNode) and len(root.value) == 1:
        root.flow_style = False  # it was written as {} or []
