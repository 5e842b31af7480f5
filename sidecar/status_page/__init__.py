"""The page a person sees at `/`: what this sidecar follows, what became of it, and whether all is well.

Promise: one self-contained document without scripts or outside assets, readable on a phone and in the dark, that shows
the two sums of the accounting so that anybody can see that nothing is missing. Every text on it is escaped and
isolated: paths, formats and field names come from log lines, so an attacker may have chosen them. Pure: what it shows
is handed over, and how much it shows is bounded. Refused: secrets, log lines, addresses with user names in them.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, TypeVar

from sidecar.status_page import amounts, markup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sidecar.health import Check, Report

_Key = TypeVar("_Key")

REFRESH_SECONDS = 5
ROUTES = 15  # shown, the busiest
_ROWS = 8

_WORDS = {"pass": "All is well", "warn": "Worth a look", "fail": "Failing"}
_MARKS = {"pass": "✓", "warn": "!", "fail": "✕"}
_COLORS = {"pass": "35a372", "warn": "dd9a3c", "fail": "bf3027"}
_OUTCOMES = ("valid", "normalized", "invalid")
_LINKS = (
    ("/metrics", "Metrics"),
    ("/metrics/merged", "Merged with the application’s"),
    ("/health", "Health"),
    ("/readyz?verbose", "Readiness"),
    ("/livez?verbose", "Liveness"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is known of the requests of one method and path."""

    method: str
    path: str
    requests: int
    errors: int  # status 5xx
    p50_ms: float = math.nan
    p99_ms: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """One sink's ledger."""

    name: str
    offered: int
    sent: int
    refused: int = 0
    dropped: int = 0
    dead_lettered: int = 0
    pending: int = 0
    oldest_unsent_seconds: float = 0.0
    spool_bytes: int = 0
    last_success_seconds: float | None = None  # ago; None: never
    last_refusal: str = ""  # why something was refused last

    @property
    def balanced(self) -> bool:
        return self.offered == self.sent + self.refused + self.dropped + self.dead_lettered + self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything the page shows, at one moment."""

    service_name: str
    version: str
    now: datetime
    uptime_seconds: float
    report: Report
    source: Mapping[str, object]  # what Source.describe() says
    environment: str = ""
    lines_read: int = 0
    bytes_read: int = 0
    lines_joined: int = 0
    lines_skipped: int = 0
    lost_bytes: int = 0
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    withheld: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)
    violations: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (field, rule)
    routes: Sequence[Route] = ()  # all of them: the page counts all and shows the busiest
    sinks: Sequence[Sink] = ()


def render(page: Page, *, live: bool = True) -> str:
    """Return the document; a live one asks for itself again."""
    status = page.report.status
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if live else ""
    icon = (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
        f"%3Ccircle cx='8' cy='8' r='6' fill='%23{_COLORS[status]}'/%3E%3C/svg%3E"
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex">'
        f"{refresh}<title>{_MARKS[status]} {markup.plain(page.service_name)} · gin-sidecar</title>"
        f'<link rel="icon" href="{icon}">'
        f"<style>{_style()}</style></head><body>"
        f'{_header(page, live=live)}<main>{_figures(page)}<div class="grid">'
        f"{_routes(page.routes)}{_sinks(page.sinks)}"
        f"<div>{_records(page)}{_violations(page)}</div><div>{_health(page.report.checks)}{_source(page)}</div>"
        f"</div></main>{_footer()}</body></html>"
    )


@cache
def _style() -> str:
    return resources.files("sidecar.status_page").joinpath("style.css").read_text("utf-8")


@cache
def content_policy() -> str:
    """Return the Content-Security-Policy: this page's style and icon, nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _header(page: Page, *, live: bool) -> str:
    status = page.report.status
    environment = f' <span class="soft">{markup.text(page.environment)}</span>' if page.environment else ""
    watch = (
        f'refreshes every {REFRESH_SECONDS} s, <a href="/?pause">pause</a>'
        if live
        else 'paused, <a href="/">resume</a>'
    )
    reason = "" if status == "pass" else f'<p class="reason {status}">{markup.text(page.report.reason, 500)}</p>'
    return (
        f'<header><div class="title"><h1>{markup.text(page.service_name)}{environment}</h1>'
        f'<span class="pill {status}">{_WORDS[status]}</span></div>'
        f'<p class="under">gin-sidecar {markup.text(page.version)} · up {amounts.span(page.uptime_seconds)} · '
        f"as of {page.now:%H:%M:%S} UTC · {watch}</p>{reason}</header>"
    )


