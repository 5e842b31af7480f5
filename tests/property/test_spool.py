"""The spool against a list: whatever is put, read, finished, killed and torn, nothing is lost and nothing overtakes."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.spool import Spool
from sidecar.spool.ranges import Ranges, runs
from sidecar.telemetry import Log, Telemetry
from tests.support import records


class SpoolMachine(RuleBasedStateMachine):
    """The model: numbers put and not finished, in order. A kill keeps the files as they are."""

    @initialize()
    def start(self):
        self.directory = Path(tempfile.mkdtemp())
        self.telemetry = Telemetry(log=Log(io.StringIO()), sinks=("loki",))
        self.written = {}  # number → line
        self.finished = set()
        self.read = set()
        self.spool = self.open()

    def open(self):
        return Spool(self.directory, max_bytes=96 << 10, telemetry=self.telemetry)

    @rule(count=st.integers(1, 40), size=st.integers(0, 600), compress=st.booleans())
    def put(self, count, size, compress):
        made = [records.record(f"{self.spool.end + n}", time_ns=n + 1, filler="x" * size) for n in range(count)]
        first = self.spool.append(made, [record.time_ns for record in made], compress=compress)
        if first is not None:
            self.written.update(zip(range(first, first + count), (record.line for record in made), strict=True))

    @rule()
    def read_one(self):
        frame = self.spool.read()
        waiting = [n for n in sorted(self.written) if n not in self.finished and n not in self.read]
        if frame is None:
            assert waiting == []
            return
        assert list(frame.numbers) == waiting[: len(frame.numbers)]
        assert [record.line for record in frame.records] == [self.written[n] for n in frame.numbers]
        self.read.update(frame.numbers)

    @precondition(lambda self: self.read - self.finished)
    @rule(data=st.data())
    def finish(self, data):
        open_numbers = sorted(self.read - self.finished)
        some = data.draw(st.sets(st.sampled_from(open_numbers), min_size=1))
        self.spool.finish(sorted(some))
        self.finished |= some

    @rule()
    def kill_and_start_again(self):
        self.spool.close()
        self.spool = self.open()
        self.read = set(self.finished)

    @rule(cut=st.integers(1, 60))
    def tear_the_tail(self, cut):
        """A crash of the machine may take the end of what was never acknowledged, and the last frame with it."""
        self.spool.close()
        segments = [path for path in sorted(self.directory.glob("*.seg")) if path.stat().st_size]
        if segments:
            size = segments[-1].stat().st_size
            with segments[-1].open("r+b") as file:
                file.truncate(max(0, size - cut))
        self.spool = self.open()
        left = {number for frame in self._frames() for number in frame.numbers}
        self.finished = {number for number in self.finished if number < self.spool.end}
        self.written = {n: line for n, line in self.written.items() if n in left or n in self.finished}
        self.read = set(self.finished)

    def _frames(self):
        frames = []
        while (frame := self.spool.read()) is not None:
            frames.append(frame)
        self.spool.close()
        self.spool = self.open()
        return frames

    @invariant()
    def the_bound_holds(self):
        if hasattr(self, "directory"):
            assert sum(path.stat().st_size for path in self.directory.iterdir()) <= 96 << 10

    @invariant()
    def pending_is_exact(self):
        if hasattr(self, "spool"):
            assert self.spool.pending == len(set(self.written) - self.finished)

    def teardown(self):
        if hasattr(self, "spool"):
            self.spool.close()
            shutil.rmtree(self.directory)


def test_a_segment_of_which_a_crash_left_nothing_gives_its_name_to_no_second_one():
    """The machine crashed twice: the second crash took records in front of the empty segment."""
    machine = SpoolMachine()
    machine.start()
    try:
        for count, size in ((19, 162), (1, 0), (24, 140)):
            machine.put(count=count, size=size, compress=False)
        machine.tear_the_tail(cut=1)
        machine.tear_the_tail(cut=1)
        machine.put(count=1, size=0, compress=False)
        machine.put(count=21, size=542, compress=False)
        machine.kill_and_start_again()
        machine.pending_is_exact()
        for _ in range(4):
            machine.read_one()
    finally:
        machine.teardown()


SpoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSpool = SpoolMachine.TestCase


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12))))
def test_ranges_are_a_set_of_numbers(pairs):
    ranges, model = Ranges(), set()
    for start, length in pairs:
        ranges.add(start, start + length)
        model |= set(range(start, start + length))

        assert ranges.count == len(model)
        assert {number for number in range(80) if number in ranges} == model
        assert all(a[1] < b[0] for a, b in zip(ranges.ranges, ranges.ranges[1:], strict=False))
        assert ranges.low == min(set(range(81)) - model)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9))), st.integers(0, 50), st.integers(1, 20))
def test_covers_and_touches_agree_with_membership(pairs, start, length):
    ranges = Ranges()
    for low, count in pairs:
        ranges.add(low, low + count)
    asked = range(start, start + length)

    assert ranges.covers(asked.start, asked.stop) == all(number in ranges for number in asked)
    assert ranges.touches(asked.start, asked.stop) == any(number in ranges for number in asked)


@given(st.sets(st.integers(0, 50)))
def test_runs_are_the_numbers(numbers):
    ordered = sorted(numbers)

    assert [n for start, end in runs(ordered) for n in range(start, end)] == ordered
