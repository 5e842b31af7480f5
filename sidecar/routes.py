"""Path → route: which template of the application a request belongs to, so that a label stays small.

Problem: an access line mostly carries the raw path, and a label made of raw paths grows without end.
Promise: `Table.label` gives three label values that are short, printable and free of query strings, whatever the line
holds. First hit wins: the route the line itself names, the table of templates (configured, and learned from the
[GIN-debug] lines of start-up), `unmatched` for 404 and 405, and the path with its identifiers replaced by `:id`.
A table lookup follows Gin: static before `:param` before `*wild`, with backtracking, per method.
Refused: counting. How many values a label may have is decided where label sets are created (`durations`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
OTHER_METHOD = "_OTHER"  # OpenTelemetry's word for a method outside the nine
UNMATCHED = "unmatched"
OTHER = "other"

MOST_CHARACTERS = 256  # of a label value
MOST_SEGMENTS = 12  # of a path that only the heuristic knows
MOST_TEMPLATES = 4096  # [GIN-debug] lines can be forged by whoever can make the application print a newline
MOST_CACHED = 4096
_LONGEST_CACHED = 512  # a cache of megabyte paths would be a leak
_LONGEST_JUDGED = 4096  # of a path; what lies behind cannot reach a label

_NO_ROUTE = (404, 405)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_QUERY = re.compile(r"[?#]")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_IDENTIFIER = re.compile(
    r"/(?:[0-9]+"
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|[0-9a-fA-F]{16,}"
    r"|[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}"  # ULID: Crockford's alphabet, the first digit at most 7
    r"|[^/]{49,})(?=/|\Z)"
)


def parse(text: str) -> tuple[str, str]:
    """Return (method, template) of a configured route; the method is "" where any will do. Raises ValueError."""
    words = text.split()
    method, template = words if len(words) == 2 else ("", words[0] if len(words) == 1 else "")
    if not template.startswith("/") or not (method or "GET").isalpha():
        raise ValueError(f'expected a route such as "GET /orders/:id" or "/orders/:id", got "{text}"')
    method = method.upper()
    return ("" if method == "ANY" else method), template


def clean(text: str) -> str:
    """Return `text` as a label value: at most 256 characters, none of them unprintable or impossible in UTF-8."""
    text = text[:MOST_CHARACTERS]
    if text.isprintable():  # false for surrogates and control characters, and a few good ones: then look closer
        return text
    return _UNPRINTABLE.sub("\ufffd", text)


class _Node:
    """One segment of the templates below it."""

    __slots__ = ("params", "static", "template", "wild")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.params: list[tuple[str, _Node]] = []  # what must stand before the parameter ("" mostly), longest first
        self.wild: str | None = None  # the template whose `*rest` begins here
        self.template: str | None = None  # the template that ends here

    def put(self, segments: list[str], template: str) -> bool:
        """Add a template; say whether it was new."""
        node = self
        for segment in segments:
            if segment.startswith("*"):
                known, node.wild = node.wild, node.wild or template
                return known is None
            # Gin lets a parameter follow text ("v:version"), and `\:` stand for a colon.
            before, colon, _ = segment.replace("\\:", "\0").partition(":")
            before = before.replace("\0", ":")
            node = node._param(before) if colon else node.static.setdefault(before, _Node())
        known, node.template = node.template, node.template or template
        return known is None

    def _param(self, before: str) -> _Node:
        for prefix, node in self.params:
            if prefix == before:
                return node
        self.params.append((before, node := _Node()))
        self.params.sort(key=lambda param: -len(param[0]))
        return node

    def match(self, segments: list[str], index: int) -> str | None:
        """Return the template that matches the segments from `index` on. Each node is asked at most once."""
        if index == len(segments):
            return self.template
        segment = segments[index]
        if segment in self.static:
            found = self.static[segment].match(segments, index + 1)
            if found is not None:
                return found
        for prefix, node in self.params:
            if len(segment) > len(prefix) and segment.startswith(prefix):
                found = node.match(segments, index + 1)
                if found is not None:
                    return found
        return self.wild


class Table:
    """What is known about the application's routes, and the labels that follow from it."""

    def __init__(self, config_routes: Sequence[str] = ()) -> None:
        """Raise ValueError where a configured route is none."""
        self._tries: dict[str, _Node] = {}
        self._templates: list[tuple[str, str]] = []
        self._depth = 0
        self._cache: dict[tuple[str, str, str, bool], tuple[str, str, bool]] = {}
        self.version = 0  # rises with every learned template: labels given before may be different now
        for text in config_routes:
            self.learn(*parse(text))

    def learn(self, method: str, template: str) -> bool:
        """Add a template; an empty method stands for any. Return whether it is new."""
        method = method.upper()
        segments = template[1:].split("/")
        if not template.startswith("/") or len(template) > MOST_CHARACTERS or len(self._templates) >= MOST_TEMPLATES:
            return False
        trie = self._tries.get(method)
        if trie is None:
            trie = self._tries[method] = _Node()
        if not trie.put(segments, clean(template)):
            return False
        self._templates.append((method, clean(template)))
        self._depth = max(self._depth, len(segments))
        self._cache.clear()
        self.version += 1
        return True

    def templates(self) -> Iterator[tuple[str, str]]:
        """Give the known templates as (method, template), the oldest first."""
        return iter(self._templates)

    def label(self, method: str, route: str, path: str, status: int) -> tuple[str, str, bool]:
        """Return the labels `method` and `path`, and whether the path is a route that somebody declared."""
        key = (method, route, path, status in _NO_ROUTE)
        try:
            return self._cache[key]
        except (KeyError, TypeError):  # TypeError: what a line holds may be of any type, a list included
            pass
        method, route, path = _text(method), _text(route), _text(path)
        label = (method_label(method), *self._path(method.upper(), route, path, no_route=status in _NO_ROUTE))
        if len(method) + len(route) + len(path) <= _LONGEST_CACHED:
            if len(self._cache) >= MOST_CACHED:
                self._cache.clear()
            self._cache[method, route, path, key[3]] = label
        return label

    def _path(self, method: str, route: str, path: str, *, no_route: bool) -> tuple[str, bool]:
        if route:
            route = clean(_QUERY.split(route, 1)[0])
            if route:
                return route, True
        path = _QUERY.split(path[:_LONGEST_JUDGED], 1)[0]
        if not path.startswith("/"):
            path = _AUTHORITY.sub("", path, count=1)  # a proxy's clients send the whole address
            if path and path != "*" and not path.startswith("/"):
                path = "/" + path
        template = self._match(method, path)
        if template is not None:
            return template, True
        if "/:" in path or "/*" in path:
            # Applications that log FullPath as `path`. Anybody can send such a path, so it earns no reserved place.
            return clean(path), False
        if no_route or not path:
            return UNMATCHED, False
        return _heuristic(path), False

    def _match(self, method: str, path: str) -> str | None:
        if not self._tries or not path.startswith("/"):
            return None
        # One more than the deepest template: the last piece may hold slashes, and only `*wild` asks for it.
        segments = path[1:].split("/", self._depth)
        for known in (method, ""):
            trie = self._tries.get(known)
            if trie is not None:
                template = trie.match(segments, 0)
                if template is not None:
                    return template
        return None


def method_label(method: str) -> str:
    """Return the label of a method: one of the nine in capitals, or `_OTHER`."""
    method = method.upper()
    return method if method in METHODS else OTHER_METHOD


def _heuristic(path: str) -> str:
    path = _IDENTIFIER.sub("/:id", path)
    segments = path.split("/", MOST_SEGMENTS + 1)  # the first one is empty
    if len(segments) > MOST_SEGMENTS + 1:
        path = "/".join(segments[: MOST_SEGMENTS + 1]) + "/*"
    return clean(path)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
