"""The fake Loki answers as a real one was seen to answer: encodings, validation, limits, order, duplicates."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import time
import zlib

import aiohttp
import pytest

from tests.support import fake_loki
from tests.support.fake_loki import FakeLoki, Limits

SECOND = 10**9
NOW = 1_795_000_000 * SECOND


@pytest.fixture
async def loki():
    async with FakeLoki(now_ns=lambda: NOW) as started:
        yield started


@pytest.fixture
async def post(loki):
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def send(body, **headers):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with session.post(
                loki.url + "/loki/api/v1/push", data=body, headers=named, skip_auto_headers=["Content-Type"]
            ) as response:
                return response.status, (await response.text()).rstrip("\n")

        yield send


@pytest.fixture
async def push(post):
    """Push entries of one stream as JSON: (ns, line) or (ns, line, metadata)."""

    async def send(*values, stream=None, headers=None):
        return await push_streams(post, [(stream or {"service_name": "api"}, values)], headers)

    return send


async def push_streams(post, streams, headers=None):
    document = {
        "streams": [
            {"stream": labels, "values": [[str(value[0]), *value[1:]] for value in values]}
            for labels, values in streams
        ]
    }
    return await post(json.dumps(document), Content_Type="application/json", **(headers or {}))


JSON = json.dumps({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "line"]]}]}).encode()


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def part(field, data):
    return bytes([field << 3 | 2]) + varint(len(data)) + data


def protobuf(*, nanos=0, time=True, labels=b'{a="b"}'):
    stamp = b"\x08" + varint(NOW // SECOND) + (b"\x10" + varint(nanos) if nanos else b"")
    entry = (part(1, stamp) if time else b"") + part(2, b"line")
    return part(1, part(1, labels) + part(2, entry))


def snap(data):
    return (
        varint(len(data)) + b"\xf4" + struct.pack("<H", len(data) - 1)[:2] + data
        if len(data) > 256
        else (varint(len(data)) + b"\xf0" + bytes([len(data) - 1]) + data)
    )


def raw_deflate(data):
    return zlib.compress(data, wbits=-15)


@pytest.mark.parametrize(
    ("media", "encoding", "body", "status"),
    [
        ("application/json", "", JSON, 204),
        ("application/json; charset=utf-8", "", JSON, 204),
        ("Application/JSON", "", JSON, 204),
        ("application/json", "gzip", gzip.compress(JSON, mtime=0), 204),
        ("application/json", "deflate", raw_deflate(JSON), 204),
        ("application/json", "deflate", zlib.compress(JSON), 400),
        ("application/json", "snappy", snap(JSON), 400),
        ("application/json", "zstd", JSON, 400),
        ("application/json", "identity", JSON, 400),
        ("application/json", "GZIP", gzip.compress(JSON, mtime=0), 400),
        ("application/json", "br", JSON, 400),
        ("application/x-protobuf", "", snap(protobuf()), 204),
        ("text/plain", "", snap(protobuf()), 204),
        ("application/x-protobuf", "snappy", snap(protobuf()), 204),
        ("application/x-protobuf", "gzip", gzip.compress(snap(protobuf()), mtime=0), 204),
        ("application/x-protobuf", "deflate", raw_deflate(snap(protobuf())), 204),
        ("application/x-protobuf", "gzip", gzip.compress(protobuf(), mtime=0), 400),
        ("application/x-protobuf", "", protobuf(), 400),
        ("application/x-protobuf", "zstd", snap(protobuf()), 400),
        ("", "", JSON, 400),
        ("nonsense", "", JSON, 400),
    ],
)
async def test_which_encodings_are_read(post, loki, media, encoding, body, status):
    headers = {"Content_Type": media} if media else {}
    if encoding:
        headers["Content_Encoding"] = encoding

    answer, text = await post(body, **headers)

    assert answer == status, text
    assert loki.lines() == (["line"] if status == 204 else [])


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({}, 422),
        ({"streams": []}, 422),
        ({"streams": [{"stream": {"a": "b"}}]}, 204),
        ({"streams": [{"stream": {"a": "b"}, "values": []}]}, 204),
        ({"streams": [{"stream": {"a": "b"}, "values": None}]}, 204),
        ({"streams": [{"stream": {"a": "b"}, "values": [[NOW, "number"]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), 5]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "x", {"k": 1}]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "x", {"k": {}}]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "x", None]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "x", {}]]}]}, 204),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "x", {}, "fourth"]]}]}, 204),
        ({"streams": [{"stream": {"a-b": "c"}, "values": [[str(NOW), "x"]]}]}, 400),
        ({"streams": [{"stream": {"a": "b"}, "values": [[str(NOW), "\ud800"]]}]}, 400),
    ],
)
async def test_which_json_is_read(post, document, status):
    answer, text = await post(json.dumps(document), Content_Type="application/json")

    assert answer == status, text


async def test_invalid_utf8_arrives_as_replacement_characters(post, loki):
    body = JSON.replace(b"line", b"l\xffne")

    assert (await post(body, Content_Type="application/json"))[0] == 204
    assert loki.lines() == ["l\ufffdne"]


async def test_protobuf_times_are_checked(post):
    headers = {"Content_Type": "application/x-protobuf"}

    assert (await post(snap(protobuf(nanos=10**9)), **headers))[0] == 400
    status, text = await post(snap(protobuf(time=False)), **headers)
    assert (status, "too old" in text) == (400, True)
    assert (await post(snap(protobuf(labels=b"{a=b}")), **headers))[0] == 400


async def test_success_is_204_without_a_body_but_with_a_date(loki):
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            loki.url + "/loki/api/v1/push", data=JSON, headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert (response.status, await response.read()) == (204, b"")
        assert response.headers["Date"]


@pytest.mark.parametrize(
    ("tenant", "status", "text"),
    [
        (None, 401, "no org id"),
        ("", 401, "no org id"),
        ("a|b", 400, "multiple org IDs present"),
        ("a/b", 400, "unsupported character"),
        ("..", 400, "unsupported character"),
        ("x" * 151, 400, ""),
        ("team-1", 204, ""),
    ],
)
async def test_tenants(loki, push, tenant, status, text):
    loki.limits.auth_enabled = True

    answer, body = await push((NOW, "line"), headers={} if tenant is None else {"X_Scope_OrgID": tenant})

    assert answer == status
    assert text in body


async def test_age_and_future_reject_entries_and_keep_the_others(push, loki):
    status, text = await push(
        (NOW - 8 * 86400 * SECOND, "old"), (NOW, "fine"), (NOW + 660 * SECOND, "new"), (NOW + 540 * SECOND, "soon")
    )

    assert status == 400
    assert "has timestamp too old: " in text
    assert "oldest acceptable timestamp is: " in text
    assert "has timestamp too new: " in text
    assert loki.lines() == ["fine", "soon"]


async def test_equal_messages_are_counted_and_a_single_one_stands_bare(push):
    old = NOW - 8 * 86400 * SECOND

    _, one = await push((old, "a"))
    _, three = await push((old, "a"), (old, "b"), (old, "c"))

    assert one.startswith("entry for stream '{service_name=\"api\"}' has timestamp too old")
    assert three.startswith("3 errors like: entry for stream")


async def test_the_longest_line_is_262144_bytes(push, loki):
    assert (await push((NOW, "é" * 131072)))[0] == 204
    status, text = await push((NOW + 1, "x" * 262145))

    assert status == 400
    assert text == (
        "max entry size '262144' bytes exceeded for stream '{service_name=\"api\"}' while adding an entry with length "
        "'262145' bytes"
    )
    assert loki.count() == 1


async def test_metadata_limits(push, loki):
    loki.limits = Limits(max_metadata_pairs=2, max_metadata_bytes=30)

    assert (await push((NOW, "a", {"k": "v", "l": "w"})))[0] == 204
    status, text = await push((NOW, "b", {"k": "v" * 30}))
    assert (status, "structured metadata too large: '31' bytes, limit: '30' bytes" in text) == (400, True)
    status, text = await push((NOW, "c", {"k": "v", "l": "w", "m": "x"}))
    assert (status, "too many structured metadata labels: '3', limit: '2'" in text) == (400, True)

    loki.limits.allow_metadata = False
    status, text = await push((NOW, "d", {"k": "v"}), (NOW, "e"))
    assert (status, "includes structured metadata, but this feature is disallowed" in text) == (400, True)
    assert loki.lines() == ["a", "e"]


@pytest.mark.parametrize("key", ["", "_", "-", " ", "é", "日本"])
async def test_a_key_that_nothing_is_left_of_fails_the_whole_request_with_500(push, loki, key):
    status, text = await push((NOW, "good"), (NOW, "bad", {key: "v"}))

    assert status == 500
    assert "label name is empty" in text or "normalization for label name" in text
    assert loki.lines() == []


async def test_metadata_keys_are_renamed_and_empty_values_dropped(push, loki):
    await push((NOW, "x", {"a.b": "1", "9z": "2", "empty": "", "a__c": "3"}))

    assert loki.entries()[0].metadata == (("a_b", "1"), ("a_c", "3"), ("key_9z", "2"))


async def test_label_limits_reject_the_stream(post):
    values = [(NOW, "x")]
    many = {f"l{n}": "v" for n in range(16)}

    status, text = await push_streams(post, [(many, values)])
    assert (status, "has 16 label names; limit 15" in text) == (400, True)
    fifteen = {**{f"l{n}": "v" for n in range(15)}, "service_name": "free"}
    assert (await push_streams(post, [(fifteen, values)]))[0] == 204
    assert "label value too long" in (await push_streams(post, [({"a": "v" * 2049}, values)]))[1]
    assert "label name too long" in (await push_streams(post, [({"a" * 1025: "v"}, values)]))[1]


async def test_the_tenant_rate_is_all_or_nothing_and_hides_invalid_entries(push, loki):
    loki.limits = Limits(burst=100, rate=50)

    status, text = await push((NOW - 8 * 86400 * SECOND, "old"), (NOW, "x" * 101))

    assert status == 429
    assert "ingestion rate limit exceeded for user fake (limit: 50 bytes/sec)" in text
    assert "totaling '101' bytes" in text
    assert loki.lines() == []


async def test_a_request_that_decodes_to_too_much_fails_with_500(push, loki):
    loki.limits = Limits(max_message_bytes=1000)

    status, text = await push((NOW, "x" * 1000))

    assert status == 500
    assert "ResourceExhausted" in text
    assert "larger than max (1027 vs. 1000)" in text


async def test_a_body_that_is_too_large_fails_with_413(post, loki):
    loki.limits = Limits(max_body_bytes=10)

    assert (await post(JSON, Content_Type="application/json"))[0] == 413


async def test_the_stream_limit_rejects_new_streams_only(post, loki):
    loki.limits = Limits(max_streams=1)

    assert (await push_streams(post, [({"a": "1"}, [(NOW, "x")])]))[0] == 204
    status, text = await push_streams(post, [({"a": "2"}, [(NOW, "x")])])
    assert (status, "maximum active stream limit exceeded" in text.lower()) == (429, True)
    assert (await push_streams(post, [({"a": "1"}, [(NOW, "y")])]))[0] == 204


async def test_the_stream_rate_rejects_the_whole_stream(push, loki):
    loki.limits = Limits(stream_burst=10, stream_rate=1)

    status, text = await push((NOW, "12345"), (NOW, "678901"))

    assert status == 429
    assert "Per stream rate limit exceeded" in text
    assert "total ignored: 2 out of 2" in text
    assert loki.lines() == []


async def test_the_window_is_an_hour_behind_the_newest_in_order_of_arrival(push, loki):
    minute = 60 * SECOND

    assert (await push((NOW - 61 * minute, "old"), (NOW, "new")))[0] == 204
    status, text = await push(*((NOW - 61 * minute - n, f"late {n}") for n in range(12)), (NOW + 1, "newer"))

    assert status == 400
    assert text.count("ignored, reason: 'entry too far behind, entry timestamp is: ") == 10
    assert text.endswith("user 'fake', total ignored: 12 out of 13 for stream: {service_name=\"api\"}")
    assert loki.lines() == ["old", "new", "newer"]


async def test_a_stream_that_fails_before_one_that_works_is_lost_with_204(post, loki):
    loki.limits = Limits(max_streams=1)
    await push_streams(post, [({"a": "1"}, [(NOW, "x")])])

    answers = [
        (await push_streams(post, [({"a": "2"}, [(NOW, "lost")]), ({"a": "1"}, [(NOW, "kept")])]))[0],
        (await push_streams(post, [({"a": "1"}, [(NOW, "kept too")]), ({"a": "2"}, [(NOW, "refused")])]))[0],
    ]

    assert answers == [204, 429]
    assert sorted(loki.lines()) == ["kept", "kept too", "x"]


async def test_blocked_ingestion_is_260(push, loki):
    loki.limits.blocked = True

    status, text = await push((NOW, "x"))

    assert status == 260
    assert text.startswith("ingestion blocked for user fake until")
    assert loki.lines() == []


async def test_time_line_and_metadata_together_make_an_entry(push, loki):
    await push((NOW, "a"), (NOW, "b"), (NOW, "a"))
    await push((NOW, "a", {"k": "v"}))
    await push((NOW, "a", {"k": "v"}), (NOW, "a"))

    assert loki.lines() == ["a", "b", "a"]


async def test_label_order_makes_no_other_stream(post, loki):
    await push_streams(post, [({"a": "1", "b": "2"}, [(NOW, "x")])])
    await push_streams(post, [({"b": "2", "a": "1"}, [(NOW, "x")])])

    assert len(loki.streams()) == 1
    assert loki.lines() == ["x"]


@pytest.mark.parametrize(("size", "counted"), [(100, 100), (1000, 200)], ids=["within a block", "beyond a block"])
async def test_a_resend_beyond_the_head_block_is_counted_twice_and_found_once(push, loki, size, counted):
    entries = [(NOW + n, "x" * size + str(n)) for n in range(100)]
    filler = [(NOW + 200, "y" * 200_000)] if size == 1000 else []

    await push(*entries, *filler)
    await push(*entries)

    assert len([line for line in loki.lines() if line[0] == "x"]) == 100
    assert loki.count() - len(filler) == counted


async def test_get_is_no_push_and_ready_is_no_condition(loki):
    async with aiohttp.ClientSession() as session:
        async with session.get(loki.url + "/loki/api/v1/push") as response:
            assert response.status in (404, 405)
        async with session.get(loki.url + "/ready") as response:
            assert response.status == 503


class TestFaults:
    async def test_a_status_without_storing(self, push, loki):
        loki.script(fake_loki.status(503, "busy", Retry_After="7"))

        assert await push((NOW, "x")) == (503, "busy")
        assert loki.lines() == []
        assert (await push((NOW, "x")))[0] == 204

    async def test_an_answer_that_is_lost_after_storing(self, push, loki):
        loki.script(fake_loki.lost_answer())

        with pytest.raises(aiohttp.ClientError):
            await push((NOW, "x"))

        assert loki.lines() == ["x"]

    async def test_a_reset_in_the_middle_of_an_answer(self, push, loki):
        loki.script(fake_loki.Fault("reset_mid_body"))

        with pytest.raises(aiohttp.ClientError):
            await push((NOW, "x"))

        assert loki.lines() == []

    async def test_a_hang_lasts_until_the_end(self, push, loki):
        loki.script(fake_loki.Fault("hang"))

        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            async with asyncio.timeout(0.2):
                await push((NOW, "x"))

    async def test_a_slow_answer_comes(self, push, loki):
        loki.script(fake_loki.Fault("slow", seconds=0.1))
        started = time.monotonic()

        assert (await push((NOW, "x")))[0] == 204
        assert time.monotonic() - started >= 0.1

    async def test_an_answer_may_drip_without_end(self, push, loki):
        loki.script(fake_loki.Fault("drip"))

        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            async with asyncio.timeout(0.2):
                await push((NOW, "x"))

    async def test_an_answer_may_be_longer_than_it_says(self, push, loki):
        loki.script(fake_loki.Fault("wrong_length"))

        with pytest.raises(aiohttp.ClientError):
            await push((NOW, "x"))
        assert (await push((NOW, "x")))[0] == 204

    async def test_it_comes_back_at_the_same_address_with_what_it_had(self, push, loki):
        await push((NOW, "x"))
        url = loki.url

        await loki.stop()
        with pytest.raises(aiohttp.ClientError):
            await push((NOW, "y"))
        await loki.start()

        assert loki.url == url
        assert (await push((NOW, "y")))[0] == 204
        assert loki.lines() == ["x", "y"]
