"""The canonical fields, the names that loggers give them, and how their values are read.

Promise: a converter answers the canonical value, or None when the value is not one; it never raises. Names are
compared without case and without `-`, `_`, `.`, `@`, so `traceId`, `trace-id` and `TraceID` are one alias.
Source of the aliases: real Gin services' loggers, T2 of our catalogue; a canonical name always comes first, so
that normalizing a canonical record changes nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar import gotext

if TYPE_CHECKING:
    from collections.abc import Callable

# The order in which a canonical record writes its fields.
ORDER = (
    "timestamp", "level", "service_name", "trace_id", "message", "span_id", "method", "route", "path", "status",
    "duration_ms", "client_ip", "user_agent", "response_bytes", "request_id", "error", "stack",
)  # fmt: skip

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")  # from the least to the gravest

ALIASES: dict[str, tuple[str, ...]] = {
    "timestamp": (
        "timestamp", "ts", "time", "T", "datetime", "date", "eventTime", "ObservedTimestamp", "response.time",
        "start_time",
    ),
    "level": (
        "level", "severity", "log.level", "lvl", "L", "SeverityText", "loglevel", "levelname", "severity_text",
        "severity_number",
    ),
    "service_name": (
        "service_name", "service.name", "service", "dd.service", "app", "app_name", "application",
        "resource.service.name",
    ),
    "trace_id": (
        "trace_id", "otel.trace_id", "dd.trace_id", "logging.googleapis.com/trace", "traceparent", "X-B3-TraceId", "b3",
        "uber-trace-id", "X-Amzn-Trace-Id", "X-Cloud-Trace-Context",
    ),
    "message": ("message", "msg", "M", "Body", "Body.Value", "log", "event", "text"),
    "span_id": (
        "span_id", "otel.span_id", "dd.span_id", "logging.googleapis.com/spanId", "traceparent", "X-B3-SpanId", "b3",
        "uber-trace-id",
    ),
    "method": (
        "method", "request.method", "http.request.method", "http.method", "http_method", "req.method", "requestMethod",
        "verb",
    ),
    "route": ("route", "request.route", "http.route", "full_path", "endpoint", "route_pattern"),
    "path": (
        "path", "request.path", "url.path", "uri", "request_uri", "url", "http.target", "requestUrl", "http.path",
    ),
    "status": (
        "status", "status_code", "response.status", "http.response.status_code", "http.status_code", "res.status_code",
        "response_code", "http_status", "code",
    ),
    "client_ip": (
        "client_ip", "ip", "request.ip", "client.address", "remote_ip", "remote_addr", "x_forwarded_for",
    ),
    "user_agent": ("user_agent", "request.user-agent", "user_agent.original", "ua", "agent"),
    "response_bytes": (
        "response_bytes", "body_size", "response.length", "dataLength", "bytes_out", "bytes", "response_size", "size",
        "http.response.body.size", "bytes_sent",
    ),
    "request_id": (
        "request_id", "req_id", "rid", "X-Request-ID", "correlation_id", "X-Correlation-ID",
    ),
    "error": ("error", "err", "errors", "error_message", "error.message", "exception.message"),
    "stack": (
        "stack", "stacktrace", "S", "errorVerbose", "error.stack_trace", "exception.stacktrace",
        "log.origin.stacktrace", "stack_trace",
    ),
    "duration_ms": (
        "duration_ms", "latency_human", "duration_ns", "latency_ns", "latency_us", "duration_us", "latency_ms",
        "elapsed_ms", "response_time_ms", "took_ms", "latency_s", "duration_s", "duration_seconds", "latency_seconds",
        "elapsed_seconds", "duration_sec", "response.latency", "latency", "duration", "elapsed", "took", "cost",
        "response_time", "request_time", "elapsed_time", "event.duration", "httpRequest.latency",
    ),
}  # fmt: skip

# Where a field may stand inside another object, nearest first.
CONTAINERS = (
    "http", "request", "response", "req", "res", "data", "fields", "context", "attributes", "httprequest", "extra",
)  # fmt: skip

_SEPARATORS = str.maketrans("", "", "-_.@ ")


def bare(name: str) -> str:
    """Return a name as it is compared: without case and separators."""
    return name.translate(_SEPARATORS).lower()


def text(value: object) -> str | None:
    if isinstance(value, str):
        return gotext.strip_ansi(value) or None
    return None


def verbatim(value: object) -> str | None:
    """Read what a client sent: its bytes are evidence, colours and all."""
    return value if isinstance(value, str) and value else None


def identifier(value: object) -> str | None:
    """Read a request id: text, or a number that some middleware counts up."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value)


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^/?#]*([^#]*)")
_WEB = frozenset({"http", "https", "ws", "wss"})


