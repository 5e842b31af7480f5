"""The spool on a real disk: what was put is found again, whatever happened to the files in between."""

from __future__ import annotations

import os

import pytest

from sidecar.errors import StateError
from sidecar.model import Outcome
from sidecar.spool import Spool
from tests.support import records


@pytest.fixture
def telemetry():
    return records.quiet_telemetry()


@pytest.fixture
def reopen(tmp_path, telemetry):
    """Return a function that opens the spool, after closing the one before."""
    opened = []

    def open_again(max_bytes=1 << 20):
        for spool in opened:
            spool.close()
        opened.append(Spool(tmp_path, max_bytes=max_bytes, telemetry=telemetry, wall=lambda: 1000.0))
        return opened[-1]

    yield open_again
    for spool in opened:
        spool.close()


def put(spool, made, *, compress=False):
    return spool.append(made, [record.time_ns for record in made], compress=compress)


def read_all(spool):
    frames = []
    while (frame := spool.read()) is not None:
        frames.append(frame)
    return frames


def lines(frames):
    return [record.line for frame in frames for record in frame.records]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_records_come_back_whole(reopen, compress):
    made = [
        records.record("ünïcode \x00 \n", time_ns=5),
        records.record(
            "wrong",
            time_ns=300 * 10**18,
            outcome=Outcome.INVALID,
            format="gin",
            level="warn",
            trace_id="",
            span_id="",
            violations=(("trace_id", "required"), ("timestamp", "format")),
        ),
    ]
    spool = reopen()

    spool.append(made, [5, 1_000], compress=compress)
    (frame,) = read_all(reopen())

    assert frame.records == made
    assert list(frame.times) == [5, 1_000]
    assert list(frame.numbers) == [0, 1]
    assert frame.put_at == 1000.0


def test_frames_come_back_in_order_over_many_segments(reopen):
    spool = reopen(max_bytes=1 << 20)
    made = records.records(2000)
    for start in range(0, 2000, 20):
        put(spool, made[start : start + 20])

    assert len(list(spool._directory.glob("*.seg"))) > 2
    assert lines(read_all(reopen())) == [record.line for record in made]


def test_what_is_finished_does_not_come_back(reopen):
    spool = reopen()
    made = records.records(30)
    put(spool, made[:10])
    put(spool, made[10:])

    spool.finish(range(12))
    spool.finish([20, 21, 29])

    frames = read_all(reopen())
    assert [number for frame in frames for number in frame.numbers] == [*range(12, 20), *range(22, 29)]
    assert lines(frames) == [record.line for record in (*made[12:20], *made[22:29])]


def test_finished_segments_are_removed(reopen, tmp_path):
    spool = reopen(max_bytes=1 << 20)
    for _ in range(100):
        put(spool, records.records(20))
    many = len(list(tmp_path.glob("*.seg")))

    spool.finish(range(1500))
    assert len(list(tmp_path.glob("*.seg"))) < many

    spool.finish(range(1500, 2000))
    assert len(list(tmp_path.glob("*.seg"))) <= 1
    assert spool.pending == 0
    assert spool.waiting_bytes == 0


def test_numbers_go_on_after_everything_was_finished(reopen):
    spool = reopen()
    put(spool, records.records(10))
    spool.finish(range(10))

    again = reopen()
    assert put(again, records.records(5)) == 10
    assert [list(frame.numbers) for frame in read_all(reopen())] == [[10, 11, 12, 13, 14]]


def test_there_is_no_room_beyond_the_bound(reopen, tmp_path):
    spool = reopen(max_bytes=64 << 10)
    taken = 0
    while put(spool, records.records(20)) is not None:
        taken += 20

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 64 << 10
    assert taken > 100
    assert spool.pending == taken
    spool.finish(range(taken))
    assert put(spool, records.records(20)) == taken


