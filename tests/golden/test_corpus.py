"""What real programs printed, section by section: requests and durations equal a second, independent reading.

The second reading knows nothing of our formats: it finds `latency` or the third column of a `[GIN]` line by a regular
expression, and the table below says in which unit each program wrote it.
"""

from __future__ import annotations

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support import golden

CORPUS = Path(__file__).parent / "corpus"
PER_MS = {"ns": Decimal("1e-6"), "ms": Decimal(1), "s": Decimal(1000), "µs": Decimal("1e-3")}
UNITS = {
    "ginzap prod": "s",
    "ginzap prod notime": "s",
    "ginzap dev": "go",
    "ginzap millis/nanos/color": "ns",
    "ginzap nil dur enc": "ns",
    "RecoveryWithZap": "s",  # its second half is a console line with a Go duration
    "gcl default": "ms",
    "gcl utc": "ms",
    "gcl json": "ms",
    "gcl json unix": "ms",
    "gcl json unixms int": "ms",
    "gcl json dur string": "go",
    "gcl json dur s": "ms",  # written in seconds by an option that no line tells of: a known limit
    "gcs default": "go",
    "gcs json": "ns",
    "gin-logrus json": "ms",
    "gin-logrus text": "ms",
    "gin-logrus color": "ms",
    "json": "ns",
    "json ua": "ns",
    "text": "go",
    "json grouped": "ns",
}
_LATENCY = re.compile(r'(?<![\w.])(?:response\.)?latency(?:"?\s?[:=]\s?"?)(-?[0-9.]+(?:e-?\d+)?)(ns|µs|ms|s)?')
_STATUS = re.compile(r'(?<![\w.])(?:response\.)?(?:status|statusCode)(?:"?\s?[:=]\s?)(\d{3})\b')
_GIN = re.compile(r"^\[GIN\] [^|]*\|\s*(\d{3})\s*\|\s*(-?)((?:\d+h)?(?:\d+m(?!s))?)([0-9.]*)(ns|µs|ms|s)\s*\|")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def sections(name):
    """Return (caption, lines) of a corpus file; what stands before the first caption has the caption ""."""
    found = [("", [])]
    for row in (CORPUS / name).read_bytes().split(b"\n"):
        if row.startswith(b"###"):
            found.append((row.strip(b"# ").decode(), []))
        else:
            found[-1][1].append(row)
    return [(caption, rows) for caption, rows in found if any(row.strip() for row in rows)]


def second_reading(rows, unit):
    """Count (status) and sum milliseconds of the access lines, each error list of a request once."""
    statuses, total = Counter(), Decimal(0)
    before = None
    for row in rows:
        text = _ANSI.sub("", row.decode())
        latency, status = _LATENCY.search(text), _STATUS.search(text)
        if not latency or not status:
            continue
        written = (latency[1], status[1])
        if '"second"' in text or "\tsecond\t" in text:
            assert written == before, "a second error of the request before"
            continue
        before = written
        statuses[int(status[1])] += 1
        total += Decimal(latency[1]) * PER_MS[latency[2] or unit]
    return statuses, total


def ours(rows):
    """Count (status) and sum milliseconds of what we make of the same lines."""
    statuses, total = Counter(), Decimal(0)
    using = golden.normalizer()
    result = using.normalize(golden.assemble(rows))
    for (_, _, _, status), group in result.requests.items():
        statuses[status] += len(group.durations) + group.unmeasured
        total += sum((Decimal(repr(float(duration))) for duration in group.durations), Decimal(0))
    return statuses, total, result


CASES = [
    (name, caption, rows)
    for name in ("structured.txt", "slog.txt")
    for caption, rows in sections(name)
    if caption in UNITS
]


@pytest.mark.parametrize(("name", "caption", "rows"), CASES, ids=[f"{name}:{caption}" for name, caption, _ in CASES])
def test_requests_and_durations_equal_a_second_reading(name, caption, rows):
    statuses, total = second_reading(rows, UNITS[caption])

    counted, sum_ms, _ = ours(rows)

    if caption == "RecoveryWithZap":
        statuses = Counter(
            {status: number // 2 for status, number in statuses.items()}
        )  # two formats, one request each
        assert counted == statuses
        return
    assert statuses.total() >= 2
    assert counted == statuses
    assert abs(sum_ms - total) <= Decimal("1e-9")


def test_every_section_with_access_lines_is_in_the_table():
    for name in ("structured.txt", "slog.txt"):
        for caption, rows in sections(name):
            if second_reading(rows, "ms")[0].total() >= 2:
                assert caption in UNITS or caption == "ginzap iso", caption


def test_whole_milliseconds_of_six_lines_are_counted_and_not_guessed():
    rows = dict(sections("structured.txt"))["ginzap iso"]

    counted, sum_ms, result = ours(rows)

    assert counted == Counter({200: 1, 404: 2, 500: 1, 204: 1})
    assert sum_ms == 0
    assert result.deduplicated == 1


@pytest.mark.parametrize("name", ["text-v1.9.1.txt", "text-v1.12.0.txt"])
def test_gins_text_keeps_of_a_duration_what_it_can(name):
    """The corpus says before each line how many nanoseconds the program had measured."""
    rows = [
        row.split(b"[GIN]", 1)
        for row in (CORPUS / name).read_bytes().split(b"\n")
        if re.match(rb"-?\d+\s+\[GIN\]", row)
    ]
    assert len(rows) == 19

    for exact, line in rows:
        _, sum_ms, result = ours([b"[GIN]" + line])

        if int(exact) < 0:
            assert result.rejected == {"negative": 1}
            continue
        milliseconds = Decimal(int(exact)) / 1_000_000
        coarse = {"text-v1.9.1.txt": (Decimal(60_000), 1000), "text-v1.12.0.txt": (Decimal(60_000), 10_000)}[name]
        allowed = coarse[1] if milliseconds > coarse[0] else milliseconds / 100
        assert milliseconds - allowed <= sum_ms <= milliseconds


def test_debug_text_and_recovery_count_every_request_once():
    rows = [row for _, lines in sections("debug+recovery-v1.12.0.txt") for row in lines]
    expected, total = Counter(), Decimal(0)
    for row in rows:
        match = _GIN.match(row.decode())
        if match:
            expected[int(match[1])] += 1
            total += Decimal(match[4]) * PER_MS[match[5]]

    counted, sum_ms, result = ours(rows)

    assert expected.total() == 14
    assert counted == expected
    assert sum_ms == total
    assert result.formats["gin_recovery"] == 5
    assert len(result.routes) == 20


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*.txt")))
def test_every_line_of_the_corpus_is_accounted_for(name):
    rows = (CORPUS / name).read_bytes().split(b"\n")[:-1]

    lines = golden.assemble(rows)
    result = golden.normalizer().normalize(lines)

    assert len(rows) == len(result.records) + lines.joined + lines.blank
    assert result.outcomes.total() == len(result.records)
