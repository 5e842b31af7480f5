"""Secrets that must not leave the pod: in fields, query strings, header dumps and `name=value` text.

Promise: the value of a sensitive name becomes "[REDACTED]" wherever the name stands beside it, once and for all
(redacting again changes nothing), in time linear in the text. Cheap when there is nothing to redact: top-level keys
are known from the shape of an object, and a batch of valid lines in whose texts no sensitive word occurs is not looked
at again.
Refused: to guess that a value looks like a secret without a name beside it; `patterns` are for those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sidecar import gotext, jsontext
from sidecar.options import option

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REDACTED = "[REDACTED]"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `normalize.redact`."""

    enabled: bool = option(True, "Hide secrets before a record leaves the pod.")
    keys: list[str] = option(
        [
            "authorization",
            "cookie",
            "set-cookie",
            "password",
            "passwd",
            "passphrase",
            "secret",
            "token",
            "api_key",
            "apikey",
            "access_key",
            "private_key",
            "credentials",
        ],
        "Names whose values are hidden, in fields, query strings, headers and `name=value` text. "
        "A name matches whole or as the last words of a longer one: `token` hides `access_token` and `accessToken`, "
        "not `token_count`; case, `-`, `_` and `.` do not matter.",
    )
    patterns: list[str] = option([], "Regular expressions; what they match in values and messages is hidden.")


