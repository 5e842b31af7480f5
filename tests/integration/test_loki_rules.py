"""The twenty-six rules of a Loki client, each by its number, against a Loki that enforces its own."""

from __future__ import annotations

import asyncio
import gzip
import time
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from sidecar import config
from sidecar.delivery import Delivery
from sidecar.errors import ConfigError, SinkRetry
from sidecar.loki import client, stamps
from sidecar.model import Outcome
from sidecar.options import Secret
from sidecar.sinks import loki as loki_sink
from sidecar.sinks.loki import BatchConfig, Config, Loki
from tests.support import fake_loki, records, virtual_time
from tests.support.fake_loki import FakeLoki, Limits, status
from tests.support.loki_bench import LokiBench
from tests.support.patience import PATIENCE

SECOND = 10**9
HOUR = 3600 * SECOND


def now():
    return virtual_time.now_ns()


def made(count, *, ago=0.0, step_ns=1000, **fields):
    return records.records(count, start_ns=now() - int(ago * SECOND), step_ns=step_ns, **fields)


def virtual(test):
    def run(tmp_path):
        code = test.__code__
        virtual_time.run(test(tmp_path) if "tmp_path" in code.co_varnames[: code.co_argcount] else test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def sent_records(bench):
    return records.messages(bench.loki.lines())


# framing


@virtual
async def test_rule_01_one_stream_per_request_so_that_no_ack_covers_a_lost_entry():
    """A stream that Loki rejects in company of one it takes would be answered 204 and lost."""
    bench = LokiBench(limits=Limits(max_streams=1))
    await bench.deliver(made(1, service_name="first"))

    second = LokiBench(loki=bench.loki)
    async with second.running() as task:
        await second.put([*made(1, service_name="beyond"), *made(1, service_name="first")])
        await asyncio.sleep(30)

        assert second.watermark == 0
        assert second.ledger()["sent"] == 1
        assert all(len(request.streams) == 1 for request in bench.loki.requests)
        bench.loki.limits.max_streams = 10
        await asyncio.sleep(60)
        assert second.watermark == 2
        assert not task.done()


@virtual
async def test_rule_02_entries_ascend_identical_lines_survive_and_a_resend_is_byte_identical():
    bench = LokiBench()
    bench.loki.script(status(503), fake_loki.lost_answer(), status(500))
    same = [records.record("same", time_ns=now()) for _ in range(5)]
    shuffled = [records.record(f"at {offset}", time_ns=now() + offset) for offset in (900, 100, 500)]

    await bench.deliver([*same, *shuffled])

    assert len(bench.loki.requests) == 4
    assert len({request.body for request in bench.loki.requests}) == 1
    times = [entry.ns for _, entries in bench.loki.requests[0].streams for entry in entries]
    assert times == sorted(times)
    assert len(bench.loki.lines()) == 8


@virtual
async def test_rule_03_requests_stay_below_the_bound_and_one_entry_is_always_admitted():
    bench = LokiBench(push_bytes=100_000)  # and twice as much where that keeps a batch in one push
    large = records.record("x" * 250_000, time_ns=now())

    await bench.deliver([*made(2000), large])

    pushes = [request.streams[0][1] for request in bench.loki.requests]
    assert len(pushes) > 3
    assert all(sum(entry.size + 64 for entry in push) <= 200_000 for push in pushes if len(push) > 1)
    assert len(bench.loki.lines()) == 2001


@virtual
async def test_rule_03_a_request_carries_as_many_batches_of_ordinary_lines_as_the_bound_holds():
    bench = LokiBench(push_bytes=100_000)
    lines = made(1000, filler="x" * 150)

    await bench.deliver(*[lines[start : start + 10] for start in range(0, 1000, 10)])

    sizes = [sum(len(entry.line) for entry in request.streams[0][1]) for request in bench.loki.requests]
    assert len(sizes) == 3
    assert all(97_000 < size <= 100_000 for size in sizes[:-1])


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
async def test_rule_04_content_type_and_encoding_are_exact(encoding):
    async with FakeLoki() as loki:
        sink = Loki(Config(url=loki.url, encoding=encoding), telemetry=records.quiet_telemetry())
        for push in sink.encode(one := records.records(3), sink.settle(one)):
            await sink.send(push)
        await sink.close()

    headers = loki.requests[0].headers
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"] == {"json": "application/json", "protobuf": "application/x-protobuf"}[encoding]
    assert headers["User-Agent"].startswith("gin-sidecar/")
    assert len(loki.lines()) == 3


@virtual
async def test_rule_05_times_are_strings_and_text_is_valid_unicode():
    bench = LokiBench()
    odd = records.record(time_ns=now(), trace_id="", span_id="")
    odd.service_name = "s\ud800"
    odd.line = b'{"message":"\xff\xfe","half":"\\ud800"}'
    odd.outcome, odd.violations = Outcome.INVALID, (("f\udcff", "type"),)

    await bench.deliver([odd])

    (request,) = bench.loki.requests
    document = orjson.loads(gzip.decompress(request.body))
    ((stamp, line, metadata),) = document["streams"][0]["values"]
    assert isinstance(stamp, str)
    assert line == '{"message":"\ufffd\ufffd","half":"\\ud800"}'
    assert all(isinstance(value, str) for value in metadata.values())
    assert bench.ledger()["sent"] == 1


# sanitizing


@virtual
async def test_rule_06_labels_are_such_that_loki_takes_them():
    bench = LokiBench(labels={"team": "é" * 2000})

    await bench.deliver(made(2, service_name="n" * 5000))

    (labels,) = bench.loki.streams()
    assert len(labels["service_name"]) == 2048
    assert len(labels["team"].encode()) == 2048
    assert bench.ledger()["sent"] == 2


@pytest.mark.parametrize(("service", "team"), [("s" * 3000, "shop"), ("orders", "é" * 1500)], ids=["own", "configured"])
def test_rule_06_records_whose_label_is_cut_are_counted(service, team):
    async def main():
        bench = LokiBench(labels={"team": team})

        await bench.deliver([records.record(str(n), time_ns=now() + n, service_name=service) for n in range(3)])

        (labels,) = bench.loki.streams()
        assert max(len(value.encode()) for value in labels.values()) == 2048
        assert bench.value("sidecar_sink_adjusted_records_total", rule="label") == 3

    virtual_time.run(main())


@virtual
async def test_rule_07_metadata_has_few_known_ascii_keys_within_the_limits():
    bench = LokiBench()
    worst = records.record(
        "x", time_ns=-5, outcome=Outcome.INVALID, violations=tuple((f"поле {n}" * 100, "type") for n in range(500))
    )

    await bench.deliver([worst])

    ((_, (entry,)),) = bench.loki.requests[0].streams
    keys = {key for key, _ in entry.metadata}
    assert keys == {"trace_id", "span_id", "detected_level", "format", "violation", "original_timestamp"}
    assert sum(len(key) + len(value.encode()) for key, value in entry.metadata) < 4096
    assert bench.ledger()["sent"] == 1


@virtual
async def test_rule_08_a_line_beyond_the_limit_goes_in_parts():
    bench = LokiBench()
    long = records.record("y" * 600_000, time_ns=now())

    await bench.deliver([long])

    stored = bench.loki.entries()
    parts = sorted(stored, key=lambda entry: dict(entry.metadata)["part"])
    assert "".join(entry.line for entry in parts).encode() == long.line
    assert [dict(entry.metadata)["part"] for entry in parts] == ["1/3", "2/3", "3/3"]
    assert bench.value("sidecar_sink_adjusted_records_total", rule="long_line") == 1
    assert bench.ledger()["sent"] == 1


@virtual
async def test_rule_08_a_shorter_limit_is_learned_from_the_answer():
    bench = LokiBench(limits=Limits(max_line_bytes=1000))
    lines = [*made(3), records.record("z" * 2500, time_ns=now() + 10_000)]

    await bench.deliver(lines)
    requests = len(bench.loki.requests)
    assert bench.ledger() == {"sent": 4, "refused": 0, "dropped": 0, "dead_lettered": 0, "pending": 0}
    assert len(bench.loki.lines()) == 3 + 3
    assert bench.value("sidecar_sink_adjusted_records_total", rule="long_line") == 1

    again = bench.sink.encode(long := [records.record("w" * 2500, time_ns=now())], bench.sink.settle(long))
    await bench.sink.send(again[0])
    assert len(bench.loki.requests) == requests + 1
    assert bench.loki.requests[-1].status == 204


@virtual
async def test_rule_09_times_out_of_reach_become_the_present_and_say_what_they_were():
    bench = LokiBench()
    future = records.record("future", time_ns=now() + 2 * HOUR)
    past = records.record("past", time_ns=-(10**18))
    soon = records.record("soon", time_ns=now() + 540 * SECOND)

    await bench.deliver([future, past, soon])

    stored = {records.messages([entry.line])[0]: entry for entry in bench.loki.entries()}
    assert abs(stored["future"].ns - now()) < 5 * SECOND
    assert abs(stored["past"].ns - now()) < 5 * SECOND
    assert stored["soon"].ns == soon.time_ns
    assert "original_timestamp" in dict(stored["future"].metadata)
    assert "original_timestamp" not in dict(stored["soon"].metadata)
    assert bench.value("sidecar_sink_adjusted_records_total", rule="future_time") == 1
    assert bench.value("sidecar_sink_adjusted_records_total", rule="past_time") == 1


@pytest.mark.parametrize("level", ["trace", "debug", "info", "warn", "error", "fatal"])
def test_rule_10_the_level_goes_as_detected_level(level):
    async def main():
        bench = LokiBench()
        await bench.deliver(made(1, level=level))
        assert dict(bench.loki.entries()[0].metadata)["detected_level"] == level

    virtual_time.run(main())


# delivery


@virtual
async def test_rule_11_the_source_hears_of_delivery_only_when_it_is_durable(tmp_path):
    bench = LokiBench(directory=tmp_path, spool=True)
    bench.loki.down = True

    async with bench.running():
        await bench.put(made(10))
        assert bench.watermark == 0
        await asyncio.sleep(1.5)
        assert bench.watermark == 10  # on disk, synced
        assert bench.spool.pending == 10  # and not deleted before Loki has it
        bench.loki.script(status(260, "blocked"))
        bench.loki.down = False
        await asyncio.sleep(60)
        assert bench.spool.pending == 0


@pytest.mark.parametrize("code", [200, 204])
def test_rule_12_success_is_200_and_204(code):
    async def main():
        bench = LokiBench()
        bench.loki.script(status(code))
        await bench.deliver(made(1))
        assert bench.ledger()["sent"] == 1
        assert len(bench.loki.requests) == 1

    virtual_time.run(main())


@pytest.mark.parametrize("code", [201, 202, 206, 260, 299, 301, 302, 307, 308])
def test_rule_12_nothing_else_is_success(code):
    async def main():
        bench = LokiBench()
        bench.loki.script(status(code))
        async with bench.running():
            await bench.put(made(1))
        assert bench.ledger()["sent"] == 1
        assert len(bench.loki.requests) == 2

    virtual_time.run(main())


async def test_rule_12_a_redirect_is_never_followed_with_credentials():
    heard = []

    async def elsewhere(request):
        heard.append(request.headers.get("Authorization"))
        return web.Response(status=204)

    async def redirect(request):
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{ports[0]}/")

    ports = []
    runners = []
    for handler in (elsewhere, redirect):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(site._server.sockets[0].getsockname()[1])
        runners.append(runner)
    sink = Loki(
        Config(url=f"http://127.0.0.1:{ports[1]}", bearer_token=Secret("s3cret")), telemetry=records.quiet_telemetry()
    )

    (push,) = sink.encode(one := records.records(1), sink.settle(one))
    with pytest.raises(SinkRetry) as retry:
        await sink.send(push)

    assert retry.value.reason == "redirect"
    assert heard == []
    await sink.close()
    for runner in runners:
        await runner.cleanup()


# rule 13: each answer as the table says; `test_answers` has the table itself


@pytest.mark.parametrize("ago", [3700.0, 8000.0])
def test_rule_13_entries_too_far_behind_are_told_from_those_stored(ago):
    async def main():
        bench = LokiBench()
        await bench.deliver(made(1))
        second = LokiBench(loki=bench.loki)
        await second.deliver([*made(7, ago=ago), *made(5, ago=10)])

        assert second.ledger()["sent"] == 12
        assert len(bench.loki.lines()) == 13
        assert bench.loki.count() == 13  # nothing that was stored was sent again
        assert len(bench.loki.lines(replay="1")) == 7

    virtual_time.run(main())


@pytest.mark.parametrize("fraction", [0, 250_000_000, 999_999_999])
def test_rule_13_the_boundary_second_is_exact(fraction):
    async def main():
        await asyncio.sleep(fraction / SECOND)
        bench = LokiBench(limits=Limits(max_age=100.0))
        edge = now() - 100 * SECOND
        mixed = [
            records.record(str(n), time_ns=edge + offset)
            for n, offset in enumerate(sorted((-(2 * SECOND), -1, 0, 1, 10**8, 5 * SECOND)))
        ]
        bench.sink._encoder.max_bytes = 1 << 20
        pushes = bench.sink.encode(mixed, bench.sink.settle(mixed))
        receipt = await bench.sink.send(pushes[0])

        assert [records.messages([record.line])[0] for record in receipt.refused] == ["0", "1"]
        assert receipt.reason == "too_old"
        assert not receipt.again
        assert sent_records(bench) == ["2", "3", "4", "5"]

    virtual_time.run(main())


@virtual
async def test_rule_13_a_mixture_of_reasons_is_sorted_out():
    bench = LokiBench(limits=Limits(max_line_bytes=500, max_age=1000.0))
    batch = [
        *made(3, ago=2000),
        *made(4, ago=500),
        records.record("l" * 900, time_ns=now() - 400 * SECOND),
        *made(2, ago=1),
    ]

    await bench.deliver(batch)

    assert bench.ledger() == {"sent": 7, "refused": 3, "dropped": 0, "dead_lettered": 0, "pending": 0}
    assert bench.value("sidecar_sink_refusals_total", reason="too_old") == 3
    assert len(bench.loki.lines()) == 4 + 2 + 2  # the long one in two parts


@pytest.mark.parametrize("code", [400, 409, 422, 451])
def test_rule_13_one_malformed_entry_among_many_is_found(code):
    async def main():
        bench = LokiBench()
        bench.loki.fault = lambda request: (
            status(code, "something is wrong") if any('"617"' in line for line in request.lines) else None
        )
        await bench.deliver(made(1000))

        assert bench.ledger() == {"sent": 999, "refused": 1, "dropped": 0, "dead_lettered": 0, "pending": 0}
        assert len(bench.loki.lines()) == 999
        assert len(bench.loki.requests) < 40

    virtual_time.run(main())


@virtual
async def test_rule_13_when_everything_is_malformed_it_is_not_asked_a_thousand_times():
    bench = LokiBench()
    bench.loki.fault = lambda request: status(400, "we do not like you")

    await bench.deliver(made(3000))

    assert bench.ledger()["refused"] == 3000
    assert len(bench.loki.requests) < 60
    assert bench.watermark == 3000


@virtual
async def test_rule_13_metadata_that_is_not_allowed_is_left_out_from_then_on():
    bench = LokiBench(limits=Limits(allow_metadata=False))

    await bench.deliver(made(5), made(5))

    assert bench.ledger()["sent"] == 10
    assert all(not entry.metadata for entry in bench.loki.entries())
    assert "no structured metadata" in bench.log


@virtual
async def test_rule_13_metadata_beyond_a_smaller_limit_is_left_out_where_it_is_too_much():
    bench = LokiBench(limits=Limits(max_metadata_bytes=120))
    wrong = records.record("wrong", time_ns=now() + 9000, outcome=Outcome.INVALID, violations=(("f" * 100, "type"),))

    await bench.deliver([*made(3), wrong])

    assert bench.ledger()["sent"] == 4
    assert [bool(entry.metadata) for entry in bench.loki.entries()] == [True, True, True, False]


@virtual
async def test_rule_13_labels_beyond_a_smaller_limit_are_given_up_once():
    bench = LokiBench(limits=Limits(max_label_names=5), labels={"team": "x", "region": "y"})

    await bench.deliver(made(5))

    assert bench.ledger()["sent"] == 5
    (labels,) = bench.loki.streams()
    assert "team" not in labels
    assert labels["pod"] == "orders-1"


@virtual
async def test_rule_13_poison_metadata_is_not_retried_for_ever():
    bench = LokiBench()
    bench.loki.script(status(500, 'normalization for label name "x" resulted in invalid name "_"'))

    await bench.deliver(made(5))

    assert bench.ledger()["sent"] == 5
    assert len(bench.loki.requests) == 2


@virtual
async def test_rule_13_poison_that_fails_with_500_is_found_among_ten_thousand(tmp_path):
    bench = LokiBench(directory=tmp_path)
    bench.loki.fault = lambda request: status(500, "panic") if any('"7777"' in line for line in request.lines) else None

    batches = made(10_000)
    await bench.deliver(*(batches[start : start + 500] for start in range(0, 10_000, 500)))

    assert bench.ledger() == {"sent": 9999, "refused": 0, "dropped": 0, "dead_lettered": 1, "pending": 0}
    (letter,) = (tmp_path / "loki.ndjson").read_text().splitlines()
    assert orjson.loads(letter)["reason"] == "poison"
    assert orjson.loads(letter)["record"]["message"] == "7777"
    assert bench.watermark == 10_000


@virtual
async def test_rule_14_one_request_in_flight_per_stream_oldest_first():
    bench = LokiBench(push_bytes=5000)
    flying, most = 0, 0
    post = bench.sink._client.post

    async def slowly(body):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.2)
        answer = await post(body)
        flying -= 1
        return answer

    bench.sink._client.post = slowly
    batch = made(300)
    await bench.deliver(*(batch[start : start + 30] for start in range(0, 300, 30)))

    assert most == 1
    arrived = [message for request in bench.loki.requests for message in records.messages(request.lines)]
    assert arrived == [str(n) for n in range(300)]