def _figures(page: Page) -> str:
    requests = sum(route.requests for route in page.routes)
    errors = sum(route.errors for route in page.routes)
    records = sum(page.outcomes.values())
    unread = f"{amounts.size(page.lag_bytes)} unread" if page.lag_bytes else "nothing unread"
    pending = sum(sink.pending for sink in page.sinks)
    lost = sum(sink.refused + sink.dropped for sink in page.sinks)
    figures = (
        ("Lines read", amounts.count(page.lines_read), amounts.size(page.bytes_read)),
        ("Behind", amounts.span(page.lag_seconds) if page.lag_bytes else "0 s", unread),
        (
            "Requests",
            amounts.count(requests),
            f"{markup.share(errors, requests)} server errors" if requests else "none yet",
        ),
        (
            "Meets the schema",
            amounts.share(records - page.outcomes.get("invalid", 0), records),
            f"of {amounts.count(records)} records",
        ),
        ("Not delivered yet", amounts.count(pending), f"{amounts.count(lost)} dropped or refused"),
    )
    told = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in figures)
    return f'<dl class="figures">{told}</dl>'


def _routes(routes: Sequence[Route]) -> str:
    top = sorted(routes, key=lambda route: (-route.requests, route.path, route.method))[:ROUTES]
    if not top:
        return markup.section("Requests", '<p class="soft">No access line seen yet.</p>', wide=True)
    most = top[0].requests or 1
    rows = [
        (
            _route(route) + markup.bar([("", route.requests / most)], "bar thin"),
            amounts.count(route.requests),
            markup.marked("bad", markup.share(route.errors, route.requests), when=route.errors > 0),
            amounts.milliseconds(route.p50_ms),
            amounts.milliseconds(route.p99_ms),
        )
        for route in top
    ]
    more = f"the busiest {ROUTES} of {amounts.count(len(routes))} routes" if len(routes) > ROUTES else ""
    return markup.section("Requests", markup.table(("Route", "Requests", "5xx", "p50", "p99"), rows), more, wide=True)


def _route(route: Route) -> str:
    method, path = markup.text(route.method, 12), markup.text(route.path)
    return f'<span class="route"><span class="method">{method}</span>{path}</span>'


def _records(page: Page) -> str:
    total = sum(page.outcomes.values())
    if not page.lines_read and not total:
        return markup.section("Records", '<p class="soft">No line read yet.</p>')
    bar = markup.bar([(name, page.outcomes.get(name, 0) / (total or 1)) for name in _OUTCOMES])
    outcomes = [
        (
            f'<span class="key {name}"></span>{name}',
            amounts.count(page.outcomes.get(name, 0)),
            markup.share(page.outcomes.get(name, 0), total),
        )
        for name in _OUTCOMES
    ]
    formats = [
        (markup.text(name), amounts.count(count), markup.share(count, total)) for name, count in _most(page.formats)
    ]
    adds_up = page.lines_read == total + page.lines_joined + page.lines_skipped
    withheld = f" <b>{amounts.count(page.withheld)}</b> records were withheld from the sinks." if page.withheld else ""
    lost = f' <b class="bad">{amounts.size(page.lost_bytes)} lost.</b>' if page.lost_bytes else ""
    return markup.section(
        "Records",
        f'{bar}<div class="legend">{markup.table(("Outcome", "Records", "Share"), outcomes)}</div>'
        f'<div class="legend">{markup.table(("Format", "Records", "Share"), formats)}</div>'
        f'<p class="sum"><b>{amounts.count(page.lines_read)}</b> lines = <b>{amounts.count(total)}</b> records + '
        f"<b>{amounts.count(page.lines_joined)}</b> joined + <b>{amounts.count(page.lines_skipped)}</b> blank "
        f"{_sum(adds_up=adds_up)}{withheld}{lost}</p>",
    )


