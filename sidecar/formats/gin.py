"""What Gin itself writes: access text, debug lines, Recovery blocks, and what LoggerWithFormatter users write.

Formats read from gin's source, v1.3 to v1.12: logger.go, debug.go, recovery.go
(https://github.com/gin-gonic/gin). Never parsed by column offset: IPv6 addresses and long methods overflow.
"""

from __future__ import annotations

import re

from sidecar import gotext
from sidecar.formats.format import Dialect, Fields, Format, anyhow, both, has, lacks
from sidecar.units import Unit

_ACCESS = re.compile(
    r"\[GIN\] (?P<timestamp>\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d) \| *(?P<status>\d{3,4}) \| *"
    r"(?P<latency>-?[0-9.]+[a-z\u00b5\u03bc0-9.]*) \| *(?P<client_ip>[^| ]*) \| *(?P<method>\S+) +(?P<path>.*)",
    re.ASCII,
)


def access(text: str) -> Fields | None:
    """Read an access line of gin.Logger, with its `Error #NN` block when it has one."""
    head, _, errors = text.partition("\n")
    match = _ACCESS.fullmatch(head.rstrip("\r"))
    if match is None:
        return None
    fields: Fields = dict(match.groupdict(), message=head.rstrip("\r"))
    fields["path"] = gotext.unquote(match["path"])
    if errors:
        fields["error"] = errors.rstrip("\r\n")
    return fields


_DEBUG = re.compile(r"\[GIN-debug\] (?:\[(?P<level>WARNING|ERROR)\] )?(?P<rest>.*)", re.DOTALL)
_ROUTE = re.compile(
    r"(?P<method>[A-Z]+) +(?P<route>\S+) +--> (?P<handler>\S+) \((?P<handlers>\d+) handlers\)", re.ASCII
)


def debug(text: str) -> Fields | None:
    """Read a [GIN-debug] line; a route registration names its method and route but is no request."""
    match = _DEBUG.fullmatch(text.rstrip("\r\n"))
    if match is None:
        return None
    fields: Fields = {"message": match[0]}
    if match["level"]:
        fields["level"] = match["level"]
    route = _ROUTE.fullmatch(match["rest"])
    if route:
        fields.update(method=route["method"], route=route["route"], handler=route["handler"])
    return fields


_RECOVERY = re.compile(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? "
    r"(?:\[Recovery\] (?P<time>\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d) panic recovered:\r?\n)?",
    re.ASCII,
)
_REQUEST_LINE = re.compile(r"(?P<method>[A-Z-]{3,20}) (?P<path>\S.*?) HTTP/\d(?:\.\d)?", re.ASCII)
_FRAME = re.compile(r"\S+:\d+ \(0x[0-9a-f]+\)", re.ASCII)


def recovery(text: str) -> Fields | None:
    """Read a gin.Recovery block: panic with or without request dump and stack, or a broken pipe (which has neither)."""
    match = _RECOVERY.match(text)
    if match is None or "\n" not in text:
        return None
    lines = [line.rstrip("\r") for line in text[match.end() :].rstrip().split("\n")]
    fields: Fields = {"timestamp": text[:19]}
    broken_pipe = not match["time"]
    if broken_pipe:
        fields["level"] = "warn"
        fields["message"] = lines[0]
        lines = lines[1:]
    request = _REQUEST_LINE.fullmatch(lines[0]) if lines else None
    if request:
        fields["method"] = request["method"]
        fields["path"] = request["path"]
        end = next((index for index, line in enumerate(lines) if not line), len(lines))
        fields["request"] = "\n".join(lines[:end])
        lines = lines[end:]
        while lines and not lines[0]:
            lines = lines[1:]
    if broken_pipe:
        return fields if request else None
    stack = next((index for index, line in enumerate(lines) if _FRAME.fullmatch(line)), len(lines))
    fields["message"] = "\n".join(lines[:stack]) or "panic recovered"
    fields["error"] = fields["message"]
    if stack < len(lines):
        fields["stack"] = "\n".join(lines[stack:])
    return fields


# LoggerWithFormatter as the documentation shows it; its quotes are unbalanced by design.
_COMBINED = re.compile(
    r'(?P<client_ip>\S*) - \[(?P<timestamp>[^\]]+)\] "(?P<method>\S+) (?P<path>.*?) (?P<protocol>HTTP/\S+) '
    r'(?P<status>\d{3}) (?P<latency>-?[0-9][0-9.a-z\u00b5\u03bc]*) "(?P<user_agent>.*)" (?P<error>.*?)"?',
    re.ASCII | re.DOTALL,
)


def combined(text: str) -> Fields | None:
    """Read the pseudo-combined line of gin's LoggerWithFormatter example."""
    if " - [" not in text[:80]:
        return None
    match = _COMBINED.fullmatch(text.rstrip("\r\n"))
    if match is None:
        return None
    fields: Fields = {name: value for name, value in match.groupdict().items() if name != "error"}
    fields["message"] = match[0].partition("\n")[0]
    error = match["error"].rstrip("\r\n")
    if error:
        fields["error"] = error
    return fields


ACCESS = Dialect(
    starts=("[GIN] ",),
    parse=access,
    formats=(Format(name="gin", access=True, precision=1, integer=Unit.NS),),
)
DEBUG = Dialect(starts=("[GIN-debug] ",), parse=debug, formats=(Format(name="gin_debug", level="debug"),))
RECOVERY = Dialect(parse=recovery, formats=(Format(name="gin_recovery", level="error"),))
COMBINED = Dialect(parse=combined, formats=(Format(name="gin_combined", access=True, precision=2, when=anyhow),))

# The copy-paste family of `jsonLoggerMiddleware`; its start_time is the END of the request.
FORMATTER = Format(
    name="gin_formatter",
    when=has("status_code", "remote_addr", "response_time"),
    aliases={"timestamp": ("start_time",)},
    integer=Unit.MS,
    access=True,
    precision=3,
)
# Any other JSON with a method, a status and a latency: json.Marshal writes a time.Duration as integer nanoseconds.
ACCESS_JSON = Format(
    name="json_access",
    when=both(
        lambda keys: bool(
            keys & {"status", "statuscode"} and keys & {"latency", "latencyms", "durationms", "responsetime"}
        ),
        has("method"),
        lacks("msg", "level"),
    ),
    integer=Unit.NS,
    precision=3,
)