@virtual
async def test_rule_15_backoff_has_no_end_is_capped_and_ends_with_the_first_success():
    bench = LokiBench()
    bench.loki.fault = lambda request: status(503) if virtual_time.clock() < 5 * 3600 else None

    await bench.deliver(made(3))

    tries = [request.at for request in bench.loki.requests]
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) > 500
    assert max(gaps) <= 30.001
    assert bench.ledger()["sent"] == 3


@pytest.mark.parametrize("header", ["20", "date"])
def test_rule_15_retry_after_is_honoured(header):
    async def main():
        bench = LokiBench()
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(virtual_time.wall() + 21))
        bench.loki.script(status(429, "slow", Retry_After=header if header == "20" else date))
        await bench.deliver(made(1))
        first, second = (request.at for request in bench.loki.requests)
        assert 19 <= second - first <= 31

    virtual_time.run(main())


@virtual
async def test_rule_16_a_stream_in_backoff_blocks_no_other():
    bench = LokiBench(limits=Limits(max_streams=3))
    names = [f"s{n}" for n in range(10)]
    async with bench.running():
        await bench.put([record for name in names for record in made(2, service_name=name)])
        await asyncio.sleep(60)
        assert bench.ledger()["sent"] == 6
        for _ in range(5):
            await bench.put(made(1, service_name="s1"))
            await asyncio.sleep(5)
        assert bench.ledger()["sent"] == 11
        bench.loki.limits.max_streams = 100
    assert bench.ledger()["sent"] == 25


