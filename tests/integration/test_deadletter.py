"""Dead letters on a real disk."""

from __future__ import annotations

import orjson
import pytest

from sidecar.deadletter import DeadLetters
from sidecar.errors import StateError
from tests.support import records


@pytest.fixture
def telemetry():
    return records.quiet_telemetry()


@pytest.fixture
def letters(tmp_path, telemetry):
    made = DeadLetters(tmp_path / "dead-letter" / "loki.ndjson", max_bytes=20_000, telemetry=telemetry)
    yield made
    made.close()


def read(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_letter_holds_the_record_the_reason_and_the_time(letters, tmp_path):
    record = records.record("lost", note="ü")

    assert letters.write([record], "too_old", "oldest acceptable …") == 1

    (letter,) = read(tmp_path / "dead-letter" / "loki.ndjson")
    assert letter["reason"] == "too_old"
    assert letter["detail"] == "oldest acceptable …"
    assert letter["record"] == orjson.loads(record.line)
    assert letter["time"].endswith("Z")
    assert record.line in (tmp_path / "dead-letter" / "loki.ndjson").read_bytes()  # byte for byte


def test_a_long_detail_is_shortened(letters, tmp_path):
    letters.write([records.record()], "malformed", "x" * 5000)

    assert len(read(tmp_path / "dead-letter" / "loki.ndjson")[0]["detail"]) == 300


def test_the_files_never_take_more_than_their_bound_and_count_what_made_room(letters, tmp_path, telemetry):
    for number in range(300):
        letters.write([records.record(str(number))], "malformed")
        size = sum(path.stat().st_size for path in (tmp_path / "dead-letter").iterdir())
        assert size <= 20_000

    kept = read(tmp_path / "dead-letter" / "loki.ndjson.1") + read(tmp_path / "dead-letter" / "loki.ndjson")
    messages = [int(letter["record"]["message"]) for letter in kept]
    assert messages == list(range(300 - len(messages), 300))
    assert records.value(telemetry, "sidecar_lost_bytes_total", reason="dead_letter_full") > 0


def test_a_record_larger_than_the_file_is_not_kept_and_counted(letters, telemetry):
    assert letters.write([records.record("x" * 30_000), records.record()], "too_large") == 1
    assert records.value(telemetry, "sidecar_lost_bytes_total", reason="dead_letter_full") > 30_000


def test_the_next_process_goes_on_in_the_same_file(letters, tmp_path, telemetry):
    letters.write([records.record("a")], "x")
    letters.close()
    letters.close()

    again = DeadLetters(tmp_path / "dead-letter" / "loki.ndjson", max_bytes=20_000, telemetry=telemetry)
    again.write([records.record("b")], "x")
    again.close()

    assert [letter["record"]["message"] for letter in read(tmp_path / "dead-letter" / "loki.ndjson")] == ["a", "b"]


def test_a_torn_last_line_is_closed(letters, tmp_path, telemetry):
    letters.write([records.record("a"), records.record("b")], "x")
    letters.close()
    path = tmp_path / "dead-letter" / "loki.ndjson"
    path.write_bytes(path.read_bytes()[:-40])

    again = DeadLetters(path, max_bytes=20_000, telemetry=telemetry)
    again.write([records.record("c")], "x")
    again.close()

    lines = path.read_bytes().splitlines()
    assert [orjson.loads(lines[n])["record"]["message"] for n in (0, 2)] == ["a", "c"]


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path, telemetry):
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="cannot open the dead-letter file"):
        DeadLetters(tmp_path / "file" / "x.ndjson", max_bytes=1000, telemetry=telemetry)


def test_a_disk_that_fails_keeps_nothing_and_says_so(tmp_path, telemetry):
    """/dev/full takes no byte, like a full disk."""
    path = tmp_path / "loki.ndjson"
    path.symlink_to("/dev/full")
    letters = DeadLetters(path, max_bytes=20_000, telemetry=telemetry)

    assert letters.write([records.record()], "x") == 0
    assert records.value(telemetry, "sidecar_lost_bytes_total", reason="dead_letter_full") > 0
    letters.close()


async def test_sync_waits_for_the_disk(letters):
    letters.write([records.record()], "x")
    await letters.sync()
    letters.close()
    await letters.sync()
