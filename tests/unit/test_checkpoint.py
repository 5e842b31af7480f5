"""A checkpoint is what was saved last, or nothing with a reason. It never raises and never guesses."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from sidecar import checkpoint, telemetry
from sidecar.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS: dict[str, Any] = {
    "source": {"kind": "file", "generations": [{"inode": 2**63, "offset": 10}]},
    "metrics": {"sums": [0.1, 1e300, -0.0], "name": "naïve 日本"},
}


class Told:
    """What a checkpoint told about itself."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.telemetry = telemetry.Telemetry(log=telemetry.Log(self._stream))

    def value(self, name: str, **labels: str) -> float:
        value = self.telemetry.registry.get_sample_value(name, labels)
        assert value is not None
        return value

    @property
    def invalid(self) -> dict[str, float]:
        counted = {
            reason: self.value("sidecar_checkpoint_invalid_total", reason=reason)
            for reason in telemetry.catalogue.INVALID_CHECKPOINTS
        }
        return {reason: count for reason, count in counted.items() if count}

    @property
    def saves(self) -> float:
        return self.value("sidecar_checkpoint_saves_total")

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def saved(tmp_path: Path, told: Told) -> checkpoint.Checkpoint:
    made = checkpoint.Checkpoint(tmp_path / "state" / "checkpoint.json", told.telemetry)
    made.prepare()
    return made


def test_what_was_saved_is_loaded_by_the_next_process(saved: checkpoint.Checkpoint, tmp_path: Path, told: Told) -> None:
    assert saved.save(SECTIONS)

    assert checkpoint.Checkpoint(tmp_path / "state" / "checkpoint.json", told.telemetry).load() == SECTIONS
    assert told.saves == 1
    assert told.invalid == {}


def test_where_nothing_was_saved_there_is_nothing_and_nothing_is_wrong(
    saved: checkpoint.Checkpoint, told: Told
) -> None:
    assert saved.load() is None
    assert told.invalid == {}


def test_what_has_not_changed_is_not_written_again(saved: checkpoint.Checkpoint, tmp_path: Path, told: Told) -> None:
    path = tmp_path / "state" / "checkpoint.json"
    saved.save({"source": {"a": 1, "b": 2}})
    before = path.stat()

    assert saved.save({"source": {"b": 2, "a": 1}})
    assert path.stat().st_ino == before.st_ino
    assert told.saves == 1

    assert saved.save({"source": {"a": 1, "b": 3}})
    assert path.stat().st_ino != before.st_ino
    assert told.saves == 2


def test_the_file_says_its_version_and_when_it_was_written(saved: checkpoint.Checkpoint, tmp_path: Path) -> None:
    saved.save(SECTIONS)

    document = json.loads((tmp_path / "state" / "checkpoint.json").read_bytes())

    assert document["version"] == checkpoint.VERSION
    assert document["saved_at"].endswith("Z")
    assert set(document) == {"version", "saved_at", "checksum", "sections"}


def test_only_the_owner_may_read_it(saved: checkpoint.Checkpoint, tmp_path: Path) -> None:
    saved.save(SECTIONS)

    assert (tmp_path / "state" / "checkpoint.json").stat().st_mode & 0o777 == 0o600


def rewritten(content: bytes, **changes: object) -> bytes:
    return orjson.dumps(orjson.loads(content) | changes)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda _: b"", "damaged", id="empty"),
        pytest.param(lambda content: content[:-10], "damaged", id="cut"),
        pytest.param(lambda _: b"[1, 2]", "damaged", id="not an object"),
        pytest.param(lambda _: b"{}", "damaged", id="no version"),
        pytest.param(lambda content: content.replace(b'"offset":10', b'"offset":11'), "damaged", id="one digit"),
        pytest.param(lambda content: rewritten(content, sections=[]), "damaged", id="sections are no object"),
        pytest.param(lambda content: rewritten(content, checksum=None), "damaged", id="no checksum"),
        pytest.param(lambda content: rewritten(content, version=2), "version", id="a later version"),
    ],
)
def test_g09_rule_23_a_file_that_cannot_be_used_is_reported_and_kept_aside(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told, damage: Any, reason: str
) -> None:
    saved.save(SECTIONS)
    path = tmp_path / "state" / "checkpoint.json"
    bad = damage(path.read_bytes())
    path.write_bytes(bad)

    assert saved.load() is None

    assert told.invalid == {reason: 1}
    assert "checkpoint_invalid" in told.events
    assert (tmp_path / "state" / "checkpoint.json.damaged").read_bytes() == bad
    assert not path.exists()


def test_after_a_damaged_file_the_next_save_starts_anew(saved: checkpoint.Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "state" / "checkpoint.json").write_bytes(b"\0" * 100)
    assert saved.load() is None

    assert saved.save(SECTIONS)
    assert saved.load() == SECTIONS


def test_a_file_that_cannot_be_read_is_reported(saved: checkpoint.Checkpoint, tmp_path: Path, told: Told) -> None:
    (tmp_path / "state" / "checkpoint.json").mkdir()

    assert saved.load() is None
    assert told.invalid == {"unreadable": 1}


