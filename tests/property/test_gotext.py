"""Laws of Go's textual forms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sidecar import gotext, times
from sidecar.times import Stamp

DIGITS = st.integers(0, 9)
NS = st.integers(-62_167_219_200 * 10**9, 253_402_300_799 * 10**9)


@given(ns=NS, digits=DIGITS)
def test_what_is_written_is_read_back(ns, digits):
    ns -= ns % 10 ** (9 - digits)

    assert times.rfc3339(times.format_time(Stamp(ns, digits))) == Stamp(ns, digits)


@given(
    when=st.datetimes().filter(lambda when: 1 < when.year < 9999),
    offset=st.integers(-1439, 1439),
)
def test_it_agrees_with_the_standard_library(when, offset):
    sign = "-" if offset < 0 else "+"
    text = (
        f"{when:%Y-%m-%dT%H:%M:%S}".zfill(19)
        + f".{when.microsecond:06d}{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    )
    expected = (when.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC) - timedelta(minutes=offset)) // timedelta(
        microseconds=1
    )

    assert times.rfc3339(text) == Stamp(expected * 1000, 6)


@given(
    texts=st.lists(
        st.one_of(NS.map(lambda ns: times.format_time(Stamp(ns, 6))), st.text(max_size=40), st.datetimes().map(str)),
        min_size=1,
        max_size=20,
    )
)
def test_a_column_says_what_each_text_says(texts):
    each = [times.rfc3339(text) for text in texts]

    assert times.rfc3339_column(texts) == (None if None in each else [stamp.ns for stamp in each])


@given(texts=st.lists(st.tuples(NS, DIGITS).map(lambda pair: times.format_time(Stamp(*pair))), min_size=1, max_size=20))
def test_a_column_of_times_is_read_whole(texts):
    assert times.rfc3339_column(texts) == [times.rfc3339(text).ns for text in texts]


def _go_duration(ns: int) -> str:
    """Write as time.Duration.String does."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < 10**9:
        for unit, scale in (("ms", 10**6), ("µs", 10**3)):
            if ns >= scale:
                return f"{sign}{_trim(ns, scale)}{unit}"
        return f"{sign}{ns}ns" if ns else "0s"
    minutes, rest = divmod(ns, 60 * 10**9)
    text = f"{_trim(rest, 10**9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = (f"{hours}h" if hours else "") + f"{minutes}m{text}"
    return sign + text


def _trim(value: int, scale: int) -> str:
    whole, part = divmod(value, scale)
    return f"{whole}.{str(part).zfill(len(str(scale)) - 1).rstrip('0')}" if part else str(whole)


@given(ns=st.integers(-(2**63), 2**63 - 1))
def test_every_duration_go_prints_is_read_back(ns):
    assert gotext.duration_ns(_go_duration(ns)) == ns


@given(value=st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_nothing_raises(value):
    times.timestamp(value)
    gotext.level(value)
    if isinstance(value, str):
        gotext.duration_ns(value)
        gotext.unquote(value)
        gotext.logfmt(value)
        gotext.strip_ansi(value)


@given(
    pairs=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True),
        st.text(st.characters(codec="utf-8"), max_size=20),
        min_size=1,
        max_size=6,
    )
)
def test_logfmt_with_quoted_values_is_read_back(pairs):
    def quote(text: str) -> str:
        return (
            '"'
            + "".join(
                c if c.isprintable() and c not in '"\\' else "".join(f"\\x{b:02x}" for b in c.encode()) for c in text
            )
            + '"'
        )

    assert gotext.logfmt(" ".join(f"{key}={quote(value)}" for key, value in pairs.items())) == pairs
