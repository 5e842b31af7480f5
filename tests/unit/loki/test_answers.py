"""Every answer of Loki has one meaning."""

from __future__ import annotations

import pytest

from sidecar.loki import answers
from sidecar.loki.answers import Fault, Kind, Missing

STREAM = '{service_name="api"}'
TOO_OLD = f"entry for stream '{STREAM}' has timestamp too old: 2026-11-15T00:00:00Z, oldest acceptable timestamp is: 2026-11-18T02:00:00Z"
TOO_NEW = f"entry for stream '{STREAM}' has timestamp too new: 2026-11-25T03:00:00Z"
TOO_LONG = (
    f"Max entry size '262144' bytes exceeded for stream '{STREAM}' while adding an entry with length '300000' bytes"
)
LATE = (
    "entry with timestamp 2026-11-25 01:00:00.5 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: "
    "2026-11-25T01:00:00Z, oldest acceptable timestamp is: 2026-11-25T02:00:00Z',\n"
    f"user 'fake', total ignored: 7 out of 12 for stream: {STREAM}"
)
RATE = (
    "Ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '10' lines "
    "totaling '{}' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased"
)


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (204, "", Kind.STORED, ""),
        (200, "ok", Kind.STORED, ""),
        (202, "", Kind.RETRY, "unknown"),
        (260, "whatever", Kind.RETRY, "blocked"),
        (260, "ingestion blocked for user x until '…'", Kind.RETRY, "blocked"),
        (400, "ingestion blocked for user x until '…'", Kind.RETRY, "blocked"),
        (302, "", Kind.RETRY, "redirect"),
        (308, "", Kind.RETRY, "redirect"),
        (400, TOO_OLD, Kind.PARTLY, "too_old"),
        (400, LATE, Kind.PARTLY, "too_far_behind"),
        (400, TOO_NEW, Kind.PARTLY, "too_new"),
        (400, TOO_LONG, Kind.PARTLY, "line_too_long"),
        (400, f"stream '{STREAM}' has label name too long: 'x'", Kind.RELABEL, "labels"),
        (400, f"entry for stream '{STREAM}' has 16 label names; limit 15", Kind.RELABEL, "labels"),
        (400, f"missing required labels cluster for user x for stream {STREAM}", Kind.RELABEL, "labels"),
        (400, "couldn't parse labels: 1:2: parse error", Kind.RELABEL, "labels"),
        (400, "loghttp.PushRequest.Streams: [] unexpected", Kind.BISECT, "malformed"),
        (400, "snappy: corrupt input", Kind.BISECT, "malformed"),
        (400, "mime: no media type", Kind.BISECT, "malformed"),
        (400, "", Kind.BISECT, "malformed"),
        (400, "multiple org IDs present", Kind.RETRY, "credentials"),
        (401, "no org id", Kind.RETRY, "credentials"),
        (403, "", Kind.RETRY, "credentials"),
        (404, "404 page not found", Kind.RETRY, "not_found"),
        (408, "", Kind.RETRY, "timeout"),
        (409, "", Kind.BISECT, "rejected"),
        (413, "<html>Request Entity Too Large", Kind.DIVIDE, "too_large"),
        (422, "error at least one valid stream is required for ingestion", Kind.BISECT, "malformed"),
        (429, RATE.format(1000), Kind.RETRY, "rate_limited"),
        (429, RATE.format(7_000_000), Kind.DIVIDE, "too_large"),
        (429, "Maximum active stream limit exceeded when trying to create stream", Kind.RETRY, "stream_limited"),
        (429, "entry with timestamp … reason: 'Per stream rate limit exceeded", Kind.RETRY, "stream_rate_limited"),
        (429, "slow down", Kind.RETRY, "rate_limited"),
        (500, "empty ring", Kind.RETRY, "server_error"),
        (500, "label name is empty", Kind.PLAIN, "metadata"),
        (500, 'normalization for label name "-" resulted in invalid name "_"', Kind.PLAIN, "metadata"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)",
            Kind.DIVIDE,
            "too_large",
        ),
        (502, "<html>", Kind.RETRY, "server_error"),
        (503, "", Kind.RETRY, "server_error"),
        (599, "", Kind.RETRY, "server_error"),
    ],
)
def test_status_and_body_decide_together(status, body, kind, reason):
    answer = answers.read(status, body + "\n")

    assert (answer.kind, answer.reason) == (kind, reason)
    assert kind is Kind.STORED or str(status) in answer.detail


def test_every_status_has_a_meaning_and_only_two_mean_stored():
    assert [code for code in range(200, 600) if answers.read(code, "").kind is Kind.STORED] == [200, 204]


@pytest.mark.parametrize("body", ["Per stream rate limit exceeded", "maximum active stream limit exceeded"])
def test_some_limits_concern_one_stream_only(body):
    assert answers.read(429, body).stream_only
    assert not answers.read(429, "ingestion rate limit exceeded").stream_only


def test_one_message_stands_for_one_entry():
    assert answers.read(400, TOO_OLD).missing == (Missing(Fault.TOO_OLD, 1, 1794967200),)


def test_grouped_messages_are_counted():
    body = f"3 errors like: {TOO_OLD}; 1 errors like: {TOO_LONG}; 12 errors like: {TOO_NEW}"

    assert answers.read(400, body).missing == (
        Missing(Fault.TOO_OLD, 3, 1794967200),
        Missing(Fault.LONG_LINE, 1, 262144),
        Missing(Fault.TOO_NEW, 12),
    )


def test_messages_that_name_different_times_add_up():
    other = TOO_OLD.replace("2026-11-15", "2026-11-16")
    body = f"3 errors like: {TOO_OLD}; 4 errors like: {other}; 1 errors like: {TOO_NEW}"

    assert answers.read(400, body).missing == (
        Missing(Fault.TOO_OLD, 7, 1794967200),
        Missing(Fault.TOO_NEW, 1),
    )


def test_one_message_that_is_not_understood_makes_the_whole_answer_so():
    assert answers.read(400, f"3 errors like: {TOO_OLD}; 2 errors like: something new").kind is Kind.BISECT


def test_an_ingester_says_how_many_of_how_many():
    assert answers.read(400, LATE).missing == (Missing(Fault.TOO_FAR_BEHIND, 7, 1795572000, 12),)


def test_a_label_cannot_pretend_to_be_a_count():
    label = '{service_name="total ignored: 1 out of 1"}'
    body = LATE.replace(STREAM, label).replace("total ignored: 7", "total ignored: 7")

    assert answers.read(400, body).missing[0].arrived in (12, 1)


@pytest.mark.parametrize(
    ("header", "after"),
    [
        ("", None),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("soon", None),
        ("-5", None),
        ("Wed, 25 Nov 2026 02:00:30 GMT", 30.0),
        ("Wed, 25 Nov 2026 01:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, after):
    assert answers.read(503, "", retry_after=header, now=1795572000.0).after == after


def test_the_date_header_tells_the_skew():
    assert answers.skew("Wed, 25 Nov 2026 02:01:00 GMT", 1795572000.0) == 60.0
    assert answers.skew("", 0) is None
    assert answers.skew("yesterday", 0) is None


def test_a_long_body_is_shortened_for_the_log():
    assert len(answers.read(500, "x" * 100_000).detail) <= 500