def test_g09_a_directory_that_cannot_be_written_to_is_told_at_the_start(tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StateError, match=r"state\.dir: cannot write to .*Not a directory"):
        checkpoint.Checkpoint(tmp_path / "file" / "state" / "checkpoint.json", told.telemetry).prepare()


def test_preparing_leaves_what_was_saved_and_nothing_else(saved: checkpoint.Checkpoint, tmp_path: Path) -> None:
    saved.save(SECTIONS)
    (tmp_path / "state" / "checkpoint.json.tmp").write_bytes(b"left by a crash")

    saved.prepare()

    assert saved.load() == SECTIONS
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["checkpoint.json"]


def test_a_save_that_fails_is_told_at_a_limited_rate_and_tried_again(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told
) -> None:
    (tmp_path / "state").rename(tmp_path / "gone")

    assert not saved.save(SECTIONS)
    assert not saved.save(SECTIONS)
    assert told.events == ["checkpoint_failed"]
    assert told.saves == 0

    (tmp_path / "gone").rename(tmp_path / "state")
    assert saved.save(SECTIONS)
    assert saved.load() == SECTIONS


def again(tmp_path: Path, told: Told) -> dict[str, Any] | None:
    return checkpoint.Checkpoint(tmp_path / "state" / "checkpoint.json", told.telemetry).load()


def test_what_was_noted_is_loaded_and_only_what_changed_is_written(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told
) -> None:
    journal = tmp_path / "state" / "checkpoint.journal"
    assert saved.note({"source": {"offset": 1}}, {"series": {"a": [1] * 1000, "b": [2]}})
    assert saved.note({"source": {"offset": 2}}, {"series": {"a": [1] * 1000, "b": [3]}})
    size = journal.stat().st_size
    assert size < 500

    assert saved.note({"source": {"offset": 2}}, {"series": {"b": [3]}})

    assert journal.stat().st_size == size, "nothing changed"
    assert again(tmp_path, told) == {"source": {"offset": 2}, "series": {"a": [1] * 1000, "b": [3]}}
    assert told.saves == 2


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_g09_a_note_that_is_torn_leaves_the_one_before(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told, cut: int
) -> None:
    for offset in range(4):
        saved.note({"source": {"offset": offset, "padding": "x" * 100}}, {})
    journal = tmp_path / "state" / "checkpoint.journal"
    journal.write_bytes(journal.read_bytes()[:-cut])

    loaded = again(tmp_path, told)

    assert loaded is not None
    assert loaded["source"]["offset"] == 2
    assert told.invalid == {}


@pytest.mark.parametrize(("line", "kept"), [(0, 0), (1, 0), (2, 1), (3, 2)], ids=["head", "first", "middle", "last"])
def test_a_whole_line_that_is_damaged_is_reported_and_kept_aside(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told, line: int, kept: int
) -> None:
    for offset in range(4):
        saved.note({"source": {"offset": offset}}, {})
    journal = tmp_path / "state" / "checkpoint.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:-4] + bytes([lines[line][-4] ^ 1]) + lines[line][-3:]
    journal.write_bytes(b"".join(lines))

    loaded = again(tmp_path, told)

    assert loaded is not None
    assert loaded["source"]["offset"] == kept
    assert told.invalid == {"damaged": 1}
    assert told.events == ["checkpoint_invalid"]
    assert (tmp_path / "state" / "checkpoint.journal.damaged").read_bytes() == b"".join(lines)


def test_a_journal_of_another_checkpoint_is_left_alone(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told
) -> None:
    saved.note({"source": 1}, {})
    saved.note({"source": 2}, {})

    saved.save({"source": 7})

    assert again(tmp_path, told) == {"source": 7}
    assert saved.note({"source": 8}, {})
    assert again(tmp_path, told) == {"source": 8}


def test_a_long_journal_becomes_a_new_checkpoint(saved: checkpoint.Checkpoint, tmp_path: Path, told: Told) -> None:
    journal = tmp_path / "state" / "checkpoint.journal"
    for offset in range(60):
        saved.note({"source": offset}, {"series": {"a": f"{offset:0100000}"}})

    assert journal.stat().st_size < 2 << 20
    assert again(tmp_path, told) == {"source": 59, "series": {"a": f"{59:0100000}"}}


def test_after_a_note_that_fails_the_next_one_saves_everything(
    saved: checkpoint.Checkpoint, tmp_path: Path, told: Told
) -> None:
    saved.note({"source": 1}, {"series": {"a": 1}})
    (tmp_path / "state").rename(tmp_path / "gone")
    assert not saved.note({"source": 2}, {"series": {"b": 2}})
    assert told.value("sidecar_checkpoint_failures_total") == 1
    (tmp_path / "gone").rename(tmp_path / "state")

    assert saved.note({"source": 2}, {})

    assert again(tmp_path, told) == {"source": 2, "series": {"a": 1, "b": 2}}
