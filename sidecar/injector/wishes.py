"""What a pod asks for: the annotations `gin-sidecar.io/…`, read over the defaults.

Promise: every value is one that the sidecar and the API server accept, or it is a `Flaw` that says what was expected
in words short enough for a warning. Refused: guessing what a value or a name might have meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sidecar.injector import grammar, names, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.injector.settings import Defaults


@dataclass(frozen=True, slots=True)
class Rule:
    """What one annotation may hold: one of some words, or whatever matches a pattern."""

    expected: str
    pattern: str = ""
    choices: tuple[str, ...] = ()

    def admits(self, text: str) -> bool:
        return text in self.choices if self.choices else grammar.matches(self.pattern, text)


_URL = Rule('a URL such as "http://127.0.0.1:8080/x"', grammar.URL)

RULES: Final = {
    "container": Rule("the name of a container of the pod", grammar.DNS_LABEL),
    "log-mode": Rule(", ".join(settings.LOG_MODES), choices=settings.LOG_MODES),
    "log-path": Rule("the absolute path of a file in a directory of its own", grammar.LOG_PATH),
    "service-name": Rule("a name of at most 128 characters", grammar.SERVICE_NAME),
    "native": Rule(", ".join(settings.NATIVE), choices=settings.NATIVE),
    "cpu-request": Rule(*settings.AMOUNTS["cpu_request"]),
    "memory-request": Rule(*settings.AMOUNTS["memory_request"]),
    "memory-limit": Rule(*settings.AMOUNTS["memory_limit"]),
    "loki-labels": Rule("labels such as a=b,c=d, each once", grammar.LOKI_LABELS),
    "app-health-url": _URL,
    "app-metrics-url": _URL,
}
KEYS: Final = {key: f"{names.DOMAIN}/{key}" for key in RULES}
KNOWN: Final = (*KEYS.values(), names.STATUS)


@dataclass(frozen=True, slots=True)
class Flaw:
    """An annotation that cannot be followed."""

    annotation: str
    text: str

    def __str__(self) -> str:
        return f"annotation {self.annotation}: {self.text}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the pod gets: its annotations, else the defaults. Texts are "" where nobody says anything."""

    container: str
    log_mode: str
    log_path: str
    service_name: str
    native: str
    cpu_request: str
    memory_request: str
    memory_limit: str
    loki_labels: str
    app_health_url: str
    app_metrics_url: str


def read(annotations: Mapping[str, str], defaults: Defaults) -> Wishes | Flaw:
    """Return what the pod asks for, or the first annotation that cannot be followed."""
    for name in sorted(annotations):
        if name.startswith(f"{names.DOMAIN}/") and name not in KNOWN:
            text = "is a label, not an annotation" if name == names.INJECT else "is unknown"
            return Flaw(name, text)
    given = {key: annotations[name] for key, name in KEYS.items() if name in annotations}
    for key, text in given.items():
        if key in _FLAWS:
            if flaw := _FLAWS[key](text):
                return Flaw(KEYS[key], flaw)
        elif not RULES[key].admits(text):
            return Flaw(KEYS[key], f"expected {RULES[key].expected}")

    mode = given.get("log-mode", defaults.log_mode)
    path = given.get("log-path", defaults.log_path)
    if mode in ("file", "fifo") and not path:
        return Flaw(KEYS["log-path"], f"required with log-mode {mode}")
    request = given.get("memory-request", defaults.memory_request)
    limit = given.get("memory-limit", "")
    if not limit:
        limit = max(defaults.memory_limit, request, key=grammar.amount)
    elif grammar.amount(request) > grammar.amount(limit):
        return Flaw(KEYS["memory-limit"], f"must be at least the request, {request}")
    return Wishes(
        container=given.get("container", ""),
        log_mode=mode,
        log_path=path,
        service_name=given.get("service-name", ""),
        native=given.get("native", defaults.native),
        cpu_request=given.get("cpu-request", defaults.cpu_request),
        memory_request=request,
        memory_limit=limit,
        loki_labels=given.get("loki-labels", settings.labels(defaults.loki_labels)),
        app_health_url=given.get("app-health-url", defaults.app_health_url),
        app_metrics_url=given.get("app-metrics-url", defaults.app_metrics_url),
    )


# Where a pattern cannot say all, or people need to know which part of the text is meant.
_FLAWS: Final = {"log-path": grammar.log_path_flaw, "loki-labels": grammar.loki_labels_flaw}
