"""Which stream of Loki a record belongs to: few labels, always the same for one service of one pod.

Every label set is a stream that costs Loki memory and counts against the tenant's limit, so what a line says may
choose among few: its service name, and whether it satisfies the schema. Promise: names and values are such that Loki
takes them; there are never more than `max_services` services with streams of their own, what comes later shares a
stream marked `overflow="true"` and says its service in structured metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SERVICES = 50
MAX_LABELS = 15  # Loki's max_label_names_per_series; service_name does not count
_MAX_NAME_BYTES = 1024
_MAX_VALUE_BYTES = 2048
_REDUCED_VALUE_BYTES = 128

_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_BY_RECORD = ("service_name", "schema_valid", "replay", "overflow")  # they tell the streams of one process apart
IDENTITY = ("namespace", "pod", "container", "environment")  # said by the pod's variables, which nobody else may say
RESERVED = (*_BY_RECORD, *IDENTITY)  # a configured one could pass a service's records off as another's
ROOM = MAX_LABELS + 1 - len(RESERVED)  # for configured ones


@dataclass(slots=True, frozen=True, eq=False)
class Stream:
    """One label set."""

    labels: dict[str, str]
    key: str  # the label set as a selector, also the name of the stream towards `delivery`
    overflow: bool = False  # shared by services: entries say theirs in structured metadata
    replay: bool = False
    reduced: bool = False
    cut: bool = False  # a value was longer than Loki takes


class Streams:
    """Knows the streams of this process."""

    def __init__(self, labels: Mapping[str, str], *, max_services: int = MAX_SERVICES) -> None:
        """`labels`: everything that is the same for every record; `problems` has found nothing in them."""
        self._common = {
            name: cut(_scalar(value), _MAX_VALUE_BYTES)
            for name, value in labels.items()
            if value and name not in _BY_RECORD
        }
        self._cut = any(self._common[name] != _scalar(labels[name]) for name in self._common)
        self._max_services = max_services
        self._services: dict[str, tuple[Stream, Stream]] = {}  # name → (invalid, valid)
        self._overflow: tuple[Stream, Stream] | None = None
        self.overflowed = 0  # records without a stream of their own, in all

    def of(self, service_name: str, *, valid: bool, count: int = 1) -> Stream:
        """Return the stream of `count` records of a service."""
        pair = self._services.get(service_name)
        if pair is None:
            if len(self._services) < self._max_services:
                pair = self._services[service_name] = self._pair(service_name)
            else:
                self.overflowed += count
                if self._overflow is None:
                    self._overflow = self._pair("", overflow=True)
                pair = self._overflow
        return pair[valid]

    def replay(self, stream: Stream) -> Stream:
        """Return the stream that takes what is too late for this one: it has a window of its own."""
        return _stream({**stream.labels, "replay": "1"}, overflow=stream.overflow, replay=True, reduced=stream.reduced)

    def reduced(self, stream: Stream) -> Stream:
        """Return a stream for the same records with as few and as short labels as tell them apart."""
        kept = {
            name: cut(value, _REDUCED_VALUE_BYTES) for name, value in stream.labels.items() if name in _INDISPENSABLE
        }
        return _stream(kept, overflow=stream.overflow, replay=stream.replay, reduced=True)

    def _pair(self, service_name: str, *, overflow: bool = False) -> tuple[Stream, Stream]:
        name = cut(_scalar(service_name), _MAX_VALUE_BYTES)
        first = {"service_name": name or "unknown_service", **self._common}
        shortened = self._cut or name != _scalar(service_name)
        if overflow:
            first["overflow"] = "true"
        invalid, valid = (
            _stream({**first, "schema_valid": value}, overflow=overflow, replay=False, reduced=False, cut=shortened)
            for value in ("false", "true")
        )
        return invalid, valid


_INDISPENSABLE = ("service_name", "namespace", "pod", "container", "schema_valid", "overflow", "replay")


def problems(labels: Mapping[str, str]) -> list[str]:
    """Return what is wrong with labels that a user configured, in words."""
    found = []
    for name, value in labels.items():
        if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_BYTES:
            found.append(f'"{name}" is not a label name: expected letters, digits and "_", no digit and no "__" first')
        elif name in RESERVED:
            found.append(f'"{name}": the sidecar sets this label itself{_said_by(name)}; use another name')
        elif not value:
            found.append(f'"{name}": an empty value is no label')
    if (count := len(labels.keys() - set(RESERVED))) > ROOM:
        found.append(f"{count} labels: Loki takes {ROOM} beside the sidecar's own")
    return found


def _said_by(name: str) -> str:
    variables = {"namespace": "POD_NAMESPACE", "pod": "POD_NAME", "container": "CONTAINER_NAME"}
    source = variables.get(name) or {"environment": "environment", "service_name": "service_name"}.get(name)
    return f", from {source}" if source else ""


def cut(text: str, max_bytes: int) -> str:
    """Return the longest head of a text that takes at most so many bytes of UTF-8."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode(errors="ignore")


def _scalar(text: str) -> str:
    """Return a text without lone surrogates, which JSON for Loki must not carry."""
    return text.encode(errors="replace").decode()


def _stream(labels: dict[str, str], *, overflow: bool, replay: bool, reduced: bool, cut: bool = False) -> Stream:
    pairs = ", ".join(f"{name}={orjson.dumps(value).decode()}" for name, value in sorted(labels.items()))
    return Stream(labels, f"{{{pairs}}}", overflow, replay, reduced, cut)
