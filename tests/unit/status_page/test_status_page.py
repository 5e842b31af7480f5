"""The status page: everything on it, nothing that came from a log line as markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from sidecar import status_page
from sidecar.health import Check, Health
from sidecar.status_page import Page, Route, Sink

VOID = {"meta", "link", "rect"}
HOSTILE = "</style><script>alert('1')</script>\"><img src=x onerror=y>&amp;\u202e\x00\ud800"


class Reader(HTMLParser):
    """Reads a document the strict way: every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def health(**checks):
    made = Health()
    made.starting = False
    made.attached = lambda: Check("pass")
    for name, check in checks.items():
        made.add(name, lambda check=check: check)
    return made.report()


@pytest.fixture
def page():
    return Page(
        service_name="checkout",
        version="1.2.3",
        environment="production",
        now=datetime(2026, 3, 1, 12, 3, 5, tzinfo=UTC),
        uptime_seconds=3700,
        report=health(),
        source={
            "kind": "cri",
            "path": "/var/log/pods/x",
            "resumable": True,
            "streams": ["stdout", "stderr"],
            "note": "",
        },
        lines_read=114,
        bytes_read=2048,
        lines_joined=3,
        lines_skipped=1,
        outcomes={"valid": 80, "normalized": 20, "invalid": 10},
        formats={"zap": 70, "gin.text": 40},
        violations={("trace_id", "required"): 9, ("", "object"): 1},
        routes=[
            Route(method="GET", path="/orders/:id", requests=30, errors=3, p50_ms=12.5, p99_ms=180.0),
            Route(method="POST", path="/orders", requests=60, errors=0),
        ],
        sinks=[
            Sink(
                name="loki",
                offered=110,
                sent=100,
                refused=1,
                dropped=2,
                dead_lettered=3,
                pending=4,
                last_success_seconds=7.0,
                last_refusal="too_old: has timestamp too old",
            )
        ],
    )


def read(page, **options):
    reader = Reader(status_page.render(page, **options))
    reader.text = reader.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    return reader


def test_it_shows_what_there_is_to_know(page):
    text = read(page).text

    for expected in [
        "checkout", "production", "gin-sidecar 1.2.3", "up 1 h 1 min", "as of 12:03:05 UTC", "All is well",
        "114 lines = 110 records + 3 joined + 1 blank ✓", "cri", "stdout, stderr", "/orders/:id", "10 %", "12.5 ms",
        "180 ms", "gin.text", "trace_id", "required", "(the whole line)", "loki ✓", "7 s ago", "loki last refused: too_old: has timestamp too old",
        "source · attached",
    ]:  # fmt: skip
        assert expected in text


def test_the_busiest_route_comes_first(page):
    text = read(page).text

    assert text.index("/orders/:id") > text.index("POST/orders")


def test_it_links_to_everything_that_is_served(page):
    links = {value for name, value in read(page).attributes if name == "href" and value.startswith("/")}

    assert links == {"/?pause", "/metrics", "/metrics/merged", "/health", "/readyz?verbose", "/livez?verbose"}


def test_nothing_of_a_log_line_becomes_markup(page):
    hostile = replace(
        page,
        service_name=HOSTILE,
        environment=HOSTILE,
        report=health(**{HOSTILE: Check("fail", HOSTILE, HOSTILE, HOSTILE)}),
        source={HOSTILE: HOSTILE},
        formats={HOSTILE: 1},
        violations={(HOSTILE, HOSTILE): 1},
        routes=[Route(method=HOSTILE, path=HOSTILE, requests=1, errors=0)],
        sinks=[Sink(name=HOSTILE, offered=0, sent=0, last_refusal=HOSTILE)],
    )

    reader = read(hostile)

    assert set(reader.tags).isdisjoint({"script", "img"})
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert {"\u202e", "\x00", "\ud800"}.isdisjoint(reader.text)
    assert "<script>alert('1')</script>" in reader.text
    status_page.render(hostile).encode()


def test_no_user_name_or_password_of_an_address_is_shown(page):
    shown = read(replace(page, source={"url": "https://me:s3cr3t@loki.example/x"})).text

    assert "https://loki.example/x" in shown
    assert "s3cr3t" not in shown


def test_it_stays_small_whatever_there_is_to_show(page):
    many = replace(
        page,
        formats={f"format {n}" * 1000: n for n in range(1000)},
        violations={(f"field {n}" * 1000, "required"): n for n in range(1000)},
        routes=[Route(method="GET", path=f"/{n}" * 1000, requests=n, errors=0) for n in range(1000)],
    )

    text = status_page.render(many)

    assert len(text) < 64 << 10
    assert "the busiest 15 of 1\N{NARROW NO-BREAK SPACE}000 routes" in text
    assert "499\N{NARROW NO-BREAK SPACE}500" in text  # all of them are counted


def test_it_asks_for_nothing_from_elsewhere_and_runs_nothing(page):
    reader = read(page)

    assert "script" not in reader.tags
    sources = [value for name, value in reader.attributes if name in {"src", "href"} and "//" in value]
    assert all(value.startswith("data:") for value in sources)
    assert not any(name == "style" for name, _ in reader.attributes)  # the policy would refuse them
    assert "url(" not in status_page.render(page)


def test_the_policy_allows_this_very_style_and_no_other(page):
    style = re.search(r"<style>(.*?)</style>", status_page.render(page), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()

    assert f"style-src 'sha256-{digest}'" in status_page.content_policy()


def test_it_renews_itself_unless_paused(page):
    assert ("http-equiv", "refresh") in read(page).attributes
    assert ("http-equiv", "refresh") not in read(page, live=False).attributes
    assert ("href", "/") in read(page, live=False).attributes


@pytest.mark.parametrize(
    ("status", "words", "mark"), [("pass", "All is well", "✓"), ("warn", "Worth a look", "!"), ("fail", "Failing", "✕")]
)
def test_the_status_is_told_by_words_marks_and_colors(page, status, words, mark):
    report = health(part=Check(status, "a reason"))

    html = status_page.render(replace(page, report=report))

    assert f'<span class="pill {status}">{words}</span>' in html
    assert f"<title>{mark} checkout" in html
    assert ('<p class="reason' in html) is (status != "pass")


def test_sums_that_do_not_add_up_yet_are_marked(page):
    text = read(replace(page, lines_read=200, sinks=[Sink(name="loki", offered=110, sent=1)])).text

    assert "1 blank …" in text
    assert "loki …" in text


def test_what_was_lost_or_withheld_is_said(page):
    text = read(replace(page, lost_bytes=4096, withheld=7)).text

    assert "4 KiB lost" in text
    assert "7 records were withheld" in text


def test_before_the_first_line_it_says_so(page):
    new = Page(service_name="a", version="1", now=page.now, uptime_seconds=0, report=page.report, source={})

    text = read(new).text

    for expected in ["No access line seen yet.", "No line read yet.", "No sink is configured.", "None so far."]:
        assert expected in text