def path(value: object) -> str | None:
    """Read the path of a request, its query included: a database's or a broker's address has none."""
    if not isinstance(value, str) or not value or value[0] == "?":
        return None
    return value if value[0] == "/" or target(value) is not None else None


def target(address: str) -> str | None:
    """Return what a request for an address asks for, `/path?query`; a text that is no address is its own."""
    match = _URL.match(address)
    if match is None:
        return address
    if match[1].lower() not in _WEB:
        return None
    return match[2] if match[2].startswith("/") else "/" + match[2]


def level(value: object) -> str | None:
    return gotext.level(value)


def severity(value: object) -> str | None:
    """Read a severity: OpenTelemetry's number 1–24, else a level like any other."""
    return gotext.severity(value) or gotext.level(value)


def service_name(value: object) -> str | None:
    """Read a service's name; `{"service": {"name": …}}` too. OpenTelemetry's unknown_service names nobody."""
    if isinstance(value, dict):
        value = value.get("name")
    if isinstance(value, str) and value and not value.startswith("unknown_service:"):
        return value
    return None


_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")
_ANY_HEX = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
# version 00 ends with its flags, later ones may go on, ff is none; capitals and zeros make the whole header void
_TRACEPARENT = re.compile(
    r"(?:00|(?P<later>(?!00|ff)[0-9a-f]{2}))-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-[0-9a-f]{2}(?(later)(?:-.*)?)"
)
_XRAY = re.compile(r"(?:^|.*;)\s*root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;.*|$)")
_LONGEST_ID = 512


def _w3c_trace(candidate: str) -> str | None:
    return candidate if _TRACE.fullmatch(candidate) and candidate.strip("0") else None


def _w3c_span(candidate: str) -> str | None:
    return candidate if _SPAN.fullmatch(candidate) and candidate.strip("0") else None


def trace_id(value: object) -> str | None:
    """Read a trace id from any of its carriers and write it as W3C does: 32 lowercase hex digits.

    Plain hex of 32 (or 16, B3's short form) digits, dashed UUIDs, `traceparent`
    (https://www.w3.org/TR/trace-context/#traceparent-header), GCP's `projects/P/traces/ID` and
    `ID/SPAN;o=1`, Jaeger's `ID:SPAN:PARENT:FLAGS`, B3's `ID-SPAN-…`, X-Ray's `Root=1-8-24`.
    """
    if not isinstance(value, str) or not 16 <= len(value) <= _LONGEST_ID:
        return None
    candidate = value.strip().lower()
    if _ANY_HEX.fullmatch(candidate):
        return _w3c_trace(candidate.zfill(32))
    match = _TRACEPARENT.fullmatch(value.strip())
    if match:
        return match["trace"]
    match = _XRAY.fullmatch(candidate)
    if match:
        return _w3c_trace(match[1] + match[2])
    if candidate.count("-") == 4 and len(candidate) == 36:
        return _w3c_trace(candidate.replace("-", ""))
    head = re.split(r"[:/;-]", candidate.rsplit("traces/", 1)[-1], maxsplit=1)[0]
    return _w3c_trace(head.zfill(32)) if len(head) >= 16 else None