@virtual
async def test_rule_16_a_storm_of_streams_beyond_the_limit_is_a_few_requests_and_no_loss():
    """Thirty services at a tenant that takes ten streams, for twenty minutes, then for good: nothing is lost or out of order."""
    bench = LokiBench(limits=Limits(max_streams=10))
    names = [f"service-{number}" for number in range(30)]
    async with bench.running():
        for _ in range(20):
            await bench.put([record for name in names for record in made(2, service_name=name)])
            await asyncio.sleep(60)
        refused = sum(request.status == 429 for request in bench.loki.requests)
        assert refused < 20 * 1200 / 10  # each stream rests 15 s on average
        assert bench.ledger()["sent"] == 10 * 2 * 20  # what has a stream goes on as if nothing was the matter
        assert bench.value("sidecar_sink_retries_total", reason="stream_limited") == refused
        bench.loki.limits.max_streams = 5000

    assert bench.ledger() == {"sent": 1200, "refused": 0, "dropped": 0, "dead_lettered": 0, "pending": 0}
    for labels in bench.loki.streams():
        arrived = [
            entry.ns
            for request in bench.loki.requests
            for stream, entries in request.streams
            if request.status == 204 and stream == labels
            for entry in entries
        ]
        assert arrived == sorted(arrived)


@virtual
async def test_rule_16_a_destination_that_is_down_is_probed_once():
    bench = LokiBench()
    bench.loki.fault = lambda request: status(503) if virtual_time.clock() < 3600 else None

    await bench.deliver([record for n in range(20) for record in made(1, service_name=f"s{n}")])

    during = [request for request in bench.loki.requests if request.status == 503]
    assert len(during) < 3600 / 10  # the mean pause is 15 s; twenty timers would make thousands
    assert bench.ledger()["sent"] == 20


