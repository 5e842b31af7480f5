"""sirupsen/logrus and toorop/gin-logrus: JSON with sorted keys and `warning`, logfmt text, the terminal's text.

gin-logrus writes latency in whole milliseconds, rounded up. Clashing user fields arrive as `fields.time`,
`fields.level`, `fields.msg` and are attributes, never canonical. Read from logrus's json_formatter.go,
text_formatter.go and gin-logrus's logger.go.
"""

from __future__ import annotations

import re

from sidecar import gotext
from sidecar.formats.format import Dialect, Fields, Format, anyhow, has
from sidecar.units import Unit

_TERMINAL = re.compile(
    r"(?P<level>TRAC|DEBU|INFO|WARN|ERRO|FATA|PANI)\[(?P<since>[^\]]+)\] ?(?P<rest>.*)", re.ASCII | re.DOTALL
)


def terminal(text: str) -> Fields | None:
    """Read terminal text: the message is padded to 44 columns, then fields; `[0042]` counts seconds since the start."""
    match = _TERMINAL.fullmatch(text.rstrip("\r\n"))
    if match is None:
        return None
    fields: Fields = {"level": match["level"]}
    if not match["since"].isdecimal():
        fields["time"] = match["since"]
    rest = match["rest"]
    # Two blanks at least stand between the padded message and its fields.
    cut = len(rest)
    while (cut := rest.rfind("  ", 0, cut)) >= 0:
        pairs = gotext.logfmt(rest, cut + 2)
        if pairs is not None:
            fields["msg"] = rest[:cut].rstrip()
            for key, value in pairs.items():
                fields.setdefault(key, value)
            return fields
    fields["msg"] = rest.rstrip()
    return fields


_GIN_LOGRUS = has("clientIP", "dataLength", "statusCode", "latency")

GIN_LOGRUS = Format(
    name="gin_logrus",
    when=_GIN_LOGRUS,
    integer=Unit.MS,
    access=True,
    precision=2,
)
LOGRUS = Format(
    name="logrus",
    # slog writes the same three keys, time first; logrus sorts them
    when=lambda keys: keys >= {"level", "time", "msg"} and keys.first != "time",
    integer=Unit.NS,
    precision=3,
)
GIN_LOGRUS_TEXT = Format(
    name="gin_logrus_text", when=_GIN_LOGRUS, integer=Unit.MS, floating=Unit.MS, access=True, precision=2
)

TERMINAL = Dialect(
    parse=terminal,
    formats=(GIN_LOGRUS_TEXT, Format(name="logrus_text", when=anyhow, precision=3)),
)