def span_id(value: object) -> str | None:
    """Read a span id: 16 hex digits, or the second part of the carriers that `trace_id` reads."""
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_ID:
        return None
    candidate = value.strip().lower()
    match = _TRACEPARENT.fullmatch(value.strip())
    if match:
        return match["span"]
    parts = re.split(r"[:-]", candidate)
    if len(parts) > 1 and _ANY_HEX.fullmatch(parts[0]):
        return _w3c_span(parts[1].zfill(16))
    return _w3c_span(candidate)


_MOST_SPAN = 1 << 64


def datadog_id(value: object) -> int | None:
    """Read Datadog's decimal uint64, as text or number."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST_SPAN:
        return value
    return None


def datadog_trace_id(value: object) -> str | None:
    """Read `dd.trace_id`: 32 hex digits where 128-bit logging is on, else a decimal uint64."""
    number = datadog_id(value)
    return trace_id(value) if number is None else f"{number:032x}"


def datadog_span_id(value: object) -> str | None:
    """Read `dd.span_id`, always a decimal uint64."""
    number = datadog_id(value)
    return None if number is None else f"{number:016x}"


def status(value: object) -> int | None:
    """Read an HTTP status 100–599, also from text and from an integral float."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    return None


def count(value: object) -> int | None:
    """Read a size in bytes. Gin's −1 means that nothing was written yet, and is no size: gin-gonic/gin#907."""
    if isinstance(value, str) and len(value) <= 18 and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer() and value < 2**63:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


_IPV4_PORT = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}", re.ASCII)
_IPV6_PORT = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::\d{1,5})?", re.ASCII)


def address(value: object) -> str | None:
    """Read a client's address: without port and brackets, the first of a list of proxies."""
    if not isinstance(value, str):
        return None
    if ":" not in value and "," not in value:
        return value.strip() or None
    first = value.split(",", 1)[0].strip()
    match = _IPV4_PORT.fullmatch(first) or _IPV6_PORT.fullmatch(first)
    return match[1] if match else first or None


def lines(value: object) -> str | None:
    """Read an error or a stack: text, or a list of texts (zap's errorCauses, hand-written lists)."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    read = text(value)
    return (read.rstrip("\r\n") or None) if read else None


CONVERTERS: dict[str, Callable[[object], object]] = {
    "level": level,
    "service_name": service_name,
    "trace_id": trace_id,
    "message": text,
    "span_id": span_id,
    "method": text,
    "route": verbatim,
    "path": path,
    "status": status,
    "client_ip": address,
    "user_agent": verbatim,
    "response_bytes": count,
    "request_id": identifier,
    "error": lines,
    "stack": lines,
}

# Carriers whose values mean something else than the same text elsewhere.
SPECIAL: dict[tuple[str, str], Callable[[object], object]] = {
    ("trace_id", "ddtraceid"): datadog_trace_id,
    ("span_id", "ddspanid"): datadog_span_id,
    ("level", "severity"): severity,
    ("level", "severitynumber"): severity,
}


def _more_than_an_id(written: object, read: object) -> bool:
    return isinstance(written, str) and written.strip().lower().replace("-", "").lstrip("0") != str(read).lstrip("0")


def _more_than_an_address(written: object, read: object) -> bool:
    return isinstance(written, str) and written.strip() not in (read, f"[{read}]")


# Where a value holds more than what was read from it (flags, ports, further proxies), it stays beside that.
# A path is parted from its query and judged there.
MORE: dict[str, Callable[[object, object], bool]] = {
    "trace_id": _more_than_an_id,
    "span_id": _more_than_an_id,
    "client_ip": _more_than_an_address,
}


def is_no_value(name: str, value: object) -> bool:
    """Say whether a value means that there is none: Gin's size is -1 where nothing was written."""
    return name == "response_bytes" and isinstance(value, int | float) and value < 0
