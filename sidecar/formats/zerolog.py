"""rs/zerolog and gin-contrib/logger: JSON with durations as float milliseconds, and the console writer's text.

gin-contrib/logger writes console text on stderr by default, fields sorted by name, the message unquoted; with
errors its fields land on the last physical line. Read from zerolog's console.go and gin-contrib/logger v1.2.7.
"""

from __future__ import annotations

import re

from sidecar import gotext
from sidecar.formats.format import Dialect, Fields, Format, anyhow, both, has, lacks
from sidecar.units import Unit

_CONSOLE = re.compile(
    r"(?P<time>\S+) (?P<level>TRC|DBG|INF|WRN|ERR|FTL|PNC|\?\?\?)(?: (?P<caller>\S+:\d+) >)?(?: (?P<rest>.*))?",
    re.ASCII | re.DOTALL,
)


def console(text: str) -> Fields | None:
    """Read a console line. The message is not quoted, so the fields are the longest tail that reads as fields."""
    match = _CONSOLE.fullmatch(text.rstrip("\r\n"))
    if match is None:
        return None
    fields: Fields = {"time": match["time"], "level": match["level"]}
    if match["level"] == "???":
        del fields["level"]
    if match["caller"]:
        fields["caller"] = match["caller"]
    message, pairs = gotext.parted(match["rest"] or "")
    if message:
        fields["message"] = message.rstrip("\r\n")
    for key, value in pairs.items():
        fields.setdefault(key, value)
    return fields


_LOGGER = has("status", "method", "path", "ip", "latency", "user_agent", "body_size")

GIN_LOGGER = Format(
    name="gin_logger",
    when=both(_LOGGER, lacks("msg", "route")),
    aliases={"request_id": ("id",)},
    integer=Unit.MS,
    floating=Unit.MS,
    access=True,
    precision=3,
)
ZEROLOG = Format(
    name="zerolog",
    when=both(has("level", "time", "message"), lacks("msg", "service_name")),
    integer=Unit.MS,
    floating=Unit.MS,
    precision=3,
)

CONSOLE = Dialect(
    parse=console,
    formats=(
        Format(
            name="gin_logger_console",
            when=has("status", "method", "path", "latency"),
            integer=Unit.MS,
            floating=Unit.MS,
            access=True,
            precision=3,
        ),
        Format(name="zerolog_console", when=anyhow, integer=Unit.MS, floating=Unit.MS, precision=3),
    ),
)
