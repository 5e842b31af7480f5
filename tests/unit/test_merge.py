"""Which of the application's lines may stand beside ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sidecar import merge
from sidecar.merge import Filter

OURS = b"""\
# HELP http_request_duration_ms Duration of HTTP requests in milliseconds.
# TYPE http_request_duration_ms summary
http_request_duration_ms_count{method="GET",path="/"} 1
# HELP http_request_duration_seconds Duration of HTTP requests in seconds.
# TYPE http_request_duration_seconds histogram
# HELP http_requests_total HTTP requests by status code.
# TYPE http_requests_total counter
# HELP sidecar_lag_bytes Unread bytes.
# TYPE sidecar_lag_bytes gauge
"""


def keep(text, **options):
    return Filter(merge.owned(OURS), **options).keep(text.encode())


def malformed(text, **options):
    sieve = Filter(merge.owned(OURS), **options)
    assert sieve.keep(text.encode()) == ""
    return sieve.malformed


@pytest.mark.parametrize(
    "line",
    [
        "orders_total 5",
        "orders_total{} 5",
        'orders_total{status="paid"} 5',
        'orders_total{status="paid",} 5',
        'orders_total{ a = "b" , c = "d" } 5',
        'x:y{a="\\"\\\\\\n{}#,= 1"} -5.5e-07 1712345678901',
        "temperature NaN",
        "temperature +Inf",
        "temperature -inf",
        'weather{city="Zürich ☂"} .5',
        "big 1e308",
        'orders{a="a=\\"b\\",a=",b="b"} 1',
    ],
)
def test_a_sample_of_the_text_format_is_kept_as_it_is(line):
    assert keep(f"{line}\n") == f"{line}\n"


@pytest.mark.parametrize(
    "line",
    [
        "<html>",
        "orders_total",
        "orders_total five",
        "orders_total 5 soon",
        "orders_total 5 1.5",
        "orders_total 5 99999999999999999999",
        "5orders 1",
        "orders-total 1",
        'orders{status="paid} 1',
        'orders{status="paid"',
        "orders{status=paid} 1",
        'orders{status="paid"}{a="b"} 1',
        'orders{2x="paid"} 1',
        'orders{a="b"c="d"} 1',
        'orders{,a="b"} 1',
        '{"quoted.name",a="b"} 1',
        'orders{a="\x00"} 1',
        'orders{a="b",a="c"} 1',
        'orders{__name__="c"} 1',
        "orders 1e999",
        "orders 0x1p-2",
        "orders 1_000",
        "orders +NaN",
        "# TYPE orders counters",
        "# TYPE orders",
    ],
)
def test_a_line_that_would_cost_the_scrape_is_left_out_and_counted(line):
    assert malformed(f"{line}\n") == 1


def test_bytes_that_are_not_utf8_cost_only_their_line():
    sieve = Filter(())

    assert sieve.keep(b'a{b="\xc3\xbc"} 1\nc{d="\xff\xfe"} 2\ne 3\n') == 'a{b="ü"} 1\ne 3\n'
    assert sieve.malformed == 1


@pytest.mark.parametrize(
    "line",
    [
        "http_request_duration_ms 5",
        'http_request_duration_ms{quantile="0.5"} 5',
        "http_request_duration_ms_sum 5",
        "http_request_duration_ms_count 5",
        "http_request_duration_ms_created 5",
        'http_request_duration_seconds_bucket{le="+Inf"} 5',
        "http_request_duration_seconds_sum 5",
        "http_request_duration_seconds_count 5",
        "http_request_duration_seconds_created 5",
        'http_requests_total{code="200"} 5',
        "http_requests_created 5",
        "sidecar_lag_bytes 5",
        "# HELP http_requests_total Theirs.",
        "# TYPE http_requests_total counter",
        "# TYPE http_requests counter",
        "# TYPE http_request_duration_seconds summary",
        "# TYPE http_request_duration_ms_count gauge",
    ],
)
def test_what_is_ours_is_left_out_and_no_mistake(line):
    assert malformed(f"{line}\n") == 0


@pytest.mark.parametrize("name", ["http_requests_total_size", "http_request_duration_minutes", "sidecar_lag", "http"])
def test_names_that_only_look_like_ours_are_kept(name):
    assert keep(f"# TYPE {name} gauge\n{name} 1\n") == f"# TYPE {name} gauge\n{name} 1\n"


def test_rule_36_comments_blank_lines_and_the_end_mark_are_left_out():
    assert keep("# EOF\n\n  \n# a comment\n# UNIT a seconds\na 1\r\n#\n\tb 2 \n") == "a 1\nb 2\n"


def test_a_family_is_told_once():
    text = "# HELP a Text.\n# TYPE a gauge\na 1\n# HELP a Again.\n# TYPE a counter\na 2\n"

    assert keep(text) == "# HELP a Text.\n# TYPE a gauge\na 1\na 2\n"


def test_a_family_is_told_once_across_slices():
    sieve = Filter(())

    assert sieve.keep(b"# TYPE a gauge\n") == "# TYPE a gauge\n"
    assert sieve.keep(b"# TYPE a gauge\na 1\n") == "a 1\n"


def test_an_empty_help_keeps_the_space_that_parsers_need():
    assert keep("# HELP a\n# HELP b \n") == "# HELP a \n# HELP b \n"


def test_a_line_longer_than_any_metric_is_left_out():
    assert malformed('a{b="' + "c" * (64 << 10) + '"} 1\n') == 1


def test_the_last_line_needs_no_newline():
    assert keep("a 1\nb 2") == "a 1\nb 2\n"


def test_an_exemplar_is_cut_off_wherever_it_comes_from():
    assert keep('a_bucket{le="1"} 3 # {trace_id="x"} 0.5 171234.5\n') == 'a_bucket{le="1"} 3\n'
    assert keep('a{b=" # {"} 3\n') == 'a{b=" # {"} 3\n'


def test_openmetrics_becomes_text():
    page = (
        "# HELP orders Orders.\n# TYPE orders counter\n# UNIT orders things\n"
        'orders_total{a="b"} 5 1712345678.901 # {trace_id="x"} 1\norders_created 1712345678\n'
        "# TYPE build info\nbuild_info 1\n# TYPE mood stateset\nmood 1\n# TYPE odd unknown\nodd 1\n"
        "# TYPE big gaugehistogram\nbig_gcount 1\n# EOF\n"
    )

    kept = keep(page, openmetrics=True, renamed=merge.renamed(page.encode()))

    assert kept == (
        "# HELP orders_total Orders.\n# TYPE orders_total counter\n"
        'orders_total{a="b"} 5 1712345678901\norders_created 1712345678\n'
        "# TYPE build_info gauge\nbuild_info 1\n# TYPE mood gauge\nmood 1\n# TYPE odd untyped\nodd 1\n"
        "# TYPE big untyped\nbig_gcount 1\n"
    )


def test_a_family_of_ours_in_openmetrics_is_left_out():
    page = "# HELP http_requests Theirs.\n# TYPE http_requests counter\nhttp_requests_total 1\n# EOF\n"

    assert keep(page, openmetrics=True, renamed=merge.renamed(page.encode())) == ""


def test_names_asked_for_hold_for_the_application_too():
    page = "# TYPE a summary\na_sum 1\na_count 2\n# TYPE b gauge\nb 3\n# TYPE c_total counter\nc_total 4\n"

    assert keep(page, wanted={"a"}) == "# TYPE a summary\na_sum 1\na_count 2\n"
    assert keep(page, wanted={"a_count"}) == "# TYPE a summary\na_count 2\n"
    assert keep(page, wanted={"c_total"}) == "# TYPE c_total counter\nc_total 4\n"
    assert keep(page, wanted={"nothing"}) == ""


HOSTILE = {
    "exemplars": """'a{b="' + " # {" * 100_000""",
    "labels": """"a{" + 'b="c",' * 100_000""",
    "name": """"a" * 600_000""",
    "timestamp": """"a 1 " + "1" * 600_000""",
    "value": """"a " + "1" * 4000""",
    "spaces": """"a 1" + " " * 600_000 + "x\"""",
    "comment": """"#" + " " * 600_000 + "HELP\"""",
    "help": """"# HELP " + "a" * 600_000 + chr(0)""",
    "backslashes": """'a{b="' + chr(92) * 600_000""",
}
ONE_PASS = """
import sys
from sidecar.merge import Filter
print(len(Filter(frozenset()).keep((eval(sys.argv[1]) + "\\n").encode())))
"""


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_line_costs_one_pass(line):
    """A second at most; what goes over it again and again takes an hour, and no thread can end a regular expression."""
    done = subprocess.run([sys.executable, "-c", ONE_PASS, line], capture_output=True, timeout=100, check=True)

    assert int(done.stdout) in (0, len(eval(line)) + 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 5.0),
        ("10", 5.0),
        ("5.2", 4.7),
        ("3", 2.5),
        ("1", 0.5),
        ("0.4", 0.2),
        ("0", 5.0),
        ("-1", 5.0),
        ("nan", 5.0),
        ("inf", 5.0),
        ("soon", 5.0),
        ("", 5.0),
    ],
)
def test_the_application_gets_the_scrapers_time_less_a_margin(header, seconds):
    assert merge.deadline(header) == pytest.approx(seconds)


def test_everything_a_family_of_ours_is_made_of_is_ours():
    assert merge.owned(OURS) >= {"http_requests", "http_requests_total", "http_request_duration_seconds_bucket"}
    assert merge.owned(b"") == set()
