"""What must hold of option values beyond their kind: syntax that a component relies on, and options that need others.

Problem: each of these mistakes would otherwise end in a traceback, a sink that is refused for ever, or a metric that
never appears.
Promise: each finding names the option and says what to do. Nothing is opened or resolved (the time zone database
excepted), so that `sidecar check` gives the same answer on a laptop and in the pod.
Refused: what is known only by opening it (certificates: see `files`; schemas, paths).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sidecar.settings import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Values = Callable[[str], Any]

TENANT = r"[A-Za-z0-9!\-_.*'()]{1,150}"  # what Loki admits; the rest is answered with 400 for ever
_ROUTE = re.compile(r"(?:[A-Z]+ )?(?:/(?:[:*][^/\s?#:*]+|[^/\s?#:*][^/\s?#]*)?)+")
_CATCH_ALL = re.compile(r"/\*[^/]*/")
PUSH_PATH = "/loki/api/v1/push"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold; the first option is the one to change, the others are involved."""

    names: tuple[str, ...]
    text: str


def findings(value: Values) -> Iterator[Finding]:
    """Return everything that does not hold of these option values."""
    yield from _root(value)
    yield from _source(value)
    yield from _normalize(value)
    yield from _metrics(value)
    yield from _loki(value)
    for name in ("metrics.app_url", "health.app_url"):
        if value(name) and (flaw := _url_flaw(value(name))):
            yield Finding((name,), flaw)


def _root(value: Values) -> Iterator[Finding]:
    if "/" in value("environment"):
        yield Finding(("environment",), 'expected a name such as "staging", without "/": it is part of a file name')
    if not value("service_name").strip():
        yield Finding(("service_name",), "expected at least one visible character")


def _source(value: Values) -> Iterator[Finding]:
    kind = value("source.kind")
    needs = {
        "file": "the path or glob of the log",
        "cri": "the pod's log directory",
        "fifo": "the path of the named pipe",
    }
    if kind in needs and not value("source.path"):
        yield Finding(("source.path", "source.kind"), f'required for source.kind "{kind}": set it to {needs[kind]}')
    if kind in {"cri", "kubernetes"} and not value("source.container"):
        text = f'required for source.kind "{kind}": set it to the name of the container to follow'
        yield Finding(("source.container", "source.kind"), text)
    if value("sinks.loki.when_full") == "block" and kind in {"fifo", "command"}:
        text = f'"block" would stop an application that writes to a {kind}: use auto, spool or drop'
        yield Finding(("sinks.loki.when_full", "source.kind"), text)


def _normalize(value: Values) -> Iterator[Finding]:
    if value("schema.on_invalid") == "quarantine" and not value("state.dir"):
        yield Finding(("schema.on_invalid", "state.dir"), '"quarantine" needs a place for the file: set state.dir')
    if flaw := _zone_flaw(value("normalize.timezone")):
        yield Finding(("normalize.timezone",), flaw)
    for place, pattern in enumerate(value("normalize.redact.patterns"), start=1):
        try:
            if re.compile(pattern).search(""):
                text = f"item {place}: matches where there is nothing, and would hide everything; be more specific"
                yield Finding(("normalize.redact.patterns",), text)
        except (re.error, OverflowError, RecursionError) as error:
            yield Finding(("normalize.redact.patterns",), f"item {place}: not a regular expression: {error}")


def _metrics(value: Values) -> Iterator[Finding]:
    quantiles, buckets = value("metrics.quantiles"), value("metrics.buckets")
    if not all(0 < quantile < 1 for quantile in quantiles):
        yield Finding(
            ("metrics.quantiles",), "quantiles lie between 0 and 1, such as 0.99; the ends are not among them"
        )
    if len(set(quantiles)) != len(quantiles):
        yield Finding(("metrics.quantiles",), "give each quantile once")
    if not all(bound > 0 for bound in buckets):
        yield Finding(("metrics.buckets",), "bounds are seconds greater than 0")
    if not all(lower < upper for lower, upper in pairwise(buckets)):
        yield Finding(("metrics.buckets",), "bounds must ascend, each one once")
    for route in value("metrics.routes"):
        if not _ROUTE.fullmatch(route) or _CATCH_ALL.search(route):
            text = f'"{route}" is not a route template: expected "GET /orders/:id", "/orders/:id" or "/files/*path"'
            yield Finding(("metrics.routes",), text)


def _loki(value: Values) -> Iterator[Finding]:
    def loki(name: str) -> Any:  # noqa: ANN401  the option's kind tells
        return value(f"sinks.loki.{name}")

    def finding(text: str, *names: str) -> Finding:
        return Finding(tuple(f"sinks.loki.{name}" for name in names), text)

    url = loki("url")
    if url:
        if flaw := _url_flaw(url) or _base_url_flaw(url):
            yield finding(flaw, "url")
        elif "@" in urlsplit(url).netloc and (loki("username") or loki("bearer_token")):
            text = "credentials in the URL and beside it: keep one of them"
            yield finding(text, "url", "username", "bearer_token")
    tenant = loki("tenant_id")
    if tenant and (not re.fullmatch(TENANT, tenant) or tenant in {".", ".."}):
        yield finding("expected one tenant: at most 150 letters, digits and !-_.*'()", "tenant_id")
    if loki("username") and not loki("password"):
        yield finding("required with sinks.loki.username: set it or password_file", "password", "username")
    if loki("password") and not loki("username"):
        yield finding("required with sinks.loki.password", "username", "password")
    if ":" in loki("username"):
        yield finding('basic authentication has no way to write ":" in a user name', "username")
    if loki("username") and loki("bearer_token"):
        text = "basic authentication is configured too: keep one of them"
        yield finding(text, "bearer_token", "username")
    if bool(loki("cert_file")) != bool(loki("key_file")):
        missing, other = ("key_file", "cert_file") if loki("cert_file") else ("cert_file", "key_file")
        yield finding(f"required with sinks.loki.{other}", missing, other)
    if loki("when_full") == "spool" and not value("state.dir"):
        yield Finding(("sinks.loki.when_full", "state.dir"), '"spool" needs a place for the files: set state.dir')


def _url_flaw(url: str) -> str:
    """Return why this is not a URL that a client can call; "" where it is one."""
    expected = 'expected a URL such as "http://host:3100"'
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{expected}: {error}"
    if parts.scheme not in {"http", "https"}:
        return f"{expected}: only http and https are spoken"
    if not parts.hostname or port == 0:
        return f"{expected}: the host is missing" if port != 0 else f"{expected}: nothing listens on port 0"
    if any(character.isspace() for character in url):
        return f"{expected}: a space is in it"
    return ""


def _base_url_flaw(url: str) -> str:
    parts = urlsplit(url)
    if parts.path.rstrip("/").endswith(PUSH_PATH):
        return f"expected the base URL: {PUSH_PATH} is added"
    if parts.query or parts.fragment:
        return f"expected the base URL: {PUSH_PATH} is added, so nothing may follow the path"
    return ""


def _zone_flaw(zone: str) -> str:
    if zone == "UTC":
        return ""
    import zoneinfo  # noqa: PLC0415  0.3 MiB that only other zones pay for

    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if not known:
            return "no time zone is known here: install the time zone database (tzdata), or use UTC"
        return f'expected the name of a zone such as "Europe/Berlin"{did_you_mean(zone, known)}'
    return ""
