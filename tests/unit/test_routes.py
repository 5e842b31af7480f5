"""What a request's labels are."""

from __future__ import annotations

import pytest

from sidecar import routes

GIN_DEBUG = [
    ("GET", "/ping"),
    ("GET", "/orders/:id"),
    ("HEAD", "/ping"),
    ("GET", "/orders/:id/items/:item"),
    ("GET", "/orders/search"),
    ("GET", "/any/*rest"),
    ("POST", "/any/*rest"),
    ("GET", "/files/v:version"),
    ("GET", "/v1/orders\\:batch"),
    ("GET", "/"),
]


@pytest.fixture
def learned() -> routes.Table:
    table = routes.Table()
    for method, template in GIN_DEBUG:
        assert table.learn(method, template)
    return table


def path_of(table: routes.Table, path: str, *, method: str = "GET", route: str = "", status: int = 200) -> str:
    return table.label(method, route, path, status)[1]


def test_the_route_a_line_names_wins_over_everything() -> None:
    table = routes.Table(["GET /orders/:id"])

    assert table.label("GET", "/v2/orders/:order", "/orders/42", 404) == ("GET", "/v2/orders/:order", True)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/ping", "/ping"),
        ("/", "/"),
        ("/orders/42", "/orders/:id"),
        ("/orders/search", "/orders/search"),
        ("/orders/42/items/7", "/orders/:id/items/:item"),
        ("/orders/search/items/7", "/orders/:id/items/:item"),
        ("/any/", "/any/*rest"),
        ("/any/a/b/c", "/any/*rest"),
        ("/any/" + "a/" * 1000, "/any/*rest"),
        ("/files/v12", "/files/v:version"),
        ("/v1/orders:batch", "/v1/orders\\:batch"),
        ("/orders/42?full=1", "/orders/:id"),
        ("/orders/42#top", "/orders/:id"),
        ("http://shop.example/orders/42", "/orders/:id"),
    ],
)
def test_rule_26_a_learned_path_has_the_template_gin_would_choose(
    learned: routes.Table, path: str, template: str
) -> None:
    assert learned.label("GET", "", path, 200) == ("GET", template, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/orders/"), ("GET", "/orders"), ("GET", "/any"), ("GET", "/files/v"), ("DELETE", "/ping")],
)
def test_what_gin_would_not_match_is_not_a_known_route(learned: routes.Table, method: str, path: str) -> None:
    assert not learned.label(method, "", path, 200)[2]


def test_a_configured_route_without_a_method_is_for_every_method() -> None:
    table = routes.Table(["/orders/:id", "POST /orders/:key"])

    assert path_of(table, "/orders/1", method="DELETE") == "/orders/:id"
    assert path_of(table, "/orders/1", method="POST") == "/orders/:key"


@pytest.mark.parametrize("text", ["", "orders", "GET", "GET orders", "GET /a /b", "G3T /a"])
def test_a_configured_route_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a route such as"):
        routes.Table([text])


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("path", ["/wp-login.php", "/orders/42/x?y=1", ""])
def test_rule_25_a_404_or_405_without_a_route_is_unmatched(status: int, path: str) -> None:
    assert routes.Table().label("GET", "", path, status) == ("GET", "unmatched", False)


def test_rule_25_a_404_of_a_known_route_keeps_it(learned: routes.Table) -> None:
    assert path_of(learned, "/orders/42", status=404) == "/orders/:id"
    assert path_of(learned, "/x", route="/orders/:id", status=404) == "/orders/:id"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/orders/42", "/orders/:id"),
        ("/orders/42/items/7/", "/orders/:id/items/:id/"),
        ("/u/550e8400-e29b-41d4-a716-446655440000/x", "/u/:id/x"),
        ("/u/550E8400-E29B-41D4-A716-446655440000", "/u/:id"),
        ("/c/0af7651916cd43dd", "/c/:id"),
        ("/c/0af7651916cd43d", "/c/0af7651916cd43d"),
        ("/o/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/o/:id"),
        ("/blob/" + "x" * 49, "/blob/:id"),
        ("/blob/" + "x" * 48, "/blob/" + "x" * 48),
        ("/v1/orders", "/v1/orders"),
        ("/a1/b2", "/a1/b2"),
        ("/١٢٣", "/١٢٣"),
        ("orders/42", "/orders/:id"),
        ("*", "*"),
        ("/" + "/".join("abcdefghijklmn"), "/a/b/c/d/e/f/g/h/i/j/k/l/*"),
        ("/" + "/".join("abcdefghijkl"), "/a/b/c/d/e/f/g/h/i/j/k/l"),
        ("", "unmatched"),
        ("?x=1", "unmatched"),
    ],
)
def test_a_path_without_a_route_loses_its_identifiers(path: str, label: str) -> None:
    assert routes.Table().label("GET", "", path, 200) == ("GET", label, False)


