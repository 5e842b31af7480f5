"""What was measured, for people and for programs: a table on stdout, JSON in a file."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from sidecar import __version__, console

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = 1  # of the JSON


class BrokenError(Exception):
    """What was to be measured does not do its job: there is no number for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with what it may be and what something else was beside it."""

    group: str
    name: str
    value: float
    unit: str
    budget: float | None = None
    aim: float | None = None
    ratio: float | None = None
    to: str = ""  # what the ratio is to

    @property
    def within(self) -> bool | None:
        return None if self.budget is None else self.value <= self.budget


class Progress:
    """Says on a terminal what is being measured; nothing elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on = stream.isatty()
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        if self._on:
            self._stream.write(f"\r\x1b[K{time.monotonic() - self._start:4.0f} s  {text}")
            self._stream.flush()

    def clear(self) -> None:
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def machine() -> dict[str, Any]:
    """Say where the numbers come from."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "version": __version__,
    }


def write_json(path: str, measurements: Sequence[Measurement], where: dict[str, Any], *, quick: bool) -> None:
    rows = [{**asdict(each), "within": each.within} for each in measurements]
    document = {"format": _VERSION, "machine": where, "quick": quick, "measurements": rows}
    with open(path, "wb") as file:  # noqa: PTH123  a path as it was given, /dev/stdout too
        file.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def show(measurements: Sequence[Measurement], where: dict[str, Any], out: TextIO = sys.stdout) -> None:
    """Write the table."""
    paint = console.Paint(out)
    out.write(
        f"gin-sidecar {where['version']} · Python {where['python']} · {where['cpus']} CPUs, load {where['load']}\n"
        "CPU time, the least of several runs; ratios are to what ran in between on the same machine.\n"
    )
    group = None
    for each in measurements:
        if each.group != group:
            group = each.group
            out.write(f"\n{paint('bold', group)}\n")
        verdict = "" if each.within is None else paint(*(("green", "within") if each.within else ("red", "OVER")))
        row = f"  {each.name:<36} {_number(each.value):>8} {each.unit:<14} {_rate(each):<15} {_ratio(each):<38}"
        out.write(f"{row} {_budget(each):<14} {verdict}".rstrip() + "\n")


def _rate(each: Measurement) -> str:
    return f"{console.amount(1e6 / each.value):>7}lines/s" if each.unit == "µs/line" and each.value else ""


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _ratio(each: Measurement) -> str:
    return "" if each.ratio is None else f"{each.ratio:.2f} × {each.to}"


def _budget(each: Measurement) -> str:
    if each.budget is None:
        return ""
    aim = f", aim {each.aim:g}" if each.aim is not None else ""
    return f"≤ {each.budget:g}{aim}"