def test_a_torn_tail_is_cut_off_at_any_byte(reopen, tmp_path):
    made = records.records(6)
    spool = reopen()
    put(spool, made[:3])
    whole = spool._segments[0].size
    put(spool, made[3:])
    (path,) = tmp_path.glob("*.seg")
    data = path.read_bytes()

    for end in range(whole, len(data), 7):
        path.write_bytes(data[:end])
        (tmp_path / "cursor").unlink(missing_ok=True)
        again = reopen()

        assert lines(read_all(again)) == [record.line for record in made[:3]]
        assert put(again, made[3:4]) == 3
        assert path.stat().st_size > whole


def test_a_damaged_frame_is_passed_over_and_counted(reopen, tmp_path, telemetry):
    made = records.records(9)
    spool = reopen()
    for start in (0, 3, 6):
        put(spool, made[start : start + 3])
    (path,) = tmp_path.glob("*.seg")
    data = bytearray(path.read_bytes())
    size = len(data) // 3
    data[size + size // 2] ^= 0xFF

    path.write_bytes(data)
    again = reopen()

    assert lines(read_all(again)) == [record.line for record in (*made[:3], *made[6:])]
    assert again.pending == 6
    lost = records.value(telemetry, "sidecar_lost_bytes_total", reason="spool_damaged")
    assert 0 < lost <= size + 10


def test_damage_while_it_runs_is_passed_over_too(reopen, tmp_path, telemetry):
    made = records.records(9)
    spool = reopen()
    for start in (0, 3, 6):
        put(spool, made[start : start + 3])
    (path,) = tmp_path.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[-10] ^= 0xFF
    path.write_bytes(data)

    assert lines(read_all(spool)) == [record.line for record in made[:6]]
    assert spool.pending == 6
    assert records.value(telemetry, "sidecar_lost_bytes_total", reason="spool_damaged") > 0


def test_a_damaged_cursor_costs_repetition_and_never_loss(reopen, tmp_path):
    made = records.records(10)
    spool = reopen()
    put(spool, made)
    spool.finish(range(4))
    spool.finish(range(4, 6))
    spool.close()
    cursor = tmp_path / "cursor"
    data = bytearray(cursor.read_bytes())

    data[3] ^= 0xFF  # generation 2, the newer one
    cursor.write_bytes(data)
    assert lines(read_all(reopen())) == [record.line for record in made[4:]]

    cursor.write_bytes(os.urandom(8192))
    assert lines(read_all(reopen())) == [record.line for record in made]


def test_a_lost_segment_leaves_no_records_that_will_never_come(reopen, tmp_path):
    spool = reopen(max_bytes=1 << 20)
    for _ in range(100):
        put(spool, records.records(20))
    spool.close()
    first, *_ = sorted(tmp_path.glob("*.seg"))
    first.unlink()

    again = reopen()
    assert again.pending == sum(len(frame.numbers) for frame in read_all(again))


def test_two_processes_cannot_share_a_spool(reopen, tmp_path, telemetry):
    reopen()

    with pytest.raises(StateError, match="in use"):
        Spool(tmp_path, max_bytes=1 << 20, telemetry=telemetry)


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path, telemetry):
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="cannot use the spool"):
        Spool(tmp_path / "file" / "spool", max_bytes=1 << 20, telemetry=telemetry)


def test_a_full_disk_refuses_and_leaves_no_trace(tmp_path, telemetry):
    """/dev/full fails every write as a full disk does; a short write is taken back."""

    class Full(Spool):
        def _writable(self, size):
            segment = super()._writable(size)
            os.close(segment.descriptor)
            segment.descriptor = os.open("/dev/full", os.O_RDWR)
            return segment

    spool = Full(tmp_path, max_bytes=1 << 20, telemetry=telemetry)

    assert put(spool, records.records(3)) is None
    assert spool.pending == 0
    spool.close()


async def test_sync_tells_what_survives_a_power_cut(reopen):
    spool = reopen()
    put(spool, records.records(3))
    assert await spool.sync() == 3
    put(spool, records.records(2))
    assert spool.sync_now() == 5


def test_a_reader_that_was_told_to_skip_sees_only_what_is_newer(reopen):
    spool = reopen()
    made = records.records(30)
    put(spool, made[:10])
    spool.skip()
    put(spool, made[10:20])
    put(spool, made[20:])

    assert lines(read_all(spool)) == [record.line for record in made[10:]]
