"""Amounts as people read them: counts, shares, time spans, sizes.

Promise: never more precise than a person needs, and never rounded to a lie: only none is 0 %, only all is 100 %.
"""

from __future__ import annotations

import math

_THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"


def count(number: float) -> str:
    """Write a whole number in groups of three."""
    return f"{number:,.0f}".replace(",", _THIN_SPACE)


def share(part: int, whole: int) -> str:
    """Write a part of a whole in percent."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return f"<{_THIN_SPACE}0.1{_THIN_SPACE}%"
    if 99.9 < percent < 100:
        return f">{_THIN_SPACE}99.9{_THIN_SPACE}%"
    return f"{percent:.1f}".removesuffix(".0") + f"{_THIN_SPACE}%"


def milliseconds(value: float) -> str:
    """Write a duration; NaN is one that nobody knows."""
    if math.isnan(value):
        return "–"
    if value >= 10_000:
        return span(value / 1000)
    number, unit = (value, "ms") if value >= 1 or value == 0 else (value * 1000, "µs")
    return f"{number:,.{0 if number >= 100 else 1}f}".replace(",", _THIN_SPACE) + f"{_THIN_SPACE}{unit}"


def span(seconds: float) -> str:
    """Write a time span with its two largest units."""
    whole = max(0, round(seconds))
    for unit, scale, small, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= scale:
            count, rest = divmod(whole, scale)
            less = f" {rest // part}{_THIN_SPACE}{small}" if rest // part else ""
            return f"{count}{_THIN_SPACE}{unit}{less}"
    return f"{whole}{_THIN_SPACE}s"


def size(bytes_: float) -> str:
    """Write a number of bytes."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if bytes_ < 1024:
            break
        bytes_, unit = bytes_ / 1024, larger
    return f"{bytes_:.{0 if bytes_ >= 100 else 1}f}".removesuffix(".0") + f"{_THIN_SPACE}{unit}"
