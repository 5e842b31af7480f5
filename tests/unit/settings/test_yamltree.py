"""YAML arrives as it is written, with lines, or as flaws with lines."""

import pytest

from sidecar.settings import yamltree


def plain(node):
    match node.value:
        case list():
            return [plain(item) for item in node.value]
        case dict():
            return {key: plain(item) for key, item in node.value.items()}
        case _:
            return node.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ('a: ""', {"a": ""}),
        ('a: "null"', {"a": "null"}),
        ("a: no", {"a": "no"}),
        ("a: 0123", {"a": "0123"}),
        ("a: 1.10", {"a": "1.10"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("on: {a: 1}", {"on": {"a": "1"}}),
        ("a: [1, x]", {"a": ["1", "x"]}),
        ("a: &x [1]\nb: *x", {"a": ["1"], "b": ["1"]}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": "1", "c": "2"}, "d": {"b": "1", "c": "3"}}),
        ("a: &x {b: 1}\nc: {<<: [*x, {b: 2, d: 3}]}", {"a": {"b": "1"}, "c": {"b": "1", "d": "3"}}),
    ],
)
def test_scalars_arrive_as_they_are_written(text, said):
    node, flaws = yamltree.parse(text)

    assert plain(node) == said
    assert flaws == []


@pytest.mark.parametrize(
    ("text", "line", "flaw"),
    [
        ("a:\n\tb: 1", 2, "a tab cannot indent; use spaces"),
        ("a: 1\nb: 2\na: 3", 3, '"a" stands here and on line 1'),
        ("a: 1\n---\nb: 2", 2, "not YAML: but found another document"),
        ("a: [1", 1, "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", 1, "not YAML: mapping values are not allowed here"),
        ("a: *x", 1, "not YAML: found undefined alias 'x'"),
        ("a:\n  b: !!python/object:os.system x", 2, "the tag !!python/object:os.system has no meaning here"),
        ("a: !!binary aGk=", 1, "the tag !!binary has no meaning here"),
        ("? [a]\n: 1", 1, "a key must be text"),
        ("a: &a {b: *a}", 1, "an alias refers to what it is part of"),
        ("a: {<<: 5}", 1, "<< merges mappings only"),
        ("a\nb\x00", 2, "not YAML: character '\\x00'"),
        ("[" * 1000, 1, "nested too deeply"),
    ],
)
def test_what_is_not_plain_yaml_is_a_flaw_on_its_line(text, line, flaw):
    _, flaws = yamltree.parse(text)

    assert yamltree.Flaw(flaw, line) in flaws


def test_a_node_knows_the_line_of_its_key():
    node, _ = yamltree.parse("a:\n  b:\n    - 1\n    - 2\n")

    inner = node.value["a"].value["b"]
    assert (node.value["a"].line, inner.line, [item.line for item in inner.value]) == (1, 2, [3, 4])


def test_aliases_of_aliases_cost_nothing():
    """The billion laughs: 9 levels of 9 aliases are 387 million scalars when written out."""
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]

    _, flaws = yamltree.parse("\n".join(levels))

    assert flaws == []
