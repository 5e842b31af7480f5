"""Go's textual forms, read exactly: durations, quoted strings, logfmt, level names.

Promise: every function is pure, linear in its input, and answers None for what it does not understand; none raises on
data.
"""

from __future__ import annotations

import re

SECOND = 1_000_000_000

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def strip_ansi(text: str) -> str:
    """Remove terminal colours; most text has none and comes back as it is."""
    return _ANSI.sub("", text) if "\x1b" in text else text


# durations: time.Duration.String(), https://pkg.go.dev/time#Duration.String

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_DURATION_NS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_LONGEST_DURATION = 64  # no Duration prints longer than 27 characters; longer text is not one


def duration_ns(text: str) -> int | None:
    """Return the exact nanoseconds of a Go duration ("1h2m0s", "83.75µs", "-5µs", "0s"), or None."""
    text = text.strip()
    if len(text) > _LONGEST_DURATION:
        return None
    negative = text.startswith("-")
    text = text.lstrip("+-")
    if text == "0":
        return 0
    position = total = 0
    for match in _DURATION.finditer(text):
        if match.start() != position:
            return None
        position = match.end()
        whole, _, fraction = match[1].partition(".")
        unit = _DURATION_NS[match[2]]
        total += int(whole or 0) * unit
        if fraction:
            total += int(fraction) * unit // 10 ** len(fraction)
    if position == 0 or position != len(text):
        return None
    return -total if negative else total


# quoted strings: strconv.Quote, https://pkg.go.dev/strconv#Quote

_UNESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34, "'": 39}


def unquote(text: str) -> str:
    r"""Undo strconv.Quote. Text that is not quoted comes back as it is; `\xNN` is a byte, not a code point."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    if "\\" not in inner:
        return inner
    out = bytearray()
    position = 0
    for match in _UNESCAPE.finditer(inner):
        out += inner[position : match.start()].encode("utf-8", "replace")
        position = match.end()
        byte, short, long, letter = match.groups()
        if byte:
            out.append(int(byte, 16))
        elif short or long:
            point = int(short or long, 16)
            out += chr(point).encode("utf-8", "replace") if point <= 0x10FFFF else b"?"
        elif letter in _ESCAPES:
            out.append(_ESCAPES[letter])
        else:
            out += match[0].encode("utf-8", "replace")
    out += inner[position:].encode("utf-8", "replace")
    return out.decode("utf-8", "replace")


# logfmt: slog.TextHandler, logrus.TextFormatter, zerolog.ConsoleWriter's fields

_PAIR = re.compile(r'([^\s="]+)=("(?:\\.|[^"\\])*"|[^\s"]\S*|)(?=\s|$)')


def logfmt(text: str, start: int = 0) -> dict[str, object] | None:
    """Return the pairs of a logfmt text from `start`, or None when something else stands between them.

    The first of a repeated key wins: slog and logrus write their own `time` and `level` before the user's.
    """
    pairs: dict[str, object] = {}
    position = start
    for match in _PAIR.finditer(text, start):
        if text[position : match.start()].strip():
            return None
        position = match.end()
        key, value = match.groups()
        if key not in pairs:
            pairs[key] = unquote(value)
    if text[position:].strip() or not pairs:
        return None
    return pairs


_FIRST_PAIR = re.compile(r'(?:^|\s)(?=[^\s="]+=(?:"(?:\\.|[^"\\])*"|[^\s"]\S*|)(?:\s|$))')
_MOST_STARTS = 32  # a message full of `=` is a message


def parted(text: str) -> tuple[str, dict[str, object]]:
    """Part an unquoted message from the pairs behind it: the longest tail that reads as pairs."""
    for number, start in enumerate(_FIRST_PAIR.finditer(text)):
        pairs = logfmt(text, start.end())
        if pairs is not None:
            return text[: start.start()], pairs
        if number >= _MOST_STARTS:
            break
    return text, {}


# levels

_LEVEL_NAMES = {
    "trace": "trace TRC TRAC FINEST FINER V VERBOSE",
    "debug": "debug DBG DEBU D FINE",
    "info": "info INF I NOTICE INFORMATION INFORMATIONAL DEFAULT",
    "warn": "warn WRN WARNING W",
    "error": "error ERR ERRO E DPANIC",
    "fatal": "fatal FTL FATA F PANIC PNC PANI CRITICAL CRIT ALERT EMERGENCY EMERG",
}
_LEVELS = {name.upper(): level for level, names in _LEVEL_NAMES.items() for name in names.split()}
_OFFSET_LEVEL = re.compile(r"(DEBUG|INFO|WARN|ERROR)([+-]\d{1,4})", re.ASCII)
_ZAP_LEVEL = re.compile(r"LEVEL\((-?\d{1,4})\)", re.ASCII)
_SLOG_BASE = {"DEBUG": -4, "INFO": 0, "WARN": 4, "ERROR": 8}
# Bare numbers: slog's and pino's never meet; zap's 4 (panic) gives way to slog's (warn), which is far more common.
_LEVEL_NUMBERS = {
    -8: "trace", -4: "debug", -1: "debug", 0: "info", 1: "warn", 2: "error", 3: "error", 4: "warn", 5: "fatal",
    8: "error", 10: "trace", 12: "fatal", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal",
}  # fmt: skip
_levels: dict[str, str | None] = {}


def level(value: object) -> str | None:
    """Return trace, debug, info, warn, error or fatal for a logger's level, or None when it is not one."""
    if isinstance(value, str):
        if value not in _levels:
            if len(_levels) >= 256:
                _levels.clear()
            _levels[value] = _level(value)
        return _levels[value]
    if isinstance(value, int) and not isinstance(value, bool):
        return _LEVEL_NUMBERS.get(value)
    return None


def _level(text: str) -> str | None:
    name = strip_ansi(text[:64]).strip().strip("[]").upper()
    if name in _LEVELS:
        return _LEVELS[name]
    match = _OFFSET_LEVEL.fullmatch(name)
    if match:
        return _slog_level(_SLOG_BASE[match[1]] + int(match[2]))
    match = _ZAP_LEVEL.fullmatch(name)
    if match:
        # logr's verbosity arrives at zap as negative levels: kyverno/kyverno#5641
        number = int(match[1])
        return "trace" if number < -1 else _LEVEL_NUMBERS.get(number, "fatal" if number > 5 else "info")
    return None


def _slog_level(number: int) -> str:
    """Map a slog level to ours: each name covers the numbers from it up to the next one."""
    if number <= -8:
        return "trace"
    if number < 0:
        return "debug"
    if number < 4:
        return "info"
    if number < 8:
        return "warn"
    return "error" if number < 12 else "fatal"


def severity(number: object) -> str | None:
    """Map OpenTelemetry's SeverityNumber 1–24, https://opentelemetry.io/docs/specs/otel/logs/data-model/."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 24:
        return None
    return ("trace", "debug", "info", "warn", "error", "fatal")[(number - 1) // 4]
