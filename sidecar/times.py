"""Times as loggers write them: RFC 3339, epochs of every unit, Go's layouts; read exactly, written in UTC.

Promise: every function is pure, linear in its input, and answers None for what is no time; none raises on data. Times
are integers of nanoseconds since the epoch with the number of fractional digits that the text carried, because floats
lose what zap, slog and Loki keep. Years 0 and 9999 are times like any other.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

SECOND = 1_000_000_000
_DAY = 86_400


class Stamp(NamedTuple):
    """An instant and the precision it was written with."""

    ns: int
    digits: int  # 0–9 fractional digits of a second


def _days(year: int, month: int, day: int) -> int | None:
    """Return days since the epoch in the proleptic Gregorian calendar, year 0 included; None for no such day.

    The algorithm is days_from_civil, http://howardhinnant.github.io/date_algorithms.html
    """
    if not 1 <= month <= 12 or day < 1:
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]:
        return None
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


# Lines of one second share the text of that second: the cache turns its parsing into one look-up.
_seconds: dict[str, int | None] = {}
_SECONDS_KEPT = 4096
_DATE_TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})")


def _date_time_seconds(text: str) -> int | None:
    """Return seconds since the epoch of "2006-01-02T15:04:05" read as UTC; second 60 is refused here."""
    match = _DATE_TIME.fullmatch(text)
    seconds = None
    if match:
        year, month, day, hour, minute, second = map(int, match.groups())
        days = _days(year, month, day)
        if days is not None and hour < 24 and minute < 60 and second < 60:
            seconds = days * _DAY + hour * 3600 + minute * 60 + second
    if len(_seconds) >= _SECONDS_KEPT:
        _seconds.clear()
    _seconds[text] = seconds
    return seconds


_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")


_LONGEST_DATE_TIME = 35  # 2006-01-02T15:04:05.999999999+07:00


def rfc3339(text: str) -> Stamp | None:
    """Read an RFC 3339 date-time with offset and 0–9 fractional digits, strictly; None for anything else.

    https://www.rfc-editor.org/rfc/rfc3339#section-5.6: the calendar is checked, `t` and `z` may be small, and
    second 60 exists only at the end of a UTC day.
    """
    return _rfc3339(text) if len(text) <= _LONGEST_DATE_TIME else None


@lru_cache(maxsize=64)  # a record's time is read once to be taken and once to be judged
def _rfc3339(text: str) -> Stamp | None:
    head = text[:19]
    rest = text[19:]
    seconds = _seconds[head] if head in _seconds else _date_time_seconds(head)
    leap = 0
    if seconds is None:
        if head[17:19] != "60":
            return None
        before = _date_time_seconds(head[:17] + "59")
        if before is None:
            return None
        seconds, leap = before, 1
    if rest[-1:] in ("Z", "z"):
        fraction = rest[:-1]
    else:
        match = _OFFSET.fullmatch(rest[-6:])
        if match is None:
            return None
        fraction = rest[:-6]
        shift = int(match[2]) * 3600 + int(match[3]) * 60
        seconds -= shift if match[1] == "+" else -shift
    if leap:
        seconds += 1
        if seconds % _DAY:
            return None
    if not fraction:
        return Stamp(seconds * SECOND, 0)
    digits = len(fraction) - 1
    # isdecimal alone would let other scripts' digits through
    if fraction[0] != "." or not 1 <= digits <= 9 or not (fraction[1:].isascii() and fraction[1:].isdecimal()):
        return None
    return Stamp(seconds * SECOND + int(fraction[1:]) * 10 ** (9 - digits), digits)


# One for each text: "1", its fraction, "Z,". Possessive, so that it takes 40 ns a text.
_FRACTIONS = re.compile(r"(?:1(?:\.[0-9]{1,9}+)?+Z,)++")


def rfc3339_column(texts: Sequence[str]) -> list[int] | None:
    """Read a batch of RFC 3339 date-times at once; None when any of them is not one. Raises TypeError for no texts.

    Column by column it takes a third of the time of one call per text (`make bench`), and it says the same
    (tests/property/test_gotext.py). All fractions are read as one array of floats between 1 and 2, which tell
    nanoseconds exactly; the digits of a second are looked up.
    """
    ends = [text[19:] for text in texts]
    fractions = "1" + ",1".join(ends) + ","
    if _FRACTIONS.fullmatch(fractions):
        heads = [text[:19] for text in texts]
        found = list(map(_seconds.get, heads))
        if None in found:
            known = {head: _date_time_seconds(head) for head in {*heads}}
            found = [known[head] for head in heads]
        widths = {*map(len, ends)}
        scale, unwanted = SECOND, b"Z"
        if len(widths) == 1:  # as integers: floats take twice the time
            scale, unwanted = 10 ** (9 - max(0, widths.pop() - 2)), b".Z"
        numbers = orjson.loads(b"[" + fractions[:-1].encode().translate(None, unwanted) + b"]")
        if None not in found and len(numbers) == len(texts):
            seconds = cast("list[int]", found)
            if scale < SECOND:
                return [(s - 1) * SECOND + n * scale for s, n in zip(seconds, numbers, strict=True)]
            return [(s - 1) * SECOND + round(n * SECOND) for s, n in zip(seconds, numbers, strict=True)]
    stamps = [rfc3339(text) for text in texts]
    return None if None in stamps else [stamp.ns for stamp in cast("list[Stamp]", stamps)]


_MONTHS = {
    name: n
    for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}
_NAMED = r"(?![AP]M\b)[A-Z]{2,5}"
_ZONE = rf"(?P<zone>[Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?|{_NAMED})?"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?:[.,](?P<fraction>\d{1,12}))?"
_LAYOUTS = tuple(
    re.compile(layout, re.ASCII)
    for layout in (
        # ISO 8601 in its forms, Go's DateTime, Python's comma, gin's and std log's slashes
        (
            r"(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)(?:[Tt ]| - )"
            rf"{_TIME}(?: ?(?P<half>[AaPp][Mm])\b)? ?{_ZONE}(?: {_NAMED})?(?: m=\S+)?"
        ),
        # the same without separators; as an epoch of milliseconds or less it would be after the year 2500
        (
            r"(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)"
            rf"(?:(?:[.,]|(?=(?:\d{{3}}|\d{{6}})(?!\d)))(?P<fraction>\d{{1,12}}))?{_ZONE}"
        ),
        # time.RFC1123, RFC1123Z, RFC822, RFC822Z, RFC850
        rf"(?:[A-Z][a-z]+, )?(?P<day>\d\d)[ -](?P<month>[A-Z][a-z]{{2}})[ -](?P<year>\d{{4}}|\d\d) {_TIME} ?{_ZONE}",
        # time.ANSIC, UnixDate, RubyDate
        rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) +(?P<day>\d\d?) {_TIME} ?{_ZONE} (?P<year>\d{{4}})",
        # Common Log Format, https://httpd.apache.org/docs/current/logs.html#common
        rf"(?P<day>\d\d)/(?P<month>[A-Z][a-z]{{2}})/(?P<year>\d{{4}}):{_TIME} ?{_ZONE}",
    )
)
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?(?P<exponent>[eE][+-]?\d{1,3})?", re.ASCII)
# 2006-01-02 15:04:05 as one number, 20060102150405, with milliseconds, with microseconds
_COMPACT_DIGITS = (14, 17, 20)
_LEAST_COMPACT = 19 * 10**12
_LONGEST_TIME = 80


def timestamp(value: object, zone: tzinfo = UTC) -> Stamp | None:
    """Read a time as loggers write it: epoch numbers of any unit, ISO with any offset, Go's layouts.

    `zone` is for times that carry none. Epoch units are told by magnitude: < 1e11 s, < 1e14 ms, < 1e17 µs, else ns.
    """
    if isinstance(value, str):
        if len(value) > _LONGEST_TIME:
            return None
        return rfc3339(value) or _layout(value.strip(), zone)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value >= _LEAST_COMPACT:
        written = repr(value)
        if written[:2] in ("19", "20") and len(written.partition(".")[0]) in _COMPACT_DIGITS:
            return _layout(written, zone)
    return _epoch(value)


def canonical(value: object, zone: tzinfo = UTC) -> tuple[Stamp, str] | None:
    """Read a time as `timestamp` does, and write it as `format_time` does: mostly it is written so already.

    An RFC 3339 time whose year in UTC has no four digits stays as it is written; in another layout it is no time.
    """
    if isinstance(value, str):
        stamp = rfc3339(value)
        if stamp is not None:
            written_so = value[-1] == "Z" and value[10] == "T" and value[17:19] != "60"
            return stamp, value if written_so or not _in_calendar(stamp) else format_time(stamp)
    stamp = timestamp(value, zone)
    return (stamp, format_time(stamp)) if stamp is not None and _in_calendar(stamp) else None


def _epoch(value: float) -> Stamp | None:
    # repr gives back the digits that were written; the float itself is off by up to 100 ns
    return _epoch_digits(repr(value).removesuffix(".0")) or _large_epoch(value)


def _epoch_digits(text: str) -> Stamp | None:
    """Read the digits of an epoch number as they are written: a float holds 16 of them, nanoseconds have 19."""
    whole, point, fraction = text.partition(".")
    negative = whole.startswith("-")
    if negative:
        whole = whole[1:]
    if not whole.isdecimal() or len(whole) > 20 or (point and not fraction.isdecimal()):
        return None  # an exponent, infinity, not a number
    width = len(whole.lstrip("0"))
    power = 9 if width <= 11 else 6 if width <= 14 else 3 if width <= 17 else 0
    fraction = fraction[:power]
    nanoseconds = int(whole + fraction) * 10 ** (power - len(fraction))
    if not nanoseconds:
        return None
    return Stamp(-nanoseconds if negative else nanoseconds, min(9, 9 - power + len(fraction)))


def _large_epoch(value: float) -> Stamp | None:
    """Read a float that Python writes with an exponent: from 1e16 on, nanoseconds in all but name."""
    if not 1e16 <= abs(value) < 1e20:
        return None
    return _epoch(int(value))


@lru_cache(maxsize=64)  # gin's text tells seconds: many lines share one
def _layout(text: str, zone: tzinfo) -> Stamp | None:
    for layout in _LAYOUTS:
        match = layout.fullmatch(text)
        if match:
            return _civil(match, zone)
    number = _NUMBER.fullmatch(text)
    if number is None:
        return None
    return _epoch(float(text)) if number["exponent"] else _epoch_digits(text)


def _civil(match: re.Match[str], zone: tzinfo) -> Stamp | None:
    part = match.groupdict()
    month = part["month"]
    month = int(month) if month.isdecimal() else _MONTHS.get(month.lower(), 0)
    year = int(part["year"])
    if len(part["year"]) == 2:
        year += 2000 if year < 69 else 1900
    hour, minute, second = int(part["hour"]), int(part["minute"]), int(part["second"] or 0)
    days = _days(year, month, int(part["day"]))
    if days is None or hour > 23 or minute > 59 or second > 60:
        return None
    half = part.get("half")
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half[0] in "Pp" else 0)
    seconds = days * _DAY + hour * 3600 + minute * 60 + second
    name = part["zone"]
    if not name or (name[0] not in "Zz+-" and name not in ("UTC", "GMT")):
        # An abbreviation such as CEST names no zone uniquely: the configured one is the better guess.
        shift = _zone_shift(seconds, zone)
    elif name[0] in "+-":
        digits = name[1:].replace(":", "").ljust(4, "0")
        shift = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        shift = -shift if name[0] == "-" else shift
    else:
        shift = 0
    fraction = (part["fraction"] or "")[:9]
    nanoseconds = int(fraction) * 10 ** (9 - len(fraction)) if fraction else 0
    return Stamp((seconds - shift) * SECOND + nanoseconds, len(fraction))


def _zone_shift(local_seconds: int, zone: tzinfo) -> int:
    if zone is UTC:
        return 0
    try:
        local = datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=local_seconds)
        shift = local.utcoffset()
    except OverflowError:
        return 0
    return int(shift.total_seconds()) if shift else 0


def format_time(stamp: Stamp) -> str:
    """Write a stamp as RFC 3339 in UTC with `Z`, with as many fractional digits as it came with.

    Years outside 0–9999 cannot be written so; they come out at the nearest end.
    """
    seconds, nanoseconds = divmod(stamp.ns, SECOND)
    text = _written.get(seconds)
    if text is None:
        if len(_written) >= _SECONDS_KEPT:
            _written.clear()
        text = _written[seconds] = _second(seconds)
    digits = stamp.digits
    if not digits:
        return text + "Z"
    return f"{text}.{nanoseconds // 10 ** (9 - digits):0{digits}d}Z"


_written: dict[int, str] = {}


def _in_calendar(stamp: Stamp) -> bool:
    return _YEAR_0 <= stamp.ns // SECOND < _YEAR_10000


def _second(seconds: int) -> str:
    seconds = min(max(seconds, _YEAR_0), _YEAR_10000 - 1)
    days, rest = divmod(seconds, _DAY)
    return f"{_date(days)}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


_YEAR_0 = -62_167_219_200
_YEAR_10000 = 253_402_300_800


def _date(days: int) -> str:
    """Return the date of a day since the epoch: civil_from_days, the inverse of `_days`."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    day = of_year - (153 * shifted + 2) // 5 + 1
    return f"{year_of_era + era * 400 + (month <= 2):04d}-{month:02d}-{day:02d}"