_SEPARATORS = re.compile(r"[-_. ]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_DEEPEST = 64
_KEYS_KEPT = 4096

# `Bearer x` and `Basic x` are secrets without a name beside them.
_SCHEME_NAMES = ("bearer", "basic")
_SCHEMES = re.compile(rf"\b({'|'.join(_SCHEME_NAMES)})\s+[A-Za-z0-9._~+/=-]{{8,}}", re.IGNORECASE)
# The password of postgres://user:password@host; redis:// has no user
_USERINFO = re.compile(r"(://[^\s:/@\"']{0,256}:)[^\s/@\"']{1,1024}(?=@)")
# In a text that holds a secret, one of these stands between a name and its value; white space behind a scheme.
_TRIGGERS = ("=", ":", '"')


class Redactor:
    """Knows the sensitive names; pure."""

    def __init__(self, config: Config) -> None:
        self.enabled = config.enabled
        self._patterns = [re.compile(pattern) for pattern in config.patterns]
        names = [_SEPARATORS.sub("_", key.strip().lower()) for key in config.keys if key.strip()]
        self._names = tuple(tuple(name.split("_")) for name in names)
        self._squeezed = tuple(name.replace("_", "") for name in names)
        # the last word of a name stands in every spelling of it
        stems = {name.rsplit("_", 1)[-1].encode() for name in names} | {*map(str.encode, _SCHEME_NAMES), b"://"}
        self._stems = tuple(sorted(s for s in stems if not any(o in s for o in stems if o != s)))
        self._text_stems = tuple(stem.decode() for stem in self._stems)
        self._known: dict[str, bool] = {}
        spelled = "|".join(sorted((name.replace("_", "[-_. ]?") for name in names), key=len, reverse=True))
        self._named = _named(spelled) if names else None

    # is there anything to do?

    def sensitive(self, key: str) -> bool:
        """Say whether a field's value is a secret by its name."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _KEYS_KEPT:
                self._known.clear()
            known = self._known[key] = self._is_sensitive(key)
        return known

    def _is_sensitive(self, key: str) -> bool:
        if not self.enabled:
            return False
        words = [word for word in _SEPARATORS.split(_CAMEL.sub("_", key[:256]).lower()) if word]
        squeezed = words[-1] if words else ""
        return any(tuple(words[-len(name) :]) == name for name in self._names) or squeezed in self._squeezed

    def may_hide_in(self, columns: Iterable[Sequence[object]]) -> bool:
        """Say whether columns of values may hold a secret; the coarsest sieve, over each distinct text once."""
        if not self.enabled:
            return False
        if self._patterns:
            return True
        texts: list[str] = []
        for column in columns:
            try:
                text = "\0".join(cast("Sequence[str]", column))
            except TypeError:  # they are not all texts
                if any(isinstance(value, dict | list) for value in column):
                    return True  # look closer
                text = "\0".join([value for value in column if isinstance(value, str)])
            if any(trigger in text for trigger in _TRIGGERS) or _names_a_scheme(text):
                texts += {*text.split("\0")}
        low = "\0".join(texts).lower()
        return any(stem in low for stem in self._text_stems)

    def suspects(self, line: bytes) -> bool:
        """Say whether a line, or many of them, may hold a secret; the finer sieve."""
        if not self.enabled:
            return False
        if self._patterns or b"\\u00" in line:
            return True
        low = line.lower()
        for stem in self._stems:  # noqa: SIM110  any() takes 2 µs more
            if stem in low:
                return True
        return False

    # doing it

    def text(self, text: str) -> str:
        """Return the text without its secrets; colours do not hide one."""
        bare = gotext.strip_ansi(text)
        clean = bare
        if self._named is not None:
            clean = self._hide_named(clean)
        clean = _SCHEMES.sub(rf"\1 {REDACTED}", clean)
        if "://" in clean:
            clean = _USERINFO.sub(rf"\1{REDACTED}", clean)
        for pattern in self._patterns:
            clean = pattern.sub(_hidden, clean)
        return text if clean == bare else clean

    def _hide_named(self, text: str) -> str:
        # Searching a lowered copy is three times as fast as ignoring case; bytes.lower keeps every length.
        low = text.lower() if text.isascii() else text.encode("utf-8", "replace").lower().decode()
        if self._named is None or len(low) != len(text):
            return text
        pieces: list[str] = []
        position = 0
        for match in self._named.finditer(low):
            pieces += text[position : match.end(_kept(match))], REDACTED
            position = match.end()
        return "".join([*pieces, text[position:]]) if pieces else text

    def value(self, value: object, depth: int = 0) -> object:
        """Return a JSON value without its secrets; the same object where there are none."""
        if isinstance(value, str):
            clean = self.text(value)
            return value if clean == value else clean
        if depth >= _DEEPEST and isinstance(value, dict | list):
            written = jsontext.dumps(value).decode()
            return value if self.text(written) == written else REDACTED
        if isinstance(value, dict):
            changed: dict[str, object] = {}
            for key, inner in value.items():
                clean_inner = self._field(key, inner, depth)
                if clean_inner is not inner:
                    changed[key] = clean_inner
            return {**value, **changed} if changed else value
        if isinstance(value, list):
            items = [self.value(item, depth + 1) for item in value]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        if self._patterns and value is not None and not isinstance(value, bool):
            written = jsontext.dumps(value).decode()  # a number, or one that is kept as it was written
            return REDACTED if any(pattern.search(written) for pattern in self._patterns) else value
        return value

    def _field(self, key: str, value: object, depth: int) -> object:
        if not self.sensitive(key):
            return self.value(value, depth + 1)
        if value is None or value == "" or isinstance(value, bool) or value == REDACTED:
            return value
        return REDACTED


def _names_a_scheme(text: str) -> bool:
    if len(text.split(None, 1)) < 2:  # no white space: found in a hundredth of the time
        return False
    low = text.lower()
    return any(name in low for name in _SCHEME_NAMES)


def _hidden(match: re.Match[str]) -> str:
    """Replace what a pattern matched; what is hidden already, and a match of nothing, stay as they are."""
    start, end = match.span()
    earliest = max(0, end - len(REDACTED))
    return match[0] if match.string.find(REDACTED, earliest, start + len(REDACTED)) >= 0 or start == end else REDACTED


# What stands behind an opening quote: no quote of the same kind unless escaped. An escaped opening quote belongs to a
# text inside a text, where an inner quote has three backslashes.
_QUOTED = (
    r"(?<=[^\\]\")(?:\\.|[^\"\\\r\n])++"
    r"|(?<=[^\\]')(?:\\.|[^'\\\r\n])++"
    r"|(?<=\\\")(?:\\\\(?:\\.|[^\\\r\n])|\\[^\"\\\r\n]|[^\"\\\r\n])++"
    r"|(?<=\\')(?:\\\\(?:\\.|[^\\\r\n])|\\[^'\\\r\n]|[^'\\\r\n])++"
)
# A list or an object: JSON's, Go's `%v` ([a b]) and `%#v` ([]string{"a"}). Quoted texts in it may hold its bracket.
_LISTED = (
    r"(?:\[\]string)?\{(?:\"(?:\\.|[^\"\\\r\n])*+\"?|[^}\"\r\n])*+\}?"
    r"|\[(?!redacted\])(?:\"(?:\\.|[^\"\\\r\n])*+\"?|[^\]\"\r\n])*+\]?"
)


def _named(names: str) -> re.Pattern[str]:
    """Build the expression, over lowered text, for a sensitive name with its value beside it.

    Ways to write it: a header to the end of its line, also inside a text where it has the form of cookies (`a=b`) or of
    a challenge's answer (`Digest a="b"`); a quoted value (the quotes may be escaped), a list, and a bare value up to
    the next separator. No part is tried twice at one place, so the search is linear.
    """
    header = r"(?P<header>(?:^|(?<=[\n\r]))[\w-]{0,32}?(?:authorization|cookie):[ \t]+)(?!\*)[^\r\n]+"
    inside = (
        r"(?P<inside>(?:cookie[=:]\s{0,4}(?=[^\s&;,\"'=\[\]]{1,256}=[^=&])"
        r"|authorization[=:]\s{0,4}(?=[a-z][\w-]{0,64}\s{1,4}[a-z][\w-]{0,64}=[^\s=])))[^\r\n]+"
    )
    beside = r"(?:" + names + r")\\?[\"']?\s{0,4}[=:]\s{0,4}"
    quoted = beside + rf"(?P<quoted>\\?[\"'])(?:{_QUOTED})"
    listed = beside + rf"(?P<listed>)(?:{_LISTED})"
    bare = beside + r"(?P<bare>)(?:(?:bearer|basic|digest)\s{1,4})?(?![*\[])[^\s&;,\"'#|)}\]\\]++"
    return re.compile(f"{header}|{inside}|{quoted}|{listed}|{bare}")


def _kept(match: re.Match[str]) -> str:
    """Name the group up to whose end the text stays."""
    return next(name for name in ("header", "inside", "quoted", "listed", "bare") if match[name] is not None)
