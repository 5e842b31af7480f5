"""Redaction is done once, costs time in proportion, and leaves nothing of a secret whose end can be told."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.redact import Config, Redactor

REDACTOR = Redactor(Config())
PIECES = st.sampled_from(
    [
        "password", "token", "Cookie", "set-cookie", "Authorization", "X-Api-Key", "secret", "Bearer", "BASIC", "bearer ", "Digest ",
        "=", ":", ": ", " ", "  ", "\n", "\r\n", "\t", '"', "'", "\\", '\\"', "[", "]", "{", "}", "[]string{", "*", ";", "; ", ",", "&",
        "?", "/", "@", "://", "redis://:", "#", "|", ")", "[REDACTED]", "REDACTED", "a", "lang=en", "abcdefgh12", "\x1b[31m", "\x1b[0m", "ż",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join)


@given(text=TEXTS)
def test_redacting_again_changes_nothing(text):
    once = REDACTOR.text(text)

    assert REDACTOR.text(once) == once


@given(value=st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.dictionaries(TEXTS, inner, max_size=3)))
def test_redacting_a_value_again_changes_nothing(value):
    once = REDACTOR.value(value)

    assert REDACTOR.value(once) is once


QUOTED = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\x1b"), min_size=1)


@given(secret=QUOTED, quote=st.sampled_from(['"', "'"]), name=st.sampled_from(["password", "Cookie", "apiKey"]))
def test_a_quoted_secret_is_hidden_to_its_closing_quote(secret, quote, name):
    written = secret.replace("\\", "\\\\").replace(quote, "\\" + quote)

    for begins, ends in ((f"{name}=", ""), (f"say {quote}{name}{quote}: ", ","), (f"\n{name} = ", " b=c")):
        text = f"{begins}{quote}{written}{quote}{ends}"

        assert REDACTOR.text(text) == f"{begins}{quote}[REDACTED]{quote}{ends}"


@given(secret=QUOTED)
@example(secret=":")
def test_a_quoted_secret_in_a_text_inside_a_text_is_hidden_too(secret):
    def quoted(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def inner(value):
        return f'{{"password":{quoted(value)},"a":1}}'

    assert REDACTOR.text(f"body={quoted(inner(secret))} x") == f"body={quoted(inner('[REDACTED]'))} x"


@example("BEARER\tabcdefgh12345")
@example("Basic\u00a0abcdefgh12345")
@given(TEXTS)
def test_the_sieves_let_through_nothing_that_would_be_hidden(text):
    if REDACTOR.text(text) != text:
        assert REDACTOR.may_hide_in([["GET", text]])
        assert REDACTOR.suspects(orjson.dumps({"message": text}))


@pytest.mark.parametrize(
    "piece",
    [
        'password="', "password=[", 'password={"', 'password=\\"\\\\', "cookie: a=", "authorization: a ", "token", "://a:",
        "bearer ", "basic  ", "-", "password    ", "set-cookie:", "'", '\\"',
    ],
)  # fmt: skip
def test_the_search_is_linear(piece):
    """Were it quadratic, this would take minutes."""
    REDACTOR.text(piece * (400_000 // len(piece)))
