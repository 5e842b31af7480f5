r"""What annotation values and settings may look like: patterns that mean the same in Python and in CEL (RE2).

Problem: the webhook, the offline command and the admission policy must accept the same values, and what they accept
must never make the sidecar refuse its configuration or the API server refuse the pod.
Promise: no lookaround, no back-reference, no `\d` or `\s` whose meaning differs; whole values are matched.
"""

from __future__ import annotations

import re

from sidecar.loki import streams

_PORT = (
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|[1-5][0-9][0-9][0-9][0-9]"
    "|[1-9][0-9]?[0-9]?[0-9]?)"
)
_H = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        f"({_H}:){{7}}{_H}",
        f"({_H}:){{1,7}}:",
        *(f"({_H}:){{1,{left}}}(:{_H}){{1,{7 - left}}}" for left in range(6, 0, -1)),
        f":((:{_H}){{1,7}}|:)",
    ]
)
LABEL = "[a-zA-Z_][a-zA-Z0-9_]*"
LABEL_VALUE = "[A-Za-z0-9_./:@+-]+"
_DIRECTORY = "/[A-Za-z0-9._@%+~-]+"

# Directories that an image is made of: a volume there hides programs, settings, or what the runtime mounts itself.
OCCUPIED = (
    "(/(bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|sbin|sys|run/secrets|var/run/secrets)"
    "|/usr/(local/)?(bin|sbin|lib|lib32|lib64|libexec|share|include|go))(/.*)?"
    "|/(home|media|mnt|opt|root|run|srv|usr|usr/local|usr/src|var|var/cache|var/lib|var/run)?"
)
NO_LOG_PATH = rf"/\.\.?(/|$)|^({OCCUPIED})/[^/]*$"  # searched for: what LOG_PATH admits and may not be one
DNS_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
OBJECT_NAME = "[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
LOG_PATH = f"({_DIRECTORY})+{_DIRECTORY}"
# Not blank: Python's idea of white space, which the sidecar asks, spelled out for RE2.
_BLANK = r"\x00-\x20\x7f-\xa0" + "\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SERVICE_NAME = rf"[^{_BLANK}]([^\x00-\x1f\x7f]{{0,126}}[^{_BLANK}])?"
CPU = r"[1-9][0-9]{0,5}m|[1-9][0-9]{0,2}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])"
LOKI_LABELS = f"({LABEL}={LABEL_VALUE}(,{LABEL}={LABEL_VALUE})*)?"
LOKI_LABELS_COUNT = streams.ROOM
LOKI_LABEL_SIZE = 1024  # of name and value together: Loki takes names as long
RESERVED_LABELS = streams.RESERVED
URL = rf"https?://([A-Za-z0-9._-]+|\[({_IPV6})\])(:{_PORT})?(/[!-~]*)?"
VERSION = r"v?1\.[0-9]{1,3}(\.[0-9]{1,3})?([-+][0-9A-Za-z.+-]*)?"

_UNITS: dict[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(("k", "M", "G", "T"), start=1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), start=1)},
}


def _at_least(number: int, digits: int) -> str:
    """Return the pattern of a whole number that is no less, of at most so many digits."""
    text = str(number)
    parts = [text]
    for place, digit in enumerate(text):
        if digit != "9":
            larger = "9" if digit == "8" else f"[{int(digit) + 1}-9]"
            rest = len(text) - place - 1
            parts.append(f"{text[:place]}{larger}" + (f"[0-9]{{{rest}}}" if rest else ""))
    if digits > len(text):
        parts.append(f"[1-9][0-9]{{{len(text)},{digits - 1}}}")
    return f"({'|'.join(parts)})"


def memory(least: int) -> str:
    """Return the pattern of an amount of memory or storage of at least so many bytes, a power of two from 1 MiB on."""
    by_unit: dict[str, list[str]] = {}
    for unit, scale in _UNITS.items():
        by_unit.setdefault(_at_least(-(-least // scale), 16 if not unit else 10), []).append(unit)
    parts = [rf"{number}(\.[0-9]{{1,3}})?({'|'.join(units)})" for number, units in by_unit.items()]
    return "|".join([*parts, r"0\.[1-9][0-9]{0,2}(G|T|Gi|Ti)"])  # a tenth of the large units is enough for anybody


MEMORY_REQUEST = 16 << 20
MEMORY_LIMIT = 64 << 20  # less would be exceeded at once, again and again: what runs takes some 40 MiB
STORAGE = 1 << 20


def matches(pattern: str, text: str) -> bool:
    """Say whether the whole text is of this form."""
    return re.fullmatch(pattern, text) is not None


def amount(text: str) -> int:
    """Return the bytes that an amount such as "64Mi" stands for. It must match `memory`."""
    number = text.rstrip("kMGTKi")
    whole, _, decimals = number.partition(".")
    return int(whole + decimals.ljust(3, "0")) * _UNITS[text[len(number) :]] // 1000


def log_path_flaw(text: str) -> str:
    """Return why this is not the path of a log: absolute, in a directory, without `.` and `..`."""
    fits = matches(LOG_PATH, text) and not {".", ".."} & set(text.split("/"))
    return "" if fits else "expected the absolute path of a file in a directory of its own"


def loki_labels_flaw(text: str) -> str:
    """Return why these are no labels `a=b,c=d` that the sidecar takes: few and short, each once, none reserved."""
    pairs = text.split(",") if text else []
    if len(pairs) > LOKI_LABELS_COUNT:
        return f"{len(pairs)} labels; expected {LOKI_LABELS_COUNT} at most"
    seen = set()
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not matches(LABEL, name) or name.startswith("__"):
            return f'"{name}" is no label name; expected labels such as a=b,c=d'
        if name in RESERVED_LABELS:
            return f'"{name}" is set by the sidecar itself; use another name'
        if name in seen:
            return f'"{name}" stands here twice'
        if not matches(LABEL_VALUE, value):
            return f'the value of "{name}" may have letters, digits and _./:@+-'
        if len(pair) > LOKI_LABEL_SIZE:
            return f'"{name}" is too long; expected {LOKI_LABEL_SIZE} characters at most'
        seen.add(name)
    return ""
