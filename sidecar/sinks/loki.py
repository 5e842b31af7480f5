"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.options import Duration, Secret, Size, option


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The section `sinks.loki.batch`."""

    max_bytes: Size = option(Size(256 << 10), "Push when this much is waiting.", minimum=1024, maximum=3 << 20)
    max_wait: Duration = option(Duration(1.0), "Push when the oldest record has waited this long.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `sinks.loki`."""

    url: str = option("", "Base URL; `/loki/api/v1/push` is added. Empty: no Loki.")
    tenant_id: str = option("", "Sent as `X-Scope-OrgID`.")
    username: str = option("", "Basic authentication.")
    password: Secret = option(Secret(), "Basic authentication.", secret=True)
    bearer_token: Secret = option(Secret(), "Bearer authentication.", secret=True)
    ca_file: str = option("", "PEM file of the authorities to trust instead of the system's.")
    cert_file: str = option("", "PEM file of the client certificate.")
    key_file: str = option("", "PEM file of the client certificate's key.")
    labels: dict[str, str] = option({}, "Labels added to every stream.")
    encoding: str = option("json", "How pushes are written.", choices=("json", "protobuf"))
    timeout: Duration = option(Duration(10.0), "Longest time one push may take.", minimum=0.1)
    batch: BatchConfig = field(default_factory=BatchConfig)
    when_full: str = option(
        "auto",
        "What to do when Loki does not take records fast enough. `auto`: `block` for file, cri, kubernetes and stdin "
        "from a regular file; for fifo, command and piped stdin `spool` with a state directory, else a memory queue "
        "of `spool_max_bytes` and then `drop`, counted. `block` is refused for fifo and command.",
        choices=("auto", "block", "spool", "drop"),
    )
    spool_max_bytes: Size = option(Size(64 << 20), "Bound of the spool, or of the memory queue without one.")
