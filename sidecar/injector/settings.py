"""The section `injector`: where the webhook listens, and what goes into every sidecar.

Promise: a setting that would make pods or sidecars fail is refused when it is loaded, not found out pod by pod.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sidecar
from sidecar import settings as options
from sidecar.injector import grammar, names
from sidecar.options import Duration, option
from sidecar.settings import checks
from sidecar.settings.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LOG_MODES = ("auto", "cri", "api", "file", "fifo")
NATIVE = ("auto", "true", "false")
# What the injector decides for every pod. Sections and options.
OWN: Final = (
    "source.kind",
    "source.path",
    "source.container",
    "source.wait_for_quiet",
    "http.port",
    "state.dir",
    "injector",
    "service_name",
    "environment",
    "drain_seconds",
    "health.app_url",
    "metrics.app_url",
    "sinks.loki.url",
    "sinks.loki.tenant_id",
    "sinks.loki.labels",
    "sinks.loki.spool_max_bytes",
)
SECRETS: Final = ("sinks.loki.username", "sinks.loki.password", "sinks.loki.bearer_token")
# The container sees the files of its image and of our volumes, and none of them is one of these.
FILES: Final = ("schema.path", "sinks.loki.ca_file", "sinks.loki.cert_file", "sinks.loki.key_file")
HOSTS: Final = ("0.0.0.0", "::")  # noqa: S104  the kubelet's probes come from outside the pod


def _memory(example: str, least: int) -> tuple[str, str]:
    return f'an amount such as "{example}", at least {least >> 20}Mi', grammar.memory(least)


# What each amount may be: in words, and as a pattern.
AMOUNTS: Final = {
    "cpu_request": ('an amount of CPU such as "25m" or "0.5"', grammar.CPU),
    "memory_request": _memory("64Mi", grammar.MEMORY_REQUEST),
    "memory_limit": _memory("128Mi", grammar.MEMORY_LIMIT),
    "ephemeral_request": _memory("64Mi", grammar.STORAGE),
    "ephemeral_limit": _memory("512Mi", grammar.STORAGE),
    "state_size": _memory("256Mi", grammar.STORAGE),
}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The section `injector.defaults`: what a workload gets unless its annotations say otherwise."""

    log_mode: str = option(
        "auto",
        "How lines are read. `cri`: the node's log directory; `api`: the API server's; `file`, `fifo`: a directory "
        "shared with the application; `auto`: `cri` where Pod Security allows hostPath, else `api`.",
        choices=LOG_MODES,
    )
    log_path: str = option("", "`file`, `fifo`: where the application writes, such as `/var/log/shop/shop.log`.")
    native: str = option(
        "auto",
        "As a native sidecar (an init container that stays)? `auto`: where `injector.kubernetes_version` allows.",
        choices=NATIVE,
    )
    cpu_request: str = option("25m", "Requested CPU. There is no CPU limit: it would delay logs, not save anything.")
    memory_request: str = option("64Mi", "Requested memory.")
    memory_limit: str = option("128Mi", "Limit of memory; at least the request.")
    ephemeral_request: str = option("64Mi", "Requested ephemeral storage.")
    ephemeral_limit: str = option(
        "512Mi",
        "Limit of ephemeral storage. Where another container has none it is `1Ti`: the kubelet evicts a pod by the sum "
        "of its limits, and the application's use must not count against ours.",
    )
    state_size: str = option("256Mi", "Bound of the state volume; the spool takes at most a quarter of it.")
    port: int = option(9180, "Port of /metrics and /health in the pod.", minimum=1024, maximum=65535)
    environment: str = option("", "`environment` of every sidecar.")
    loki_url: str = option("", "`sinks.loki.url` of every sidecar. Empty: records go to standard output.")
    loki_tenant_id: str = option("", "`sinks.loki.tenant_id` of every sidecar.")
    loki_labels: dict[str, str] = option({}, "`sinks.loki.labels` of every sidecar.")
    loki_secret: str = option(
        "",
        "Name of a Secret in the workload's namespace with the keys `username` and `password`, or `bearer_token`.",
    )
    app_health_url: str = option("", "`health.app_url` of every sidecar, such as `http://127.0.0.1:8080/healthz`.")
    app_metrics_url: str = option("", "`metrics.app_url` of every sidecar, such as `http://127.0.0.1:8080/metrics`.")
    image_pull_policy: str = option(
        "", "As in Kubernetes; empty: Kubernetes decides.", choices=("", "Always", "IfNotPresent", "Never")
    )
    run_as_user: bool = option(
        True, "Say the user and group of the container; false where the platform assigns them (OpenShift)."
    )
    prometheus_annotations: bool = option(
        False, "Add `prometheus.io/scrape`, `port` and `path` where the pod has none of them."
    )
    readiness_probe: bool = option(
        False, "Let the sidecar answer for the application's readiness: /readyz with `app_health_url`."
    )
    settings: dict[str, str] = option(
        {}, 'Any further option of every sidecar by its name, such as {normalize.timezone: "Europe/Berlin"}.'
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `injector`."""

    listen: str = option("0.0.0.0:10250", "Address of the webhook, with TLS.")
    cert_file: str = option("", "PEM file of the certificate chain; read again when it changes.")
    key_file: str = option("", "PEM file of its key; read again when it changes.")
    http: str = option("0.0.0.0:9180", "Address of /livez, /readyz and /metrics, plain.")
    image: str = option("", f"Image of the sidecar. Default: `{names.IMAGE}:v` and the version of this program.")
    kubernetes_version: str = option(
        "", "Oldest version among API server and nodes, such as 1.29; empty: at least 1.29, so native sidecars work."
    )
    excluded_namespaces: list[str] = option(
        list(names.SYSTEM_NAMESPACES), "Namespaces without injection, whatever their labels say."
    )
    linger: Duration = option(
        Duration(5.0), "How long requests are answered after SIGTERM, while the API server learns of it."
    )
    defaults: Defaults = field(default_factory=Defaults)


def image(config: Config) -> str:
    """Return the image of the sidecar."""
    return config.image or f"{names.IMAGE}:v{sidecar.__version__}"


def native_by_version(config: Config) -> bool:
    """Say whether the cluster knows native sidecars: on by default since 1.29."""
    if not config.kubernetes_version:
        return True
    return int(config.kubernetes_version.lstrip("v").split(".")[1]) >= 29


def address(text: str) -> tuple[str, int]:
    """Return host and port of `0.0.0.0:9180`, `:9180` or `[::]:9180`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError('expected an address such as "0.0.0.0:9180"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('expected brackets around an IPv6 address, such as "[::]:9180"')
    return host, int(port)


def labels(pairs: Mapping[str, str]) -> str:
    """Write labels the way annotations and variables do: `a=b,c=d`."""
    return ",".join(f"{name}={value}" for name, value in sorted(pairs.items()))


def findings(value: Callable[[str], Any], option_flaw: Callable[[str, str], str]) -> Iterator[Finding]:
    """Return what does not hold of these option values. `option_flaw` judges an option of the sidecar by its name."""

    def mine(name: str) -> Any:  # noqa: ANN401  the option's kind tells
        return value(f"injector.{name}")

    def finding(text: str, *options: str) -> Finding:
        return Finding(tuple(f"injector.{name}" for name in options), text)

    for name in ("listen", "http"):
        try:
            address(mine(name))
        except ValueError as error:
            yield finding(str(error), name)
    if mine("image") and any(character.isspace() for character in mine("image")):
        yield finding('expected an image such as "registry.example/gin-sidecar:v1.2.0"', "image")
    version = mine("kubernetes_version")
    if version and not grammar.matches(grammar.VERSION, version):
        yield finding('expected a version such as "1.29"', "kubernetes_version")
    yield from _defaults(lambda name: mine(f"defaults.{name}"), finding, option_flaw)


def _defaults(
    value: Callable[[str], Any], finding: Callable[..., Finding], option_flaw: Callable[[str, str], str]
) -> Iterator[Finding]:
    def flaw(text: str, *options: str) -> Finding:
        return finding(text, *(f"defaults.{name}" for name in options))

    wrong = {name for name, (_, pattern) in AMOUNTS.items() if not grammar.matches(pattern, value(name))}
    for name in sorted(wrong):
        yield flaw(f"expected {AMOUNTS[name][0]}", name)
    for lower, upper in (("memory_request", "memory_limit"), ("ephemeral_request", "ephemeral_limit")):
        if wrong.isdisjoint((lower, upper)) and grammar.amount(value(lower)) > grammar.amount(value(upper)):
            yield flaw(f"must be at least injector.defaults.{lower}", upper, lower)
    for name in ("loki_url", "app_health_url", "app_metrics_url"):
        if value(name) and not grammar.matches(grammar.URL, value(name)):
            yield flaw('expected a URL such as "http://host:3100", without credentials', name)
    if "?" in value("loki_url") or "#" in value("loki_url") or value("loki_url").endswith(checks.PUSH_PATH):
        yield flaw(f"expected the base URL: {checks.PUSH_PATH} is added", "loki_url")
    if path := value("log_path"):
        if text := grammar.log_path_flaw(path):
            yield flaw(text, "log_path")
        elif grammar.matches(grammar.OCCUPIED, directory := path.rpartition("/")[0]):
            text = f"a volume at {directory} would hide what is there: expected a directory of its own"
            yield flaw(text, "log_path")
    if text := grammar.loki_labels_flaw(labels(value("loki_labels"))):
        yield flaw(text, "loki_labels")
    if value("loki_secret") and not grammar.matches(grammar.OBJECT_NAME, value("loki_secret")):
        yield flaw("expected the name of a Secret", "loki_secret")
    if value("readiness_probe") and not value("app_health_url"):
        yield flaw("required with injector.defaults.readiness_probe", "app_health_url", "readiness_probe")
    if owner := names.RESERVED_PORTS.get(value("port")):
        yield flaw(f"{value('port')} belongs to {owner}; choose another port", "port")
    yield from _passed_on(value("settings"), flaw, option_flaw)


def _passed_on(
    passed: Mapping[str, str], flaw: Callable[..., Finding], option_flaw: Callable[[str, str], str]
) -> Iterator[Finding]:
    for name, text in passed.items():
        if problem := option_flaw(name, text):
            yield flaw(f"{name}: {problem}", "settings")
        elif decides(name):
            yield flaw(f"{name}: decided by the injector, see injector.defaults", "settings")
        elif name in SECRETS:
            yield flaw(f"{name}: would stand in every pod, use injector.defaults.loki_secret", "settings")
        elif name in FILES and text.strip():
            said = "names a file, and no volume with it is injected: put it into an image of your own and set"
            yield flaw(f"{name}: {said} {options.variable(name)} there", "settings")
        elif name == "http.host" and text.strip() not in HOSTS:
            yield flaw(f'{name}: the kubelet asks from outside the pod: use "0.0.0.0" or "::"', "settings")


def decides(name: str) -> bool:
    """Say whether the injector decides this option of the sidecar for every pod."""
    return any(name == own or name.startswith(f"{own}.") for own in OWN)