@pytest.mark.parametrize(
    ("limits", "answer"),
    [
        (Limits(max_message_bytes=20_000), "ResourceExhausted"),
        (Limits(max_body_bytes=2_000), "request body too large"),
        (Limits(rate=15_000, burst=15_000), "rate limit"),
    ],
    ids=["decoded", "body", "burst"],
)
def test_rule_17_pushes_shrink_to_what_is_taken_and_stay_small(limits, answer):
    async def main():
        bench = LokiBench(limits=limits)
        async with bench.running():
            await bench.put(made(400))
            await asyncio.sleep(600)
            assert any(answer in request.answer for request in bench.loki.requests)
            assert bench.ledger()["sent"] == 400
            refused_before = sum(request.status != 204 for request in bench.loki.requests)
            await bench.put(made(400))
            await asyncio.sleep(600)
            refused = sum(request.status != 204 for request in bench.loki.requests) - refused_before
            assert refused <= 1 or "rate" in answer
        assert bench.ledger()["sent"] == 800

    virtual_time.run(main())


@virtual
async def test_rule_17_a_single_entry_that_is_too_large_is_a_dead_letter(tmp_path):
    bench = LokiBench(limits=Limits(max_message_bytes=3000), directory=tmp_path)

    await bench.deliver([*made(3), records.record("x" * 5000, time_ns=now() + 10_000), *made(2)])

    assert bench.ledger() == {"sent": 5, "refused": 0, "dropped": 0, "dead_lettered": 1, "pending": 0}
    assert bench.value("sidecar_sink_refusals_total", reason="too_large") == 1


