"""A container's log through the Kubernetes API, against a fake one that does what the real one does to its clients."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from contextlib import asynccontextmanager

import pytest

from sidecar import telemetry
from sidecar.errors import SourceError
from sidecar.model import Position
from sidecar.sources import kubeapi, kubepace, kubernetes
from tests.contracts.source_contract import SourceContract, Subject
from tests.support.fake_kubernetes import SECOND, FakeKubernetes, Fault
from tests.support.patience import PATIENCE
from tests.support.reading import Reader

HURRY = kubepace.Pace(first_retry=0.002, last_retry=0.01, poll=0.002, last_poll=0.005, settle=0.01, drain=PATIENCE)
WRAPPING = len("2026-11-25T00:00:00.000000000Z stdout F ")


class Followed:
    """Makes sources that follow one fake; their telemetry is one."""

    def __init__(self, fake, **options):
        self.fake = fake
        self.options = {"max_line_bytes": 1 << 20, "pace": HURRY, **options}
        self.said = io.StringIO()
        self.telemetry = telemetry.Telemetry(log=telemetry.Log(self.said))

    def source(self, saved=None):
        api = kubeapi.Api(self.fake.environ, "shop", "web-0", account=str(self.fake.account))
        return kubernetes.Kubernetes(api, "shop/web-0/6f1c/app", "app", self.telemetry, saved=saved, **self.options)

    @asynccontextmanager
    async def reading(self, saved=None):
        source = self.source(saved)
        try:
            await source.start()
            yield Reader(source)
        finally:
            await source.close()

    def counted(self, name, **labels):
        return self.telemetry.registry.get_sample_value(name, labels)

    @property
    def gaps(self):
        return {
            reason: count
            for reason in telemetry.catalogue.GAPS
            if (count := self.counted("sidecar_log_gaps_total", reason=reason))
        }


@pytest.fixture
async def fake(tmp_path):
    async with FakeKubernetes(tmp_path) as made:
        yield made


def contents(reader):
    """The application's lines, without what the runtime put before them."""
    return [line[WRAPPING:] for line in reader.data.split(b"\n") if line]


async def expect(reader, *lines):
    """Read until so many lines came in all, and compare them."""
    await reader.until(lambda: len(contents(reader)) >= len(lines))
    assert contents(reader) == list(lines)


async def nothing_more(reader, times=3):
    have = reader.data
    for _ in range(times):
        await reader.once(0.01)
    assert reader.data == have


class Unwrapped:
    """A source whose lines are the application's: what the runtime's form adds is taken off data and positions."""

    def __init__(self, source):
        self._source = source
        self._offset = 0
        self._ends = {}  # where a line ends → where it ends in the runtime's form
        self._held = b""

    def __getattr__(self, name):
        return getattr(self._source, name)

    async def read(self, wait):
        chunk = await self._source.read(wait)
        if chunk is None:
            return None
        start, texts, end = self._offset, [], chunk.start.offset - len(self._held)
        lines = (self._held + chunk.data).splitlines(keepends=True)
        self._held = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            end += len(line)
            texts.append(line[WRAPPING:])
            self._offset += len(texts[-1])
            self._ends[self._offset] = end
        return dataclasses.replace(chunk, data=b"".join(texts), start=Position(chunk.start.log, start))

    def snapshot(self, delivered):
        return self._source.snapshot(
            {log: Position(log, self._ends[position.offset]) for log, position in delivered.items()}
        )


