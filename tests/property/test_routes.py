"""Laws of route labels: a plain search through all templates is the oracle."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar import routes

words = st.sampled_from(["a", "b", "orders", "v1"])
segments = st.one_of(words, st.sampled_from([":x", ":id", "v:version"]))
templates = st.builds(
    lambda parts, wild: "/" + "/".join([*parts, *(["*rest"] if wild else [])]),
    st.lists(segments, max_size=4),
    st.booleans(),
)
paths = st.lists(st.one_of(words, st.sampled_from(["", "7", "v2", "v", "x.y"])), max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)


def pattern(template: str) -> re.Pattern[str]:
    parts = []
    for segment in template[1:].split("/"):
        if segment.startswith("*"):
            parts.append(".*")
        else:
            before, colon, _ = segment.partition(":")
            parts.append(re.escape(before) + ("[^/]+" if colon else ""))
    return re.compile("/" + "/".join(parts), re.DOTALL)


def preference(template: str) -> list[tuple[int, int]]:
    """Return what Gin prefers, segment by segment: text, then a parameter behind the longest text, then the rest."""
    order = []
    for segment in template[1:].split("/"):
        before, colon, _ = segment.partition(":")
        order.append((2, 0) if segment.startswith("*") else (1, -len(before)) if colon else (0, 0))
    return order


def shape(template: str) -> str:
    """Return the template without the names of its parameters: what Gin holds for the same route."""
    return re.sub(r"[:*][^/]+", lambda match: match[0][0], template)


@given(st.lists(templates, max_size=8), paths)
@settings(max_examples=200)
def test_the_table_finds_what_a_search_through_all_templates_prefers(known: list[str], path: str) -> None:
    table = routes.Table()
    distinct: dict[str, str] = {}
    for template in known:
        assert table.learn("GET", template) == (shape(template) not in distinct)
        distinct.setdefault(shape(template), template)

    found = table.label("GET", "", path, 200)

    matching = [template for template in distinct.values() if pattern(template).fullmatch(path)]
    if matching:
        assert found == ("GET", min(matching, key=preference), True)
    else:
        assert not found[2]


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.sampled_from([200, 301, 404, 405, 500]))
@example("GET", "", "*", 405)
@settings(max_examples=200)
def test_a_label_is_short_printable_and_free_of_queries(method: str, route: str, path: str, status: int) -> None:
    table = routes.Table(["GET /orders/:id"])

    for _ in range(2):  # the second time from the cache
        label_of_method, label_of_path, known = table.label(method, route, path, status)

        assert label_of_method in routes.METHODS | {"_OTHER"}
        assert 0 < len(label_of_path) <= 256
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", label_of_path)
        looks_like_a_template = "/:" in f"/{path}" or "/*" in f"/{path}"
        assert known or status not in (404, 405) or label_of_path == "unmatched" or looks_like_a_template


@given(st.text(max_size=60).map("/".__add__))
def test_the_heuristic_label_of_a_heuristic_label_is_itself(path: str) -> None:
    table = routes.Table()
    label = table.label("GET", "", path, 200)[1]

    assert table.label("GET", "", label, 200)[1] == label