@virtual
async def test_rule_18_an_hours_backlog_is_caught_up_with_below_a_megabyte_a_second():
    bench = LokiBench()
    bench.loki.down = True
    async with bench.running():
        for _ in range(60):
            await bench.put(made(100, filler="x" * 4000))
            await asyncio.sleep(60)
        bench.loki.down = False
        back = virtual_time.wall()
        await asyncio.sleep(3600)

        assert bench.ledger()["sent"] == 6_000
        size = sum(entry.size for request in bench.loki.requests for entry in request.streams[0][1])
        assert size / (bench.loki.requests[-1].at - max(back, bench.loki.requests[0].at)) < 1e6
        arrived = [entry.ns for request in bench.loki.requests for entry in request.streams[0][1]]
        assert arrived == sorted(arrived)
        assert all(request.status == 204 for request in bench.loki.requests)


@virtual
async def test_rule_18_an_outage_of_an_hour_loses_nothing_although_the_window_is_an_hour(tmp_path):
    """Backlog before live in the same stream: live records first would move Loki's window past the backlog."""
    bench = LokiBench(directory=tmp_path, spool=True)
    async with bench.running():
        await bench.put(made(1))
        await asyncio.sleep(10)
        bench.loki.down = True
        for _ in range(70):
            await bench.put(made(30))
            await asyncio.sleep(60)
        assert bench.ledger()["pending"] == 2100
        assert bench.delivery.status().oldest_unsent_seconds == pytest.approx(70 * 60, abs=2)
        bench.loki.down = False
        for _ in range(30):
            await bench.put(made(30))
            await asyncio.sleep(1)

    assert bench.ledger() == {"sent": 3001, "refused": 0, "dropped": 0, "dead_lettered": 0, "pending": 0}
    assert len(bench.loki.streams()) == 1, "nothing had to be rescued"
    arrived = [entry.ns for request in bench.loki.requests for entry in request.streams[0][1]]
    assert arrived == sorted(arrived)
    assert bench.loki.count() == 3001


