"""A stream is cut into documents and put together again without a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.injector import yamlstream

PIECES = st.sampled_from(
    ["a: 1\n", "---\n", "--- # x\n", "---", "...\n", "# c\n", "%YAML 1.1\n", "\n", "  ---\n", "b: |\n  x\n", "\r\n"]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_documents_are_the_stream(stream):
    documents = yamlstream.split(stream)

    assert "".join(document.text for document in documents) == stream
    line = 1
    for document in documents:
        assert document.line == line
        line += document.text.count("\n")


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        ("a: 1\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("---\na: 1\n--- {b: 2}\n", 2),
        ("a: |\n  ---\n  x\n", 1),
        ("%YAML 1.1\n---\na: 1\n", 1),
    ],
)
def test_three_dashes_in_column_one_begin_a_document(stream, count):
    assert len(yamlstream.split(stream)) == count


@pytest.mark.parametrize(
    "text", ["y", "on", "1e3", "0o17", "1:30", "null", "~", "true", "10", "a: b", "- a", "#", "", "a\nb", "ü"]
)
def test_text_of_ours_is_text_for_every_reader(text):
    written = yamlstream.dump({"key": text})

    value = written.removeprefix("---\nkey: ").rstrip("\n")
    assert value[0] in "\"'", "quoted, so that no version of YAML reads anything else"