@pytest.mark.parametrize("path", ["/orders/:id", "/files/*path"])
@pytest.mark.parametrize("status", [200, 404])
def test_a_template_logged_as_path_is_taken_as_it_stands(path: str, status: int) -> None:
    assert routes.Table().label("GET", "", path, status) == ("GET", path, False)


@pytest.mark.parametrize("secret", ["/login?token=s3cret", "/login#s3cret", "/a/:id?x=s3cret", "/login?a=/:s3cret"])
@pytest.mark.parametrize("status", [200, 404])
def test_rule_25_queries_and_fragments_never_reach_a_label(secret: str, status: int) -> None:
    table = routes.Table(["GET /login"])

    assert "s3cret" not in table.label("GET", "", secret, status)[1]
    assert "s3cret" not in table.label("GET", secret, "", status)[1]


@pytest.mark.parametrize(
    ("method", "label"),
    [("get", "GET"), ("TRACE", "TRACE"), ("PROPFIND", "_OTHER"), ("", "_OTHER"), ("GET ", "_OTHER"), ("ſ", "_OTHER")],
)
def test_rule_27_an_unknown_method_is_other_and_a_known_one_is_in_capitals(method: str, label: str) -> None:
    assert routes.Table().label(method, "", "/x", 200)[0] == label


@pytest.mark.parametrize(
    "value", ["a\nb", "nul\0", "\ud800", "\x9b", "x" * 10_000, 'quo"te', "back\\slash", "é/日本", 7, None, ["list"]]
)
def test_rule_17_no_value_gives_a_label_that_could_fail_a_scrape(value: object) -> None:
    table = routes.Table()

    for label in table.label(value, value, value, 200)[:2] + table.label("GET", "", value, 200)[:2]:  # type: ignore[arg-type]
        assert isinstance(label, str)
        assert 0 < len(label) <= 256
        assert "\0" not in label
        assert "\n" not in label
        label.encode()


def test_what_is_learned_later_changes_what_was_answered_before() -> None:
    table = routes.Table()
    before, version = path_of(table, "/orders/new"), table.version

    table.learn("GET", "/orders/:id")

    assert (before, path_of(table, "/orders/new")) == ("/orders/new", "/orders/:id")
    assert table.version > version


def test_a_template_is_new_only_once() -> None:
    table = routes.Table()

    assert table.learn("GET", "/orders/:id")
    assert not table.learn("get", "/orders/:id")
    assert not table.learn("GET", "/orders/:order")  # the same place in the tree: Gin would refuse it
    assert list(table.templates()) == [("GET", "/orders/:id")]


def test_forged_templates_do_not_grow_the_table_without_end() -> None:
    table = routes.Table()

    learned = sum(table.learn("GET", f"/forged/{number}") for number in range(routes.MOST_TEMPLATES + 100))

    assert learned == routes.MOST_TEMPLATES
    assert not table.learn("GET", "no-slash")
    assert not routes.Table().learn("GET", "/" + "x" * 300)


def test_the_cache_holds_no_more_than_it_may_and_changes_no_answer() -> None:
    table = routes.Table(["GET /orders/:id"])

    for number in range(routes.MOST_CACHED + 500):
        assert path_of(table, f"/orders/{number}") == "/orders/:id"
        assert path_of(table, f"/orders/{number}") == "/orders/:id"

    assert len(table._cache) <= routes.MOST_CACHED


def test_status_decides_between_two_labels_of_one_path() -> None:
    table = routes.Table()

    assert path_of(table, "/x", status=200) == "/x"
    assert path_of(table, "/x", status=404) == "unmatched"
    assert path_of(table, "/x", status=500) == "/x"
