"""Go's textual forms are read exactly."""

from __future__ import annotations

import pytest

from sidecar import gotext


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0s", 0),
        ("0", 0),
        ("81ns", 81),
        ("83.75µs", 83_750),
        ("412.5\u03bcs", 412_500),
        ("1.23ms", 1_230_000),
        ("1.234567891s", 1_234_567_891),
        ("1m0s", 60 * gotext.SECOND),
        ("1h2m5s", 3725 * gotext.SECOND),
        ("-5µs", -5_000),
        ("+3s", 3 * gotext.SECOND),
        (".5s", 500_000_000),
        (" 7ms ", 7_000_000),
    ],
)
def test_a_duration_is_exact_nanoseconds(text, nanoseconds):
    assert gotext.duration_ns(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "5 s", "s", "1.2.3s", "5x", "1s 2s", "٣s", "9" * 100 + "s", "NaN", "1e3s"])
def test_what_is_no_duration_is_none(text):
    assert gotext.duration_ns(text) is None


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        (r'"/x \"q\" é \n \x1b[31m | a"', '/x "q" é \n \x1b[31m | a'),
        (r'"\xc3\xa9"', "é"),
        (r'"\xff"', "\ufffd"),
        (r'"\u00e9\U0001F600"', "é😀"),
        (r'"\U00FFFFFF"', "?"),
        (r'"\a\b\f\r\t\v\\"', "\a\b\f\r\t\v\\"),
        (r'"\q"', r"\q"),
        ('""', ""),
        ("/raw", "/raw"),
        ('"', '"'),
        (r'"\ud800"', "?"),
    ],
)
def test_a_go_quoted_string_is_unquoted(quoted, text):
    assert gotext.unquote(quoted) == text


def test_logfmt_keeps_the_first_of_a_repeated_key():
    pairs = gotext.logfmt('time=2026 level=INFO msg="a \\"b\\"" empty= q="" time=dup')

    assert pairs == {"time": "2026", "level": "INFO", "msg": 'a "b"', "empty": "", "q": ""}


@pytest.mark.parametrize("text", ["", "words only", "a=1 words b=2", 'a="unclosed', "=x"])
def test_what_is_not_only_pairs_is_no_logfmt(text):
    assert gotext.logfmt(text) is None


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("INFO", "info"),
        ("DEBUG-4", "trace"),
        ("DEBUG+2", "debug"),
        ("INFO+2", "info"),
        ("WARN+2", "warn"),
        ("ERROR+4", "fatal"),
        ("dpanic", "error"),
        ("panic", "fatal"),
        ("\x1b[34minfo\x1b[0m", "info"),
        ("[WARNING]", "warn"),
        ("Level(-4)", "trace"),
        ("LEVEL(-1)", "debug"),
        ("warning", "warn"),
        ("notice", "info"),
        ("critical", "fatal"),
        (-4, "debug"),
        (0, "info"),
        (4, "warn"),
        (8, "error"),
        (30, "info"),
        (60, "fatal"),
        ("dup", None),
        ("", None),
        (True, None),
        (7, None),
        (None, None),
        (1.5, None),
    ],
)
def test_levels_of_all_loggers_become_ours(value, level):
    assert gotext.level(value) == level


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (1, "trace"),
        (5, "debug"),
        (9, "info"),
        (13, "warn"),
        (17, "error"),
        (24, "fatal"),
        (0, None),
        (25, None),
        (True, None),
    ],
)
def test_opentelemetry_severity_numbers_become_levels(number, level):
    assert gotext.severity(number) == level