@virtual
async def test_rule_19_what_is_too_far_behind_is_rescued_in_a_stream_of_its_own():
    bench = LokiBench()
    await bench.deliver(made(1))
    late = LokiBench(loki=bench.loki)

    await late.deliver(made(9, ago=2 * 3600))

    assert late.ledger()["sent"] == 9
    assert len(bench.loki.lines(replay="1")) == 9


@virtual
async def test_rule_19_a_backlog_of_ten_days_is_kept_as_dead_letters_with_its_reason(tmp_path):
    bench = LokiBench(directory=tmp_path)

    await bench.deliver(made(50, ago=10 * 86400), made(30, ago=6 * 86400), made(20, ago=1))

    assert bench.ledger() == {"sent": 50, "refused": 0, "dropped": 0, "dead_lettered": 50, "pending": 0}
    letters = [orjson.loads(line) for line in (tmp_path / "loki.ndjson").read_text().splitlines()]
    assert [letter["record"]["message"] for letter in letters] == [str(n) for n in range(50)]
    assert {letter["reason"] for letter in letters} == {"too_old"}
    assert "oldest acceptable timestamp" in letters[0]["detail"]
    assert bench.watermark == 100


@virtual
async def test_rule_20_services_beyond_the_cap_share_one_marked_stream():
    bench = LokiBench()

    await bench.deliver([record for n in range(200) for record in made(1, service_name=f"service-{n}")])

    assert len(bench.loki.streams()) == 51
    shared = bench.loki.entries(overflow="true")
    assert len(shared) == 150
    assert {dict(entry.metadata)["service_name"] for entry in shared} == {f"service-{n}" for n in range(50, 200)}
    assert records.value(bench.telemetry, "sidecar_label_overflow_total", label="stream") == 150


async def test_rule_21_connections_are_kept_and_waiting_ends():
    async with FakeLoki() as loki:
        sink = Loki(Config(url=loki.url, timeout=PATIENCE), telemetry=records.quiet_telemetry())
        (push,) = sink.encode(one := records.records(1), sink.settle(one))
        await sink.send(push)
        await sink.send(push)

        assert client._IDLE_SECONDS < 120
        session = sink._client._session
        assert len(session.connector._conns) == 1
        await sink.close()

        hasty = Loki(Config(url=loki.url, timeout=0.2), telemetry=records.quiet_telemetry())
        loki.script(fake_loki.Fault("hang"))
        with pytest.raises(SinkRetry) as retry:
            await hasty.send(push)
        assert retry.value.reason == "timeout"
        await hasty.close()


@virtual
async def test_rule_22_an_answer_is_logged_once_in_a_while_with_its_words_and_never_with_the_line():
    bench = LokiBench()
    bench.loki.script(*[status(500, "words of loki " + "x" * 5000)] * 30)

    await bench.deliver([records.record("confidential", time_ns=now())])

    lines = [line for line in bench.log.splitlines() if "words of loki" in line]
    assert len(lines) == 1  # the log's clock stands still
    assert len(lines[0]) < 1000
    assert "confidential" not in bench.log