def _health(checks: Mapping[str, Check]) -> str:
    told = []
    for name, check in checks.items():
        value = ""
        if check.observed_value is not None:
            number = check.observed_value
            shown = f"{number:g}" if isinstance(number, float) else str(number)
            value = f'<span class="value">{markup.text(f"{shown} {check.observed_unit}".strip(), 40)}</span>'
        output = f"<p>{markup.text(check.output, 300)}</p>" if check.output else ""
        told.append(
            f'<li class="{check.status}"><span class="mark" title="{check.status}">{_MARKS[check.status]}</span>'
            f"<span>{markup.text(name.replace(':', ' · '))}</span>{value}{output}</li>"
        )
    return markup.section("Health", f'<ul class="checks">{"".join(told)}</ul>')


def _sinks(sinks: Sequence[Sink]) -> str:
    if not sinks:
        return markup.section("Sinks", '<p class="soft">No sink is configured.</p>', wide=True)
    rows = [
        (
            f"{markup.text(sink.name)} {_sum(adds_up=sink.balanced)}",
            amounts.count(sink.offered),
            amounts.count(sink.sent),
            markup.marked("bad", amounts.count(sink.refused), when=sink.refused > 0),
            markup.marked("bad", amounts.count(sink.dropped), when=sink.dropped > 0),
            markup.marked("odd", amounts.count(sink.dead_lettered), when=sink.dead_lettered > 0),
            amounts.count(sink.pending),
            amounts.span(sink.oldest_unsent_seconds) if sink.pending else "–",
            amounts.size(sink.spool_bytes),
            "never" if sink.last_success_seconds is None else f"{amounts.span(sink.last_success_seconds)} ago",
        )
        for sink in sinks
    ]
    head = (
        "Sink", "Offered", "= Sent", "+ Refused", "+ Dropped", "+ Dead letters", "+ Pending", "Oldest", "Spool",
        "Last sent",
    )  # fmt: skip
    refusals = "".join(
        f'<p class="sum">{markup.text(sink.name)} last refused: {markup.text(sink.last_refusal, 300)}</p>'
        for sink in sinks
        if sink.last_refusal
    )
    return markup.section("Sinks", f"{markup.table(head, rows)}{refusals}", wide=True)


def _source(page: Page) -> str:
    facts = "".join(
        f"<dt>{markup.text(name.replace('_', ' '))}</dt><dd>{markup.text(_value(value))}</dd>"
        for name, value in page.source.items()
    )
    return markup.section("Source", f'<dl class="facts">{facts}</dl>')


def _violations(page: Page) -> str:
    if not page.violations:
        return markup.section("Schema violations", '<p class="soft">None so far.</p>')
    rows = [
        (
            f'<span class="mono">{markup.text(name) if name else "(the whole line)"}</span>',
            markup.text(rule),
            amounts.count(count),
        )
        for (name, rule), count in _most(page.violations)
    ]
    table = markup.table(("Field", "Rule", "Lines"), rows)
    return markup.section("Schema violations", table, "as written by the application")


def _footer() -> str:
    links = "".join(f'<li><a href="{target}">{name}</a></li>' for target, name in _LINKS)
    return f"<footer><ul>{links}</ul></footer>"


def _sum(*, adds_up: bool) -> str:
    return (
        '<span class="good" title="it adds up">✓</span>' if adds_up else '<span class="odd" title="in motion">…</span>'
    )


def _most(counts: Mapping[_Key, int]) -> list[tuple[_Key, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:_ROWS]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return "–" if value is None or value == "" else str(value)
