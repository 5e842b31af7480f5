"""The schemas of log platforms that Go services write for: Elastic's ECS and Google Cloud's structured logging.

ECS's keys are dotted (`log.level`) or nested, durations are nanoseconds; GCP's `httpRequest.latency` is text.
https://www.elastic.co/docs/reference/ecs · https://cloud.google.com/logging/docs/structured-logging
"""

from __future__ import annotations

from sidecar.formats.format import Format, has
from sidecar.units import Unit

ECS = Format(
    name="ecs",
    when=has("@timestamp", "log.level"),
    aliases={
        "timestamp": ("@timestamp",),
        "level": ("log.level",),
        "trace_id": ("trace.id",),
        "span_id": ("span.id",),
        "stack": ("log.origin.stack_trace", "log.origin.stacktrace", "error.stack_trace"),
    },
    integer=Unit.NS,
    floating=Unit.NS,
    precision=3,
)
GCP = Format(
    name="gcp",
    when=lambda keys: "httprequestlatency" in keys and "httprequeststatus" in keys,
    aliases={
        "method": ("httpRequest.requestMethod",),
        "path": ("httpRequest.requestUrl",),
        "status": ("httpRequest.status",),
        "client_ip": ("httpRequest.remoteIp",),
        "user_agent": ("httpRequest.userAgent",),
        "response_bytes": ("httpRequest.responseSize",),
    },
    floating=Unit.S,
    integer=Unit.S,
    access=True,
    precision=3,
)