@virtual
async def test_rule_23_the_next_process_goes_on_at_the_exact_entry(tmp_path):
    """`test_kill_spool` does the same with SIGKILL."""
    first = LokiBench(directory=tmp_path, spool=True, push_bytes=4000)
    first.loki.script(None, None)
    first.loki.fault = lambda request: status(503)
    task = asyncio.create_task(first.delivery.run())
    await first.put(made(100))
    await asyncio.sleep(30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    first.close()
    stored = len(first.loki.lines())
    assert 0 < stored < 100
    assert first.watermark == 100

    first.loki.fault = None
    second = LokiBench(loki=first.loki, directory=tmp_path, spool=True, push_bytes=4000)
    async with second.running():
        assert second.ledger()["pending"] == 100 - stored

    assert sorted(map(int, sent_records(second))) == list(range(100))
    assert first.loki.count() == 100


@virtual
async def test_rule_24_ready_is_never_asked():
    bench = LokiBench()  # its /ready always says 503

    await bench.deliver(made(3))

    assert bench.ledger()["sent"] == 3


@virtual
async def test_rule_25_the_ledger_adds_up_and_everything_is_told(tmp_path):
    bench = LokiBench(directory=tmp_path, limits=Limits(max_age=1000.0))
    bench.loki.script(status(503, "x"))

    async with bench.running():
        await bench.put(made(5, ago=2000))
        await bench.put(made(7))
        bench.loki.down = True
        await asyncio.sleep(120)
        bench.delivery.report()
        assert bench.ledger()["pending"] == 12
        assert bench.value("sidecar_sink_oldest_unsent_seconds") == pytest.approx(120, abs=1)
        bench.loki.down = False

    assert bench.ledger() == {"sent": 7, "refused": 0, "dropped": 0, "dead_lettered": 5, "pending": 0}
    assert bench.value("sidecar_sink_refusals_total", reason="too_old") == 5
    assert bench.value("sidecar_sink_retries_total", reason="connection") > 3
    assert bench.value("sidecar_sink_pushes_total", status="400") == 1
    refusal = bench.delivery.status().last_refusal
    assert refusal.reason == "too_old"
    assert "too old" in refusal.detail


@pytest.mark.parametrize("tenant", ["a|b", "..", "x" * 151, "sp ace", "ü"])
def test_rule_26_a_tenant_is_checked_at_the_start(tenant):
    (problem,) = checked(f"tenant_id={tenant}")
    assert problem.startswith("--set sinks.loki.tenant_id=")


@pytest.mark.parametrize(
    "answer", [(401, "no org id"), (403, ""), (404, "404 page not found"), (400, "multiple org IDs present")]
)
def test_rule_26_credentials_and_addresses_that_are_wrong_hold_the_data_and_warn(answer):
    async def main():
        bench = LokiBench()
        bench.loki.fault = lambda request: status(*answer) if virtual_time.clock() < 7200 else None
        async with bench.running():
            await bench.put(made(4))
            await asyncio.sleep(7100)
            assert bench.ledger()["pending"] == 4
            assert len(bench.loki.requests) < 7100 / 15
            assert '"level":"warn"' in bench.log
            assert bench.delivery.status().retrying in ("credentials", "not_found")
        assert bench.ledger()["sent"] == 4

    virtual_time.run(main())


# beyond the rules


async def test_a_bearer_token_is_read_again_when_its_file_changes(tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    async with FakeLoki() as loki:
        sink = Loki(
            Config(url=loki.url, bearer_token=Secret(path=str(path)), tenant_id="team"),
            telemetry=records.quiet_telemetry(),
        )
        (push,) = sink.encode(one := records.records(1), sink.settle(one))
        await sink.send(push)
        path.write_text("second, longer\n")
        await sink.send(push)
        path.unlink()
        await sink.send(push)
        await sink.close()

    assert [request.headers["Authorization"] for request in loki.requests] == [
        "Bearer first",
        "Bearer second, longer",
        "Bearer second, longer",
    ]
    assert {request.headers["X-Scope-OrgID"] for request in loki.requests} == {"team"}


async def test_a_secret_that_cannot_be_read_is_tried_again(tmp_path):
    async with FakeLoki() as loki:
        sink = Loki(
            Config(url=loki.url, username="u", password=Secret(path=str(tmp_path / "none"))),
            telemetry=records.quiet_telemetry(),
        )
        (push,) = sink.encode(one := records.records(1), sink.settle(one))
        with pytest.raises(SinkRetry) as retry:
            await sink.send(push)
        (tmp_path / "none").write_text("pw")
        await sink.send(push)
        await sink.close()

    assert retry.value.reason == "credentials"
    assert loki.requests[0].headers["Authorization"] == client.basic("u", "pw")


@virtual
async def test_the_clock_of_loki_decides_what_is_in_the_future():
    """Ours is an hour ahead: without a correction every record would be refused as too new."""
    bench = LokiBench(loki=FakeLoki(now_ns=lambda: virtual_time.now_ns() - HOUR))

    async with bench.running():
        await bench.put(made(3))
        await asyncio.sleep(5)
        await bench.put(made(3))

    assert bench.ledger()["sent"] == 6
    assert bench.value("sidecar_sink_clock_skew_seconds") == pytest.approx(-3600, abs=2)
    assert sum(request.status == 400 for request in bench.loki.requests) == 1
    assert "its clock and ours differ" in bench.log


@virtual
async def test_an_answer_that_is_too_long_to_read_whole_is_still_understood():
    """Each second of refused entries has a message of its own."""
    bench = LokiBench(limits=Limits(max_age=1000.0))
    bench.sink._client.answer_bytes = 10_000

    await bench.deliver([*made(400, ago=2000, step_ns=SECOND), *made(300, ago=900, step_ns=SECOND)])

    assert bench.ledger() == {"sent": 300, "refused": 400, "dropped": 0, "dead_lettered": 0, "pending": 0}
    assert bench.loki.count() == len(bench.loki.lines()) == 300


@virtual
async def test_an_answer_that_makes_no_sense_does_not_turn_in_circles():
    bench = LokiBench()
    nonsense = "5 errors like: entry for stream 'x' has timestamp too old: 2026-01-01T00:00:00Z, oldest acceptable timestamp is: 1971-01-01T00:00:00Z"
    bench.loki.fault = lambda request: status(400, nonsense) if len(bench.loki.requests) < 200 else None

    await bench.deliver(made(100))

    assert len(bench.loki.requests) < 60
    assert sum(bench.ledger().values()) == 100


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
        ("https://x/prefix", "https://x/prefix/loki/api/v1/push"),
        ("http://loki:3100/loki/api/v1/push", "http://loki:3100/loki/api/v1/push"),
    ],
)
def test_the_push_address_follows_from_the_base(base, address):
    assert loki_sink.push_url(base) == address


