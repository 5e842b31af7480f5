"""How a component declares an option: type, default, documentation, secrecy, in one place beside its code.

One declaration yields the loader, `sidecar check`, the README table and `schemas/config.schema.json`, so that
they cannot drift apart. Components declare frozen dataclasses with `option()`; `config` walks them.
Durations and sizes are written as people write them ("5s", "256KiB") and held as numbers (seconds, bytes).
A secret is held as a `Secret`: its text never shows by accident, and one that lives in a file follows the file.
"""

from __future__ import annotations

import re
import stat
from dataclasses import field
from pathlib import Path
from typing import Any, NewType

Duration = NewType("Duration", float)  # seconds
Size = NewType("Size", int)  # bytes

# Units in descending order, each at most once. Bounded digits, counted in whole microseconds: every duration is finite
# and `duration(show_duration(seconds)) == seconds`.
_DURATION_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}  # microseconds
_DURATION_DIGITS = 6
_LONGEST_DURATION = 999_999 * _DURATION_UNITS["h"]
DURATION_PATTERN = "(?=.)" + "".join(rf"(?:([0-9]{{1,6}}(?:\.[0-9]{{1,3}})?){unit})?" for unit in _DURATION_UNITS)
_DURATION = re.compile(DURATION_PATTERN)
SIZE_PATTERN = "([0-9]{1,15}) ?(B|KiB|MiB|GiB)?"
_SIZE = re.compile(SIZE_PATTERN)
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LARGEST_SIZE = (1 << 63) - 1

MASK = "********"
_SECRET_BYTES = 64 << 10  # nothing that large is a password; whoever names a log file hears of it


class Secret:
    """A value that never shows itself: `str`, `repr` and `format` give a mask, `get` the text.

    A secret of a file is read when first asked for and again when the file has changed, so that a rotated Kubernetes
    or Docker secret needs no restart. While the file cannot be read, the last text read stays in force: a mount that
    is being replaced must not take a working sink down.
    """

    __slots__ = ("_seen", "_text", "path")

    def __init__(self, text: str = "", *, path: str = "") -> None:
        self.path = path  # "" where the text was given itself
        self._text = text
        self._seen: tuple[int, int, int, int] | None = None  # device, inode, mtime, size of what was read

    def get(self) -> str:
        """Return the text now. Raises OSError or ValueError while its file has never been readable."""
        if self.path:
            try:
                self._refresh()
            except (OSError, ValueError):
                if self._seen is None:
                    raise
        return self._text

    def _refresh(self) -> None:
        status = Path(self.path).stat()
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for its writer
            raise ValueError("not a regular file")
        with Path(self.path).open("rb") as file:
            data = file.read(_SECRET_BYTES + 1)
        if len(data) > _SECRET_BYTES:
            raise ValueError(f"longer than {_SECRET_BYTES >> 10} KiB")
        text = data.decode().rstrip("\r\n")
        if not text:
            raise ValueError("the file is empty")  # also the moment between truncation and rewriting
        # The status is older than the text: a change in between is seen, and read, next time.
        self._text, self._seen = text, seen

    def __bool__(self) -> bool:
        return bool(self.path or self._text)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self else "Secret()"

    def __str__(self) -> str:
        return MASK if self else ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.path == other.path and (bool(self.path) or self._text == other._text)

    def __hash__(self) -> int:
        return hash(self.path)


def option(
    default: Any,  # noqa: ANN401  an option may be of any type; the annotation of the field tells which
    doc: str,
    *,
    secret: bool = False,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:  # noqa: ANN401  like dataclasses.field
    """Declare one option. A secret is never shown and may also come from a file (`<name>_file`, `…_FILE`)."""
    metadata = {"doc": doc, "secret": secret, "choices": choices, "minimum": minimum, "maximum": maximum}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def duration(text: str) -> Duration:
    """Return the seconds of a duration such as "500ms", "5s", "10m", "1h30m". Raises ValueError."""
    match = _DURATION.fullmatch(text)
    parts = zip(match.groups(default="0"), _DURATION_UNITS.values(), strict=True) if match else ()
    microseconds = sum(round(float(number) * unit) for number, unit in parts)
    if match is None or microseconds > _LONGEST_DURATION:
        raise ValueError(f'expected a duration such as "500ms", "5s" or "10m", got "{text}"')
    return Duration(microseconds / 1_000_000)


def size(text: str) -> Size:
    """Return the bytes of a size such as "512", "256KiB", "1MiB". Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None or (count := int(match[1]) * _SIZE_UNITS[match[2]]) > _LARGEST_SIZE:
        raise ValueError(f'expected a size such as "256KiB" or "1MiB", got "{text}"')
    return Size(count)


def show_duration(seconds: float) -> str:
    """Write seconds the way the configuration does: 600.0 → "10m", 0.5 → "500ms", 3601.5 → "1h1s500ms"."""
    microseconds = round(seconds * 1_000_000)
    for unit, scale in _DURATION_UNITS.items():
        count, rest = divmod(microseconds, scale)
        if count and not rest and count < 10**_DURATION_DIGITS:
            return f"{count}{unit}"
    parts = []
    for unit, scale in _DURATION_UNITS.items():
        count, microseconds = divmod(microseconds, scale)
        if unit == "ms":
            parts.append(f"{count + microseconds / scale:g}ms" if count or microseconds else "")
        elif count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def show_size(count: int) -> str:
    """Write bytes the way the configuration does: 262144 → "256KiB"."""
    for unit in ("GiB", "MiB", "KiB"):
        scale = _SIZE_UNITS[unit]
        if count and count % scale == 0:
            return f"{count // scale}{unit}"
    return str(count)