class TestContract(SourceContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    @asynccontextmanager
    async def opened(self, content=b""):
        async with FakeKubernetes(self.directory) as fake:
            followed = Followed(fake)
            if content:
                fake.write(content)
            source = Unwrapped(followed.source())
            try:
                await source.start()
                yield Subject(source, fake.write, again=lambda saved: Unwrapped(followed.source(saved)))
            finally:
                await source.close()

    async def test_unread_is_what_waits_and_nothing_once_it_is_read(self):
        """What waits in the node's file is nothing that the API tells."""
        async with self.opened() as subject:
            subject.write(b"line\n")
            await Reader(subject.source).expect(b"line\n")

            assert subject.source.unread() == 0


async def test_lines_come_in_the_runtimes_form_with_the_time_the_api_gave(fake):
    fake.write(b"hello\n", ns=1_700_000_000 * SECOND + 5)
    async with Followed(fake).reading() as reader:
        await expect(reader, b"hello")

        assert reader.data == b"2023-11-14T22:13:20.000000005Z stdout F hello\n"
        assert fake.requests == [{"container": "app", "timestamps": "true", "follow": "true"}]


# H05: reconnecting in the second that is being written


@pytest.mark.parametrize("split", range(7))
async def test_h05_a_reconnect_within_a_second_repeats_and_loses_nothing(fake, split):
    """Equal lines, equal times, times out of order."""
    second = 1_700_000_000 * SECOND
    rows = [(b"a", 5), (b"a", 5), (b"b", 5), (b"late", -400_000_000), (b"a", 5), (b"c", 1), (b"a", 900_000_000)]
    followed = Followed(fake)
    async with followed.reading() as reader:
        for number, (line, ns) in enumerate(rows):
            if number == split:
                await expect(reader, *[row[0] for row in rows[:split]])
                fake.cut()
            fake.write(line + b"\n", ns=second + ns)
        await expect(reader, *[row[0] for row in rows])
        await nothing_more(reader)
        assert followed.gaps == {}


async def test_h05_a_line_that_was_cut_in_the_middle_comes_whole_and_once(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\ntwo is ")
        await expect(reader, b"one")
        fake.abort()
        fake.write(b"long\n")
        await expect(reader, b"one", b"two is long")
        await nothing_more(reader)
        assert followed.gaps == {}


async def test_rule_31_a_connection_follows_with_timestamps_from_the_second_before_the_newest_line(fake):
    """`sinceTime` is a whole second; one more, because stdout and stderr are stamped before they are written."""
    fake.write(b"one\n", ns=1_700_000_000 * SECOND + 999_999_999)
    async with Followed(fake).reading() as reader:
        await expect(reader, b"one")
        fake.cut()
        fake.write(b"two\n", ns=1_700_000_001 * SECOND)
        await expect(reader, b"one", b"two")
        first, again = fake.requests[:2]
        assert first == {"container": "app", "timestamps": "true", "follow": "true"}
        assert again == {**first, "sinceTime": "2023-11-14T22:13:19Z"}


# H06: what the API does to its clients


ENDS = ["cut", "close", "abort"]  # cleanly, as the API server passes the kubelet's end on; in between; by a reset


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("written", [b"", b"t", b"two is "], ids=["between two lines", "one byte", "half a line"])
async def test_h06_cut_after_four_hours_wherever_the_line_is_nothing_is_lost_or_comes_twice(fake, end, written):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n" + written)
        await expect(reader, b"one")
        for _ in range(3):
            await nothing_more(reader)
            getattr(fake, end)()
        fake.write(b"two is long\n"[len(written) :] + b"three\n")
        await expect(reader, b"one", b"two is long", b"three")
        await nothing_more(reader)
        assert reader.ended == []
        assert followed.gaps == {}


@pytest.mark.parametrize("torn", range(1, 33, 5))
async def test_h06_a_connection_that_closes_within_a_chunk_gives_that_line_once_and_whole(fake, torn):
    second = 1_700_000_000 * SECOND
    line = b"2023-11-14T22:13:20.000000000Z two\n"
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n", ns=second)
        await expect(reader, b"one")
        fake.close(line[:torn])
        await nothing_more(reader)
        fake.write(b"two\nthree\n", ns=second)
        await expect(reader, b"one", b"two", b"three")
        await nothing_more(reader)
        assert followed.gaps == {}


@pytest.mark.parametrize("end", ENDS)
async def test_h06_a_stream_that_ends_is_no_end_while_the_container_runs(fake, end):
    followed = Followed(fake)
    async with followed.reading() as reader:
        for number in range(5):
            fake.write(b"line %d\n" % number)
            await expect(reader, *[b"line %d" % each for each in range(number + 1)])
            getattr(fake, end)()
        await nothing_more(reader)
        assert reader.ended == []
        assert followed.gaps == {}


async def test_h06_the_token_is_read_again_for_each_connection(fake):
    async with Followed(fake).reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.set_token("second")
        fake.cut()
        fake.write(b"two\n")
        await expect(reader, b"one", b"two")
        assert reader.source.attached


async def test_rule_31_the_authority_is_read_again_for_each_connection(fake):
    """One that signed nothing here is not trusted, whatever was trusted before; an overlap of both is."""
    fake.set_authority("client.pem")
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await nothing_more(reader)
        assert "cannot reach the API server: ClientConnectorCertificateError" in followed.said.getvalue()
        fake.set_authority("authority.pem")
        await expect(reader, b"one")
        fake.set_authority("client.pem")
        fake.cut()
        asked = len(fake.requests)
        fake.write(b"two\n")
        await reader.once(0.05)  # what was sent before the cut may still come
        have = reader.data
        await nothing_more(reader)
        assert reader.data == have
        assert len(fake.requests) == asked
        fake.set_authority("client.pem", "authority.pem")
        await expect(reader, b"one", b"two")
        assert followed.gaps == {}


@pytest.mark.parametrize("name", ["token", "ca.crt"])
async def test_h06_an_account_that_is_not_mounted_yet_is_waited_for(fake, name):
    path = fake.account / name
    content = path.read_bytes()
    path.unlink()
    followed = Followed(fake)
    fake.write(b"one\n")
    async with followed.reading() as reader:
        await nothing_more(reader)
        assert '"event":"source_waiting"' in followed.said.getvalue()
        path.write_bytes(content[:10] if name == "ca.crt" else b"")  # half written
        await nothing_more(reader)
        path.write_bytes(content)
        await expect(reader, b"one")


async def test_h06_a_refused_token_is_said_and_tried_again(fake):
    followed = Followed(fake)
    fake.set_token("second", file=False)
    async with followed.reading() as reader:
        await nothing_more(reader)
        assert not reader.source.attached
        assert "does not accept the service account's token" in followed.said.getvalue()
        fake.set_token("second")
        fake.write(b"one\n")
        await expect(reader, b"one")
        assert reader.source.attached


async def test_h06_forbidden_names_the_role_that_is_missing_and_is_tried_again(fake):
    fake.logs_forbidden = True
    followed = Followed(fake)
    async with followed.reading() as reader:
        await nothing_more(reader)
        assert not reader.source.attached
        assert 'may not get \\"pods/log\\" in namespace \\"shop\\"' in followed.said.getvalue()
        assert "resources [pods, pods/log], verbs [get]" in followed.said.getvalue()
        fake.logs_forbidden = False
        fake.write(b"one\n")
        await expect(reader, b"one")


async def test_without_the_pods_status_the_log_is_followed_all_the_same(fake):
    fake.pods_forbidden = True
    followed = Followed(fake)
    fake.write(b"one\n")
    async with followed.reading() as reader:
        await expect(reader, b"one")
        fake.cut()
        fake.write(b"two\n")
        await expect(reader, b"one", b"two")
        assert reader.source.attached
        assert "shop/web-0/6f1c/app without the pod's status" in followed.said.getvalue()
        assert followed.gaps == {}


async def test_h06_a_role_without_pods_is_said_once_and_followed_and_asked_again(fake):
    fake.pods_forbidden = True
    followed = Followed(fake)
    lines = []
    async with followed.reading() as reader:
        for number in range(5):
            fake.write(b"line %d\n" % number)
            lines.append(b"line %d" % number)
            await expect(reader, *lines)
            fake.cut()
        assert followed.said.getvalue().count("without the pod's status") == 1
        assert 'may not get \\"pods\\"' in followed.said.getvalue()
        assert "cannot read" not in followed.said.getvalue(), "it is read"
        assert fake.pod_requests >= 5
        fake.pods_forbidden = False
        fake.cut()
        fake.write(b"known\n")
        await expect(reader, *lines, b"known")
        fake.write(b"last words\n")
        fake.restart()
        fake.write(b"first words\n")
        await expect(reader, *lines, b"known", b"last words", b"first words")
        assert reader.ended == ["app#1"]
        assert followed.gaps == {}
        fake.pods_forbidden = True
        fake.cut()
        fake.write(b"blind again\n")
        await expect(reader, *lines, b"known", b"last words", b"first words", b"blind again")
        assert followed.said.getvalue().count("without the pod's status") == 2, "it was allowed in between"


async def test_h08_a_restart_without_the_pods_status_is_a_gap(fake):
    """What the dead instance wrote last cannot be asked for: nothing tells that it is dead."""
    fake.pods_forbidden = True
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.abort()
        fake.write(b"last words\n")
        fake.restart()
        fake.write(b"two\n")
        await expect(reader, b"one", b"two")
        assert sum(followed.gaps.values()) == 1


@pytest.mark.parametrize("status", [404, 410, 429, 500, 503])
async def test_h06_a_pod_that_is_refused_for_a_while_is_asked_for_again(fake, status):
    followed = Followed(fake)
    fake.pod_faults = [Fault(status, "later")] * 3
    fake.write(b"one\n")
    async with followed.reading() as reader:
        await expect(reader, b"one")
        assert fake.pod_requests == 4
        assert followed.gaps == {}


async def test_h06_too_many_requests_waits_as_long_as_the_api_asks(fake):
    fake.faults = [Fault(429, "slow down", {"Retry-After": "1"})]
    fake.write(b"one\n")
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with Followed(fake).reading() as reader:
        await expect(reader, b"one")
        assert loop.time() - begin >= 1.0


@pytest.mark.parametrize("status", [404, 410, 500, 503, 400])
async def test_any_other_refusal_is_tried_again(fake, status):
    followed = Followed(fake)
    fake.faults = [Fault(status, "container not found"), Fault(status, "gone")]
    fake.write(b"one\n")
    async with followed.reading() as reader:
        await expect(reader, b"one")
        assert followed.gaps == {}


async def test_a_container_that_is_being_created_is_waited_for_in_silence(fake):
    fake.creating = True
    followed = Followed(fake)
    async with followed.reading() as reader:
        await nothing_more(reader)
        assert reader.source.attached
        assert followed.said.getvalue() == ""
        fake.creating = False
        fake.write(b"one\n")
        await expect(reader, b"one")


# H07: restarts


async def test_a_restart_drains_the_dead_instance_and_then_follows_the_new_one(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.abort()
        fake.write(b"last words\n")
        fake.restart()
        fake.write(b"first words\n")
        await expect(reader, b"one", b"last words", b"first words")
        assert reader.ended == ["app#1"]
        assert set(reader.logs) == {"app#1", "app#2"}
        assert followed.gaps == {}


async def test_h07_a_dead_instance_is_not_repeated_during_back_off(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\ntwo\n")
        await expect(reader, b"one", b"two")
        fake.back_off()
        await reader.ends("app#1")
        asked = len(fake.requests)
        await nothing_more(reader, 5)
        assert len(fake.requests) == asked, "nothing is asked for that is known"
        fake.restart()
        fake.write(b"one\n")
        await expect(reader, b"one", b"two", b"one")
        assert followed.gaps == {}


async def test_h07_an_instance_is_known_by_its_id_and_drained_as_the_previous_one(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"same\n", ns=1_700_000_000 * SECOND)
        await expect(reader, b"same")
        fake.abort()
        fake.restart()
        fake.write(b"same\n", ns=1_600_000_000 * SECOND)  # the clock was set back
        await expect(reader, b"same", b"same")
        await nothing_more(reader)
        states = reader.source.snapshot(reader.positions)["generations"]
        assert [one["id"] for one in states] == [fake.current.id]
        previous = [one for one in fake.requests if one.get("previous") == "true"]
        assert len(previous) == 1
        assert "follow" not in previous[0]
        assert followed.gaps == {}


async def test_rule_32_the_end_of_a_stream_ends_nothing_until_the_pods_status_says_so(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.pod_faults = [Fault(500, "no status")] * 100
        fake.die()
        await reader.until(lambda: len(fake.pod_faults) <= 90)
        assert reader.ended == []
        fake.pod_faults.clear()
        await reader.ends("app#1")
        assert followed.gaps == {}


async def test_an_unfinished_last_line_comes_with_the_end_of_its_log(fake):
    async with Followed(fake).reading() as reader:
        fake.write(b"one\nlast wor")
        fake.die()
        await expect(reader, b"one", b"last wor")
        assert reader.ended == ["app#1"]


async def test_instances_that_come_and_go_unseen_are_gaps(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"zero\n")
        await expect(reader, b"zero")
        for number in range(1, 4):
            fake.restart()
            fake.write(b"%d\n" % number)
        await expect(reader, b"zero", b"2", b"3")
        assert followed.gaps["restarted"] >= 1


async def test_a_dead_instance_whose_log_is_removed_is_a_gap(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.current.removed = True
        fake.restart()
        fake.write(b"two\n")
        await expect(reader, b"one", b"two")
        assert followed.gaps == {"restarted": 1}


@pytest.mark.parametrize("seconds", [5, 3600])
async def test_a_log_opened_under_the_name_of_a_dead_instance_is_not_read_twice(fake, seconds):
    """The pod's status lags: the kubelet already serves the next instance."""
    followed = Followed(fake)
    fake.write(b"zero\n")
    fake.reported = 0
    fake.restart()
    now = fake.clock_ns()
    fake.write(b"one\n", ns=now)
    fake.write(b"two\n", ns=now + seconds * SECOND)
    async with followed.reading() as reader:
        await expect(reader, b"one", b"two")
        fake.reported = None
        fake.cut()
        fake.write(b"three\n", ns=now + seconds * SECOND)
        await expect(reader, b"one", b"two", b"zero", b"three")
        await nothing_more(reader)
        assert followed.gaps == {}


async def test_a_restart_that_the_pods_status_does_not_tell_yet_is_no_gap(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"zero\n")
        await expect(reader, b"zero")
        fake.reported, fake.reports = 0, 1
        fake.restart()
        fake.write(b"one\n")
        await expect(reader, b"zero", b"one")
        assert followed.gaps == {}


# H08: rotations


async def test_h08_a_rotation_while_disconnected_is_counted(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\ntwo\n")
        await expect(reader, b"one", b"two")
        fake.abort()
        fake.write(b"lost\n")
        fake.rotate()
        fake.write(b"three\n")
        await expect(reader, b"one", b"two", b"three")
        assert followed.gaps == {"rotated_away": 1}
        assert reader.ended == ["app#1"], "positions behind a gap are of another log"
        fake.cut()
        fake.write(b"four\n")
        await expect(reader, b"one", b"two", b"three", b"four")
        assert followed.gaps == {"rotated_away": 1}


async def test_a_rotation_while_connected_is_none(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        for number in range(4):
            fake.write(b"%d\n" % number)
            await expect(reader, *[b"%d" % each for each in range(number + 1)])
            fake.rotate()
        assert followed.gaps == {}


async def test_a_stalled_stream_is_noticed(fake):
    """Kubelets before 1.29 stop following at a rotation and keep the connection."""
    fake.blind_after = 1
    followed = Followed(fake, pace=kubepace.Pace(first_retry=0.002, poll=0.002, probe=0.02))
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.write(b"two\n")
        await nothing_more(reader, 1)
        await reader.until(lambda: "the stream has stalled" in followed.said.getvalue())
        fake.blind_after = None
        await expect(reader, b"one", b"two")


# starting and stopping


async def test_the_end_is_where_start_at_end_begins(fake):
    fake.write(b"old\n")
    followed = Followed(fake, start_at="end")
    async with followed.reading() as reader:
        await nothing_more(reader)
        fake.write(b"new\n")
        await expect(reader, b"new")
        fake.restart()
        fake.write(b"newer\n")
        await expect(reader, b"new", b"newer")
        assert followed.gaps == {}


async def test_h03_lines_written_just_before_stop_are_delivered(fake):
    async with Followed(fake).reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        fake.write(b"last words\nunfini")
        fake.die()
        reader.source.stop()
        await reader.rest()
        assert contents(reader) == [b"one", b"last words", b"unfini"]


async def test_stop_ends_in_bounded_time_where_the_api_is_gone(fake):
    followed = Followed(fake, pace=kubepace.Pace(first_retry=0.002, drain=0.05))
    async with followed.reading() as reader:
        fake.set_token("another", file=False)
        fake.abort()
        reader.source.stop()
        await reader.rest()
        assert '"event":"not_drained"' in followed.said.getvalue()


async def test_a_half_line_at_stop_is_read_whole_by_the_next_start(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\nhal")
        await expect(reader, b"one")
        where = reader.positions
        reader.source.stop()
        await reader.rest()
        assert contents(reader) == [b"one", b"hal"]
        state = json.loads(json.dumps(reader.source.snapshot(where)))
    fake.write(b"f\ntwo\n")
    async with followed.reading(state) as reader:
        await expect(reader, b"half", b"two")


async def test_a_restart_of_the_sidecar_drains_the_instance_it_was_in(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\ntwo\n")
        await expect(reader, b"one", b"two")
        state = json.loads(json.dumps(reader.source.snapshot(reader.positions)))
    fake.write(b"three\n")
    fake.restart()
    fake.write(b"four\n")
    async with followed.reading(state) as reader:
        await expect(reader, b"three", b"four")
        assert reader.chunks[0].start == Position("app#1", 2 * WRAPPING + 8), "offsets go on"
        assert followed.gaps == {}


async def test_a_restart_of_the_sidecar_across_a_rotation_is_a_gap(fake):
    followed = Followed(fake)
    async with followed.reading() as reader:
        fake.write(b"one\n")
        await expect(reader, b"one")
        state = json.loads(json.dumps(reader.source.snapshot(reader.positions)))
    fake.rotate()
    fake.write(b"two\n")
    async with followed.reading(state) as reader:
        await expect(reader, b"two")
        assert followed.gaps == {"rotated_away": 1}
        assert reader.ended == ["app#1"]


async def test_a_state_holds_no_content(fake):
    async with Followed(fake).reading() as reader:
        fake.write(b"password=hunter2\n")
        await expect(reader, b"password=hunter2")
        assert "hunter2" not in json.dumps(reader.source.snapshot(reader.positions))


async def test_a_line_beyond_the_bound_is_cut_and_its_rest_counted(fake):
    followed = Followed(fake, max_line_bytes=1024)
    fake.write(b"x" * 5_000_000 + b"\nnext\n")
    async with followed.reading() as reader:
        await reader.until(lambda: len(contents(reader)) == 2)
        long, following = contents(reader)
        assert 1024 < len(long) < 1200
        assert following == b"next"
        assert followed.counted("sidecar_lost_bytes_total", reason="line_too_long") == 5_000_000 - len(long)


async def test_the_kubelets_own_complaint_is_no_line_of_the_application(fake):
    fake.complaint = b"unable to retrieve container logs for containerd://0\n"
    fake.write(b"one\n")
    followed = Followed(fake)
    async with followed.reading() as reader:
        await expect(reader, b"one")
        assert "the kubelet says: unable to retrieve" in followed.said.getvalue()


def test_outside_a_cluster_it_says_so():
    with pytest.raises(SourceError, match="KUBERNETES_SERVICE_HOST is not set"):
        kubeapi.Api({}, "shop", "web-0")