def checked(*options, source="file"):
    """Return what `sidecar check` has against these options of the sink."""
    sets = [f"source.kind={source}", "source.path=/var/log/app/app.log", "sinks.loki.url=http://loki:3100"]
    sets += [f"sinks.loki.{option}" for option in options]
    try:
        config.load(sets=sets, environ={}, cwd=Path("/"))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["url=loki:3100"], "sinks.loki.url"),
        (["url=ftp://x"], "only http and https"),
        (["url=http://x?a=b"], "base URL"),
        (["url=http://u:p@x", "username=u", "password=p"], "keep one of them"),
        (["username=u", "password=p", "bearer_token=t"], "keep one of them"),
        (["password=p"], "sinks.loki.username: required with sinks.loki.password"),
        (["username=u"], "sinks.loki.password: required with sinks.loki.username"),
        (["cert_file=c"], "sinks.loki.key_file: required with sinks.loki.cert_file"),
        (["key_file=c"], "sinks.loki.cert_file: required with sinks.loki.key_file"),
        (["when_full=spool"], "set state.dir"),
        (["labels=bad-name=x"], '"bad-name" is not a label name'),
        (["labels=__x=y"], '"__x" is not a label name'),
        (["labels=schema_valid=y"], "the sidecar sets this label itself"),
        (["labels=team="], "an empty value is no label"),
        (["labels=" + ",".join(f"l{number}=x" for number in range(9))], "Loki takes 8 beside"),
        (["batch.max_bytes=4MiB"], "sinks.loki.batch.max_bytes"),
        (["timeout=0s"], "sinks.loki.timeout"),
    ],
)
def test_check_tells_what_is_wrong_with_the_sink(options, words):
    (problem,) = checked(*options)

    assert words in problem


@pytest.mark.parametrize("source", ["fifo", "command"])
def test_check_refuses_block_where_it_would_stop_the_application(source):
    (problem,) = checked("when_full=block", source=source)

    assert "use auto, spool or drop" in problem


def test_check_has_nothing_against_a_good_sink():
    assert checked() == []
    assert checked("url=https://x:1/y", "username=u", "password=p", "tenant_id=a-b", "labels=team=mine") == []
    assert checked("cert_file=c", "key_file=k", "bearer_token=t", "when_full=drop", source="fifo") == []


def test_grace_is_lokis():
    assert int(Limits().grace * SECOND) == stamps.GRACE_NS


async def test_a_batch_reaches_loki_over_http_within_its_wait():
    """End to end with sockets: the rules above run without them."""
    async with FakeLoki() as loki:
        telemetry = records.quiet_telemetry()
        sink = Loki(Config(url=loki.url, batch=BatchConfig(max_wait=0.05)), telemetry=telemetry)
        delivery = Delivery(sink, policy="block", max_bytes=1 << 20, telemetry=telemetry, max_wait=0.05)
        task = asyncio.create_task(delivery.run())
        tracker = records.tracker()
        for batch in records.batches(records.records(500), tracker):
            await delivery.put(batch)
        await loki.wait_for(lambda: len(loki.lines()) == 500)
        delivery.close()
        await task
        await sink.close()

    assert tracker.watermark.offset == 500
    assert records.ledger(telemetry, "loki")["sent"] == 500
