"""What sidecars will be told: the environment of each log mode, before any pod asks for it.

Problem: settings that the sidecar refuses end every one of them at start, and a native sidecar that does not start
holds its application back for ever; pod by pod is too late to find out.
Promise: `environments` gives exactly the variables that injection writes, as the container sees them, so that whoever
loads configurations can try them. Refused: loading them here; the loader stands above the injector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sidecar.injector import template, variables, wishes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.injector.settings import Config

# Which default an option of the sidecar comes from. Every other one comes from `injector.defaults.settings`.
DEFAULTS: Final = {
    "environment": "environment",
    "http.port": "port",
    "health.app_url": "app_health_url",
    "metrics.app_url": "app_metrics_url",
    "sinks.loki.url": "loki_url",
    "sinks.loki.tenant_id": "loki_tenant_id",
    "sinks.loki.labels": "loki_labels",
}
_LOG_PATH = "/var/log/app/app.log"
_FIELDS = {"POD_NAME": "app-0", "POD_NAMESPACE": "default", "POD_UID": "0" * 8, "NODE_NAME": "node"}


def environments(config: Config) -> Iterator[dict[str, str]]:
    """Return the variables of one sidecar per log mode. Secrets are left out: each workload has its own."""
    application: dict[str, Any] = {"name": "app"}
    pod = {"metadata": {"name": "app-0"}, "spec": {"containers": [application]}}
    wished = wishes.read({}, replace(config.defaults, log_mode="auto"))
    assert isinstance(wished, wishes.Wishes), f"a default that no annotation could be: {wished}"
    wished = replace(wished, log_path=_LOG_PATH)
    constants = variables.constants(config)
    for mode in variables.KINDS:
        where = variables.place(application, _LOG_PATH) if mode in ("file", "fifo") else None
        assert not isinstance(where, str)
        values = constants | variables.of_pod(
            pod, wished, config, mode=mode, follows="app", where=where, native=wished.native != "false"
        )
        env = template.fill(template.CONTAINER["env"], variables.with_workload(values, "app"))
        given = {one["name"]: variables.expanded(one["value"]) for one in env if "value" in one}
        yield _FIELDS | given
