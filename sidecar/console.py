"""Colour and progress for people: on a terminal only, never in a pipe, and never when NO_COLOR is set.

https://no-color.org
"""

from __future__ import annotations

import os
import time
from typing import TextIO

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
LEVEL_COLOURS = {"trace": "dim", "debug": "dim", "info": "cyan", "warn": "yellow", "error": "red", "fatal": "magenta"}
OUTCOME_COLOURS = {"valid": "green", "normalized": "cyan", "invalid": "yellow"}


class Paint:
    """Colours text for one stream."""

    def __init__(self, stream: TextIO) -> None:
        self.on = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self.on else text


class Progress:
    """One line on a terminal that says how far a long work is; nothing elsewhere."""

    _EVERY = 0.2

    def __init__(self, stream: TextIO, unit: str, total: int = 0) -> None:
        self._stream = stream
        self._unit = unit
        self._total = total
        self._on = stream.isatty()
        self._start = time.monotonic()
        self._next = self._start + self._EVERY

    def show(self, done: int, note: str = "") -> None:
        """Say how much is done, at most five times a second."""
        now = time.monotonic()
        if not self._on or now < self._next:
            return
        self._next = now + self._EVERY
        share = f"{100 * done / self._total:3.0f} % " if self._total else ""
        rate = done / (now - self._start)
        self._stream.write(f"\r\x1b[K{share}{amount(done)}{self._unit} · {amount(rate)}{self._unit}/s {note}")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._on:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def amount(number: float) -> str:
    """Write a number for people: 1234567 → "1.2 M"."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.1f} {prefix}"
    return f"{number:.0f} "


def printable(text: str, longest: int) -> str:
    """Return text that is safe to show on a terminal: control characters named, the rest cut."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[:longest])
    return shown + ("…" if len(text) > longest else "")
