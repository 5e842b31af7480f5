"""log/slog, gin-contrib/slog and samber/slog-gin: JSON with nested groups, and logfmt text.

The JSON handler writes a time.Duration as integer nanoseconds, the text handler as Go prints it. slog-gin nests
`request{}` and `response{}`, one level deeper in a group; before v1.8 it was flat. Read from log/slog's handlers,
gin-contrib/slog v1.2.1 and slog-gin v1.21.1.
"""

from __future__ import annotations

from sidecar import gotext
from sidecar.formats.format import Dialect, Fields, Format, Keys, anyhow, has
from sidecar.formats.logrus import GIN_LOGRUS_TEXT
from sidecar.units import Unit


def text(line: str) -> Fields | None:
    """Read a logfmt line that starts with a time or a level, as slog's and logrus' text handlers write it."""
    return gotext.logfmt(line.rstrip("\r\n"))


def _slog_gin(keys: Keys) -> bool:
    return any(key.endswith("responselatency") for key in keys) and any(key.endswith("requestmethod") for key in keys)


_GIN_SLOG = has("msg", "status", "method", "path", "route", "ip", "latency", "body_size")

SLOG_GIN = Format(
    name="slog_gin",
    when=_slog_gin,
    aliases={"timestamp": ("time",), "request_id": ("id",)},
    integer=Unit.NS,
    floating=Unit.MS,
    access=True,
    precision=4,
)
GIN_SLOG = Format(
    name="gin_slog",
    when=_GIN_SLOG,
    integer=Unit.NS,
    access=True,
    precision=4,
)
SLOG = Format(
    name="slog",
    when=has("level", "time", "msg"),
    integer=Unit.NS,
    precision=3,
)

TEXT = Dialect(
    starts=("time=", "ts=", "t=", "level=", "lvl="),
    parse=text,
    formats=(
        Format(
            name="slog_gin_text",
            when=_slog_gin,
            aliases={"timestamp": ("time",), "request_id": ("id",)},
            integer=Unit.NS,
            access=True,
            precision=4,
        ),
        Format(name="gin_slog_text", when=_GIN_SLOG, integer=Unit.NS, access=True, precision=4),
        GIN_LOGRUS_TEXT,
        Format(name="logfmt", when=anyhow, precision=3),
    ),
)
