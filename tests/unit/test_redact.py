"""Secrets do not leave the pod."""

from __future__ import annotations

import pytest

from sidecar.redact import REDACTED, Config, Redactor

REDACTOR = Redactor(Config())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('"/ping?token=abc&x=1"', '"/ping?token=[REDACTED]&x=1"'),
        ("/cb?x=1&access_token=abc.def#f", "/cb?x=1&access_token=[REDACTED]#f"),
        (
            "GET / HTTP/1.1\r\nAuthorization: Bearer abc\r\nCookie: sid=a; t=b\r\nAccept: x",
            "GET / HTTP/1.1\r\nAuthorization: [REDACTED]\r\nCookie: [REDACTED]\r\nAccept: x",
        ),
        ("Set-Cookie: sid=a; Path=/\nnext", "Set-Cookie: [REDACTED]\nnext"),
        ("X-Api-Key: abc123", "X-Api-Key: [REDACTED]"),
        ("proxy-authorization: Basic abc", "proxy-authorization: [REDACTED]"),
        ("password: hunter2, user: bob", "password: [REDACTED], user: bob"),
        ('msg="login" password="a b" api_key=zzz', 'msg="login" password="[REDACTED]" api_key=[REDACTED]'),
        (r"{\"password\":\"x y\",\"a\":1}", r"{\"password\":\"[REDACTED]\",\"a\":1}"),
        ("apiKey: 'abc'", "apiKey: '[REDACTED]'"),
        ("PASSWORD=Abc", "PASSWORD=[REDACTED]"),
        ("żółć Password=abc", "żółć Password=[REDACTED]"),
        ("bearer abcdefgh12345", "bearer [REDACTED]"),
        ("postgres://user:p4ss@db:5432/x", "postgres://user:[REDACTED]@db:5432/x"),
        ("redis://:sekrit@h:6379", "redis://:[REDACTED]@h:6379"),
        ("upstream sent Cookie: lang=en; session=sekrit\nnext", "upstream sent Cookie: [REDACTED]\nnext"),
        ("GET /x?cookie=abc&y=1", "GET /x?cookie=[REDACTED]&y=1"),
        ('sent Authorization: Digest username="bob", response="sekrit"', "sent Authorization: [REDACTED]"),
        ("sent Authorization: Bearer abc.def method=GET", "sent Authorization: [REDACTED] method=GET"),
        (r'{"password":"hun\"ter2","a":1', r'{"password":"[REDACTED]","a":1'),
        (r"password='it\'s secret' a=1", r"password='[REDACTED]' a=1"),
        (r"{\"password\":\"a\\\"b\\\\\",\"c\":1}", r"{\"password\":\"[REDACTED]\",\"c\":1}"),
        (
            "map[Accept:[x] Authorization:[Basic x] X-Api-Key:[sekrit] Cookie:[a=b; c=sekrit]]",
            "map[Accept:[x] Authorization:[REDACTED] X-Api-Key:[REDACTED] Cookie:[REDACTED]]",
        ),
        (
            'http.Header{"Cookie":[]string{"a=sekrit", "b}c"}, "X":[]string{"y"}}',
            'http.Header{"Cookie":[REDACTED], "X":[]string{"y"}}',
        ),
        ('"cookie": ["a=b", "c]d"], "k": 1', '"cookie": [REDACTED], "k": 1'),
        ("\x1b[36mtoken\x1b[0m=abc", "token=[REDACTED]"),
    ],
)
def test_a_secret_in_text_is_hidden_and_nothing_else(text, clean):
    assert REDACTOR.text(text) == clean
    assert REDACTOR.text(clean) == clean
    assert REDACTOR.suspects(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: *",
        "token_count=5",
        "tokens: 9",
        "secretary=bob",
        "the password is wrong",
        "https://a.example/x:y",
        "GET /tokenize?x=1",
        "a secret: ",
        "monkey=1",
    ],
)
def test_what_is_no_secret_stays(text):
    assert REDACTOR.text(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "db_password",
        "accessToken",
        "X-Api-Key",
        "APIKey",
        "Set-Cookie",
        "client.secret",
        "authorization",
        "idToken",
    ],
)
def test_a_sensitive_name_is_known_in_every_spelling(key):
    assert REDACTOR.value({key: "x", "a": 1}) == {key: REDACTED, "a": 1}


@pytest.mark.parametrize("key", ["token_count", "secretName", "passwords_changed", "cookies", "tokenizer", "key"])
def test_a_name_that_only_contains_one_is_not(key):
    assert not REDACTOR.sensitive(key)


def test_nested_values_are_hidden_and_what_is_clean_is_the_same_object():
    value = {
        "headers": {"Authorization": ["Bearer x"], "Accept": "y"},
        "list": [{"token": 5}, "a?secret=1"],
        "clean": {"a": [1]},
    }

    hidden = REDACTOR.value(value)

    assert hidden == {
        "headers": {"Authorization": REDACTED, "Accept": "y"},
        "list": [{"token": REDACTED}, f"a?secret={REDACTED}"],
        "clean": {"a": [1]},
    }
    assert hidden["clean"] is value["clean"]
    assert REDACTOR.value(hidden) is hidden
    assert value["headers"]["Authorization"] == ["Bearer x"]


@pytest.mark.parametrize("empty", [None, "", True, False])
def test_nothing_is_no_secret(empty):
    value = {"password": empty}

    assert REDACTOR.value(value) is value


def test_patterns_of_the_user_hide_what_they_match():
    redactor = Redactor(Config(patterns=[r"\b\d{4}-\d{4}-\d{4}-\d{4}\b"]))

    assert redactor.text("card 1234-5678-9012-3456 ok") == "card [REDACTED] ok"
    assert redactor.may_hide_in([["x"]])


def test_patterns_of_the_user_hide_numbers_too():
    redactor = Redactor(Config(patterns=[r"\b4\d{15}\b"]))
    value = {"card": 4111111111111111, "cents": 1999, "rate": 0.5, "ok": True, "none": None}

    assert redactor.value(value) == value | {"card": REDACTED}


@pytest.mark.parametrize("pattern", [r"\w+", r".+", r"x*", r"[A-Z]+", r"D\]", r"\["])
def test_a_pattern_does_not_hide_what_is_hidden(pattern):
    redactor = Redactor(Config(patterns=[pattern]))

    once = redactor.text("PASSWORD=AbcX [x] password=y EDACT")

    assert redactor.text(once) == once


def test_keys_of_the_user_replace_the_defaults():
    redactor = Redactor(Config(keys=["national_id"]))

    assert redactor.value({"nationalId": "1", "password": "p"}) == {"nationalId": REDACTED, "password": "p"}
    assert redactor.text("national-id=1 token=2") == "national-id=[REDACTED] token=2"


def test_redaction_can_be_switched_off():
    redactor = Redactor(Config(enabled=False))

    assert not redactor.sensitive("password")
    assert not redactor.may_hide_in([["password=x"]])
    assert not redactor.suspects(b"password=x")


@pytest.mark.parametrize(
    "value", ["/orders/1?token=2", "Bearer abcdefgh12345", 'say "password": "x"', {"password": "x"}, ["x"]]
)
def test_a_column_that_may_hold_a_secret_is_looked_at(value):
    assert REDACTOR.may_hide_in([["GET", "GET"], ["/a", value]])


@pytest.mark.parametrize("value", ["/orders/1", "/orders/1?page=2", "curl/8.5.0", "token bucket", 5, None, True, 1.5])
def test_clean_columns_are_told_by_their_texts(value):
    assert not REDACTOR.may_hide_in([["GET", "GET"], ["/a", value]])
