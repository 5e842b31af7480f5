"""Streams are few, and Loki takes their labels."""

from __future__ import annotations

import re

import pytest

from sidecar.loki import streams
from sidecar.loki.streams import Streams


def test_a_stream_is_told_by_service_and_validity():
    known = Streams({"namespace": "shop", "pod": "p-1", "container": "app", "environment": "prod", "team": "a"})

    assert known.of("orders", valid=True).labels == {
        "service_name": "orders",
        "namespace": "shop",
        "pod": "p-1",
        "container": "app",
        "environment": "prod",
        "team": "a",
        "schema_valid": "true",
    }
    assert known.of("orders", valid=False).labels["schema_valid"] == "false"
    assert known.of("orders", valid=True) is known.of("orders", valid=True)


def test_empty_values_are_left_out_and_a_service_name_is_always_there():
    stream = Streams({"pod": "", "namespace": "n"}).of("", valid=True)

    assert stream.labels == {"service_name": "unknown_service", "namespace": "n", "schema_valid": "true"}


def test_values_are_cut_between_characters():
    stream = Streams({"pod": "é" * 2000}).of("日" * 1000, valid=True)

    assert len(stream.labels["pod"].encode()) == 2048
    assert len(stream.labels["service_name"].encode()) <= 2048
    assert stream.labels["service_name"] == "日" * 682


def test_lone_surrogates_become_valid_text():
    stream = Streams({"pod": "a\udcff"}).of("b\ud800", valid=True)

    assert (stream.labels["pod"], stream.labels["service_name"]) == ("a?", "b?")


def test_services_beyond_the_cap_share_a_marked_stream():
    known = Streams({}, max_services=3)
    made = {known.of(f"s{n}", valid=True, count=2).key for n in range(10)}

    assert len(made) == 4
    assert known.of("s9", valid=True).overflow
    assert known.of("s9", valid=True).labels["overflow"] == "true"
    assert not known.of("s0", valid=True).overflow
    assert known.overflowed == 16


def test_replay_and_reduced_streams_are_streams_of_their_own():
    known = Streams({"pod": "p", "team": "x", "long": "y" * 500})
    stream = known.of("orders", valid=True)

    assert known.replay(stream).labels == {**stream.labels, "replay": "1"}
    assert known.replay(stream).replay
    assert known.reduced(stream).labels == {"service_name": "orders", "pod": "p", "schema_valid": "true"}
    assert len({stream.key, known.replay(stream).key, known.reduced(stream).key}) == 3


def test_the_key_is_a_selector():
    stream = Streams({"pod": 'quo"te\n\\'}).of("é", valid=True)

    assert stream.key == '{pod="quo\\"te\\n\\\\", schema_valid="true", service_name="é"}'


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"a-b": "x"}, "letters, digits"),
        ({"__x": "y"}, "letters, digits"),
        ({"9a": "y"}, "letters, digits"),
        ({"a": ""}, "empty"),
        ({"service_name": "x"}, "itself"),
        ({"schema_valid": "x"}, "itself"),
        ({"namespace": "payments"}, "itself, from POD_NAMESPACE"),
        ({"pod": "x"}, "POD_NAME"),
        ({"container": "x"}, "CONTAINER_NAME"),
        ({"environment": "x"}, "from environment"),
        ({f"l{n}": "x" for n in range(9)}, "9 labels"),
    ],
)
def test_labels_that_loki_would_refuse_are_told_at_the_start(labels, words):
    (problem,) = streams.problems(labels)

    assert re.search(words, problem)


def test_what_tells_streams_apart_cannot_be_overridden():
    taken = ("service_name", "schema_valid", "replay", "overflow")
    stream = streams.Streams({"team": "a", **dict.fromkeys(taken, "x")}).of("orders", valid=True)

    assert stream.labels == {"service_name": "orders", "team": "a", "schema_valid": "true"}


def test_good_labels_are_no_problem():
    assert streams.problems({"team": "a", "_x": "b", "Region": "é"}) == []
