"""go.uber.org/zap and gin-contrib/zap: JSON and console, production and development.

The production encoder writes epoch and durations as float seconds; an integral value prints as an integer, so an
integer latency of ginzap is milliseconds or nanoseconds, never seconds. Read from zap's config.go, encoder.go and
ginzap's zap.go v1.1.7.
"""

from __future__ import annotations

import re

from sidecar import jsontext
from sidecar.formats.format import Dialect, Fields, Format, anyhow, both, has, lacks
from sidecar.units import Unit

_CONSOLE = re.compile(
    r"(?P<ts>\d{4}-\d\d-\d\dT\S+|\d\.\d+[eE]\+\d\d|\d{9,19}(?:\.\d+)?)\t(?P<level>[A-Za-z]+(?:\(-?\d+\))?)\t(?P<rest>.*)",
    re.ASCII | re.DOTALL,
)
_CALLER = re.compile(r"\S+\.go:\d+", re.ASCII)


def console(text: str) -> Fields | None:
    """Read a console line: tab-separated time, level, logger, caller, message, JSON; then a stack."""
    match = _CONSOLE.fullmatch(text)
    if match is None:
        return None
    fields: Fields = {"ts": match["ts"], "level": match["level"]}
    rest, _, stack = match["rest"].partition("\n")
    head, tab, tail = rest.rstrip("\r").rpartition("\t")
    context: Fields = {}
    if (tab or not head) and tail.startswith("{") and tail.endswith("}"):
        found = jsontext.parse_as_written(tail.encode())
        if found is not None:
            context, rest = found, head
    parts = rest.rstrip("\r").split("\t")
    # logger and caller are optional, and a message may contain tabs: only the caller can be told by its looks
    if len(parts) > 1 and _CALLER.fullmatch(parts[0]):
        fields["caller"] = parts.pop(0)
    elif len(parts) > 2 and _CALLER.fullmatch(parts[1]):
        fields["logger"] = parts.pop(0)
        fields["caller"] = parts.pop(0)
    fields["msg"] = "\t".join(parts)
    for key, value in context.items():
        fields.setdefault(key, value)
    if stack:
        fields["stacktrace"] = stack.rstrip("\r\n")
    return fields


_GINZAP = has("status", "method", "path", "query", "ip", "user-agent", "latency")

GINZAP = Format(
    name="ginzap",
    when=lambda keys: _GINZAP(keys) and keys.first != "time",
    aliases={"timestamp": ("ts",)},
    integer=Unit.STICKY,
    floating=Unit.S,
    access=True,
    precision=3,
    repeats_errors=True,
)
ZAP = Format(
    name="zap",
    when=lambda keys: keys >= {"level", "ts", "msg"} or keys >= {"l", "t", "m"} or keys >= {"level", "ts", "caller"},
    aliases={"timestamp": ("ts",)},
    integer=Unit.STICKY,
    floating=Unit.S,
    precision=3,
)
# zap.NewExample and hand-made encoders without a time; told by what only zap writes
ZAP_BARE = Format(
    name="zap",
    when=both(has("level", "caller", "msg"), lacks("time", "file")),
    integer=Unit.STICKY,
    floating=Unit.S,
    precision=3,
)

CONSOLE = Dialect(
    parse=console,
    formats=(
        Format(
            name="ginzap_console",
            when=_GINZAP,
            aliases={"timestamp": ("ts",)},
            integer=Unit.STICKY,
            floating=Unit.S,
            access=True,
            precision=3,
            repeats_errors=True,
        ),
        Format(
            name="zap_console",
            when=anyhow,
            aliases={"timestamp": ("ts",)},
            integer=Unit.STICKY,
            floating=Unit.S,
            precision=3,
        ),
    ),
)
