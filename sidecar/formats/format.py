"""How a log dialect is declared: what it looks like, and what its fields and numbers mean.

A format is a declaration without loops and error handling. An object format is told by its keys; a text dialect
has a parser from text to fields, and the formats that those fields may turn out to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar.formats.fields import bare
from sidecar.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Fields = dict[str, object]


class Keys(frozenset[str]):
    """The bare names of an object's keys, nested ones with their path: {"level", "requestmethod"}."""

    first: str = ""  # the first key as written: encoders differ in their order more than in their names


@dataclass(frozen=True, kw_only=True)
class Format:
    """One dialect of structured fields."""

    name: str
    when: Callable[[Keys], bool] = lambda _keys: False
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tried before the common ones
    integer: Unit = Unit.UNKNOWN  # what a bare integer duration counts
    floating: Unit = Unit.UNKNOWN  # what a bare float duration counts
    access: bool = False  # these keys are an access line's: no further hint is needed to count a request
    precision: int = 0  # of two access formats that log the same request the higher one is counted
    repeats_errors: bool = False  # one request with N errors writes N lines (ginzap)
    level: str | None = None  # where the line says none
    prepare: Callable[[Fields], Fields] | None = None  # unwrap fields that stand in a shape of their own


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One dialect of text lines.

    `starts` are the bytes a line begins with, colours aside; none means that only `parse` can tell. `parse` answers
    fields or None; the first of `formats` whose `when` holds for them is the format, the last one in any case.
    """

    parse: Callable[[str], Fields | None]
    formats: tuple[Format, ...]
    starts: tuple[str, ...] = ()


def has(*names: str) -> Callable[[Keys], bool]:
    """Say that an object has all of these keys."""
    wanted = frozenset(map(bare, names))
    return wanted.issubset


def both(*conditions: Callable[[Keys], bool]) -> Callable[[Keys], bool]:
    return lambda keys: all(condition(keys) for condition in conditions)


def lacks(*names: str) -> Callable[[Keys], bool]:
    """Say that an object has none of these keys."""
    unwanted = frozenset(map(bare, names))
    return unwanted.isdisjoint


def anyhow(_keys: Keys) -> bool:
    """Hold for every object: the last format of a dialect."""
    return True
