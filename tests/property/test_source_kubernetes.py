"""Law: over any writing, cut, broken connection, restart of the container and crash of the sidecar, as long as nothing
is rotated away and restarts are not faster than they can be asked for, every line is delivered once and no gap counted.
Where files are rotated away, a missing line is a counted gap.
"""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import telemetry
from sidecar.model import Position
from sidecar.sources import kubeapi, kubepace, kubernetes
from tests.support.fake_kubernetes import SECOND, FakeKubernetes
from tests.support.patience import PATIENCE
from tests.support.reading import Reader

PACE = kubepace.Pace(first_retry=0.001, last_retry=0.004, poll=0.001, last_poll=0.002, settle=0.004, drain=PATIENCE)

actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 4), st.sampled_from((0, 0, 1, SECOND // 2, 3 * SECOND))),
        st.tuples(
            st.sampled_from(("cut", "close", "abort", "restart", "sync", "crash")), st.integers(0, 8), st.just(0)
        ),
    ),
    max_size=14,
)


class History:
    def __init__(self, fake):
        self.fake = fake
        self.telemetry = telemetry.Telemetry(log=telemetry.Log(io.StringIO()))
        self.written = []
        self.delivered = []
        self.reader = None
        self.state = None

    async def open(self):
        api = kubeapi.Api(self.fake.environ, "shop", "web-0", account=str(self.fake.account))
        source = kubernetes.Kubernetes(
            api, "shop/web-0", "app", self.telemetry, max_line_bytes=1024, saved=self.state, pace=PACE
        )
        await source.start()
        self.reader = Reader(source)

    def came(self):
        return [line.split(b" ", 3)[3] for line in self.reader.data.split(b"\n") if line]

    async def sync(self):
        async with asyncio.timeout(PATIENCE):
            while len(self.delivered) + len(self.came()) < len(self.written):
                assert await self.reader.once(0.01) is not None

    async def marked(self, line):
        """Read until this line came; what was written before it may be lost."""
        async with asyncio.timeout(PATIENCE):
            while line not in self.came() and line not in self.delivered:
                assert await self.reader.once(0.01) is not None

    def gaps(self):
        name = "sidecar_log_gaps_total"
        counts = [
            self.telemetry.registry.get_sample_value(name, {"reason": reason}) for reason in telemetry.catalogue.GAPS
        ]
        return sum(count or 0 for count in counts)

    async def noticed(self):
        """Read until the source knows the instance that runs now."""
        async with asyncio.timeout(PATIENCE):
            while self.reader.source._instances.known[-1].id != self.fake.current.id:
                await self.reader.once(0.01)

    async def crash(self, back):
        """Die with the last few lines undelivered, all of instances that can still be asked for."""
        ids = {one.id for one in self.fake.instances[-2:]}
        reachable = {one.log for one in self.reader.source._instances.known if one.id in ids}
        gone = sum(chunk.data.count(b"\n") for chunk in self.reader.chunks if chunk.start.log not in reachable)
        kept = max(gone, len(self.came()) - back)
        self.delivered += self.came()[:kept]
        positions = {}
        for chunk in self.reader.chunks:
            lines = chunk.data.splitlines(keepends=True)
            end = chunk.start.offset + sum(map(len, lines[:kept]))
            positions[chunk.start.log] = Position(chunk.start.log, end)
            if kept < len(lines):
                break  # nothing behind it is delivered, no end of a log either
            kept -= len(lines)
        self.state = json.loads(json.dumps(self.reader.source.snapshot(positions)))
        await self.reader.source.close()
        await self.open()


async def run(steps):
    now = 1_700_000_000 * SECOND
    with tempfile.TemporaryDirectory() as directory:
        async with FakeKubernetes(Path(directory), clock_ns=lambda: now) as fake:
            history = History(fake)
            await history.open()
            try:
                await history.noticed()
                for action, count, step in steps:
                    if action == "write":
                        for _ in range(count):
                            now += step
                            line = b"line %d" % (0 if step == 0 else len(history.written))  # equal ones too
                            history.written.append(line)
                            fake.write(line + b"\n")
                    elif action == "restart":
                        await history.sync()
                        now += SECOND
                        fake.restart()
                        await history.noticed()
                    elif action == "crash":
                        await history.crash(count)
                    elif action == "sync":
                        await history.sync()
                    else:
                        getattr(fake, action)()
                await history.sync()
                await history.reader.once(0.01)
                assert sorted(history.delivered + history.came()) == sorted(history.written)
                assert not history.gaps()
            finally:
                await history.reader.source.close()


@settings(max_examples=30)
@given(actions)
def test_every_line_is_delivered_once_whatever_happens_to_the_connection(steps):
    asyncio.run(run(steps))


rotations = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "cut", "abort", "rotate", "read", "crash")), st.integers(1, SECOND * 3 // 2)
    ),
    max_size=16,
)


async def run_rotating(steps):
    now = 1_700_000_000 * SECOND
    with tempfile.TemporaryDirectory() as directory:
        async with FakeKubernetes(Path(directory), clock_ns=lambda: now) as fake:
            history = History(fake)

            def write():
                line = b"line %d" % len(history.written)
                history.written.append(line)
                fake.write(line + b"\n")
                return line

            await history.open()
            try:
                await history.marked(write())
                for action, step in steps:
                    now += step
                    if action == "write":
                        write()
                    elif action == "read":
                        await history.reader.once(0.002)
                    elif action == "crash":
                        await history.crash(0)
                    else:
                        getattr(fake, action)()
                now += SECOND
                await history.marked(write())
                came = history.delivered + history.came()
                assert len(set(came)) == len(came), "no line comes twice"
                assert set(came) <= set(history.written)
                assert history.gaps() or sorted(came) == sorted(history.written), "what is lost is counted"
            finally:
                await history.reader.source.close()


@settings(max_examples=40)
@given(rotations)
def test_h08_what_a_rotation_takes_away_is_counted_and_nothing_comes_twice(steps):
    asyncio.run(run_rotating(steps))
