"""What the Go runtime and the standard library's log package write on their own: no level, mostly no time.

Read from runtime/panic.go, runtime/error.go, log/log.go, log/slog/handler.go and net/http/server.go of Go 1.27.
A panic that nobody recovers ends the process, so it is fatal; a data race report and net/http's do not.
"""

from __future__ import annotations

import re

from sidecar import gotext
from sidecar.formats.format import Dialect, Fields, Format

_PANIC = re.compile(r"(?P<kind>panic|fatal error|SIG[A-Z]+|unexpected fault address|runtime): ?(?P<value>.*)", re.ASCII)
_TRACE = re.compile(r"^(?:goroutine \d+ |runtime stack:|\[signal )", re.MULTILINE)


def panic(text: str) -> Fields | None:
    """Read an unrecovered panic, a fatal error or a SIGQUIT dump: its value, and the goroutines as stack."""
    match = _PANIC.match(text)
    if match is None:
        return None
    trace = _TRACE.search(text)
    head = text[: trace.start()].rstrip() if trace else text.rstrip()
    fields: Fields = {"message": head, "error": head.removeprefix("panic: ")}
    if trace:
        fields["stack"] = text[trace.start() :].rstrip()
    elif match["kind"] == "runtime":
        return None
    return fields


_RACE = re.compile(r"={18}\r?\nWARNING: DATA RACE")


def race(text: str) -> Fields | None:
    """Read a report of the race detector."""
    if not _RACE.match(text):
        return None
    return {"message": "WARNING: DATA RACE", "stack": text.strip("=\r\n")}


_STANDARD = re.compile(
    r"(?P<prefix>.{0,32}?)(?P<timestamp>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d{6})?) "
    r"(?:(?P<caller>[^\s:]+\.go:\d+): )?(?P<message>.*)",
    re.ASCII | re.DOTALL,
)
_SLOG_DEFAULT = re.compile(r"(?P<level>(?:DEBUG|INFO|WARN|ERROR)(?:[+-]\d+)?) (?P<message>.*)", re.ASCII | re.DOTALL)
_TOKEN = re.compile(
    r"\[?(?P<level>TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|PANIC)(?:\]|:) ?.*", re.ASCII | re.DOTALL
)
_SERVER_PANIC = "http: panic serving "
_SERVER_WARNINGS = ("http: superfluous response.WriteHeader", "http: TLS handshake error", "http: Accept error")


def standard(text: str) -> Fields | None:
    """Read a line of the log package: optional prefix, local time, optional caller, message."""
    match = _STANDARD.fullmatch(text)
    if match is None:
        return None
    fields: Fields = {name: value for name, value in match.groupdict().items() if value}
    prefix = str(fields.pop("prefix", "")).strip()
    if prefix:
        fields["prefix"] = prefix
    message = match["message"]
    if message.startswith(_SERVER_PANIC):
        head, _, stack = message.partition("\n")
        fields.update(level="error", message=head, error=head.split(": ", 2)[-1], stack=stack.rstrip())
        if not stack:
            del fields["stack"]
        return fields
    if message.startswith(_SERVER_WARNINGS):
        fields["level"] = "warn"
        return fields
    default = _SLOG_DEFAULT.fullmatch(message)
    if default:
        fields["level"] = default["level"]
        fields["message"], attributes = gotext.parted(default["message"])
        for key, value in attributes.items():
            # what clashes is named as logrus names it: an attribute, never the line's own time or level
            fields[f"fields.{key}" if key in fields else key] = value
        return fields
    token = _TOKEN.fullmatch(message)
    if token:
        fields["level"] = token["level"]
    return fields


_GORM = re.compile(
    r"\r?\n?(?P<timestamp>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) (?P<caller>\S+\.go:\d+)(?P<error> .+?)?\r?\n"
    r"\[(?P<elapsed>[0-9.]+ms)\] (?:\[rows:(?P<rows>-|\d+)\] )?(?P<message>.*)",
    re.ASCII | re.DOTALL,
)


def gorm(text: str) -> Fields | None:
    """Read the two lines of GORM's default logger. Its duration is a query's, never a request's."""
    match = _GORM.fullmatch(text.rstrip("\r\n"))
    if match is None:
        return None
    fields: Fields = {name: value.strip() for name, value in match.groupdict().items() if value}
    error = str(fields.pop("error", ""))
    if error.startswith("SLOW SQL"):
        fields.update(level="warn", slow=error)
    elif error:
        fields.update(level="error", error=error)
    return fields


PANIC = Dialect(
    starts=("panic: ", "fatal error: ", "SIG", "unexpected fault address", "runtime: "),
    parse=panic,
    formats=(Format(name="go_panic", level="fatal"),),
)
RACE = Dialect(starts=("==================",), parse=race, formats=(Format(name="go_race", level="error"),))
GORM = Dialect(parse=gorm, formats=(Format(name="gorm"),))
STANDARD = Dialect(parse=standard, formats=(Format(name="stdlog"),))
