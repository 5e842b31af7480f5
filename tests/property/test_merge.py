"""What is kept of an application's page is a page, whatever it answers."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar import merge, prometheus
from sidecar.merge import Filter

OURS = b"# TYPE a histogram\n# TYPE b_total counter\n# TYPE c gauge\n"
MINE = merge.owned(OURS)

names = st.sampled_from(["a", "a_bucket", "a_sum", "b", "b_total", "b_created", "c", "d", "d_total", "e:f", "9", "g-h"])
values = st.sampled_from(["1", "-0.5e3", "NaN", "+Inf", "1e999", "one", "", "1 1712345678901", "1 1.5", "1 # {} 1"])
labels = st.dictionaries(
    st.sampled_from(["x", "y", "0"]), st.text('aü☂\ud800 \t\\"\n,{}#=\x00', max_size=8), max_size=3
)
noise = st.binary(max_size=30) | st.sampled_from(
    [b"# EOF", b"", b"# HELP", b"# TYPE a gauge", b"# TYPE d counter", b"{}"]
)


@st.composite
def samples(draw):
    inner = ",".join(f'{name}="{value}"' for name, value in draw(labels).items())
    inner += draw(st.sampled_from(["", ",", ',x="1"']))
    line = f"{draw(names)}{{{inner}}} {draw(values)}" if inner else f"{draw(names)} {draw(values)}"
    return line.encode("utf-8", "surrogatepass")


pages = st.lists(noise | samples(), max_size=12).map(b"\n".join)


@settings(max_examples=60, deadline=None)
@given(pages, st.booleans())
def test_what_is_kept_parses_and_holds_nothing_of_ours(page, openmetrics):
    renamed = merge.renamed(page) if openmetrics else None

    kept = Filter(MINE, openmetrics=openmetrics, renamed=renamed).keep(page)

    # The library's parser refuses labels that begin with two underscores; Prometheus takes them.
    readable = "".join(f"{line}\n" for line in kept.split("\n") if "__" not in line)
    families = list(text_string_to_metric_families(readable))
    assert not {sample.name for family in families for sample in family.samples} & MINE
    assert not any(line in {"", "# EOF"} for line in kept.removesuffix("\n").split("\n")) or kept == ""
    assert kept == "" or kept.endswith("\n")


@settings(max_examples=60, deadline=None)
@given(pages)
def test_what_was_kept_is_kept_again_unchanged(page):
    kept = Filter(MINE).keep(page)
    again = Filter(MINE)

    assert again.keep(kept.encode()) == kept
    assert again.malformed == 0


@settings(max_examples=60, deadline=None)
@given(pages, st.data())
def test_where_a_page_is_cut_into_slices_makes_no_difference(page, data):
    ends = [index + 1 for index, byte in enumerate(page) if byte == ord("\n")]
    cut = data.draw(st.sampled_from([0, *ends]))
    whole, halves = Filter(MINE), Filter(MINE)

    assert halves.keep(page[:cut]) + halves.keep(page[cut:]) == whole.keep(page)
    assert halves.malformed == whole.malformed


@settings(max_examples=60, deadline=None)
@given(pages)
def test_a_page_of_our_own_registry_is_never_told_twice(page):
    registry = prometheus.CollectorRegistry()
    prometheus.Counter("b", "Ours.", registry=registry).inc()
    prometheus.Gauge("c", "Ours.", registry=registry)
    ours = prometheus.text(registry)

    merged = ours.decode() + Filter(merge.owned(ours)).keep(page)

    told = [line.split(" ")[2] for line in merged.split("\n") if line.startswith("# TYPE ")]
    assert len(told) == len(set(told))
