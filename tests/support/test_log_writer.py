"""The log writer does to files what the tests of rotation believe it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    with LogWriter(tmp_path / "app.log") as made:
        yield made


def test_a_torn_write_is_there_in_two_parts(writer: LogWriter) -> None:
    writer.tear(b"hello world\n", 5)
    assert writer.path.read_bytes() == b"hello"

    writer.mend()
    assert writer.path.read_bytes() == b"hello world\n"


def test_after_a_rename_the_writer_goes_on_in_the_renamed_file(writer: LogWriter) -> None:
    renamed = writer.rename()
    writer.lines("late")

    assert renamed.read_bytes() == b"late\n"
    assert not writer.path.exists()

    writer.reopen()
    writer.lines("new")
    assert writer.path.read_bytes() == b"new\n"
    assert writer.path.stat().st_ino != renamed.stat().st_ino


def test_rotations_shift_counted_files(writer: LogWriter, tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        writer.lines(text)
        writer.rotate()

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "app.log": b"",
        "app.log.1": b"three\n",
        "app.log.2": b"two\n",
        "app.log.3": b"one\n",
    }


def test_copytruncate_keeps_the_file_and_moves_the_content(writer: LogWriter) -> None:
    writer.lines("old")
    before = writer.inode

    copy = writer.copytruncate()
    writer.lines("new")

    assert copy.read_bytes() == b"old\n"
    assert writer.path.read_bytes() == b"new\n"
    assert writer.path.stat().st_ino == before != copy.stat().st_ino


def test_a_writer_without_append_leaves_a_hole_behind_a_truncation(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "app.log", append=False) as writer:
        writer.lines("0123456789")
        writer.truncate()
        writer.lines("new")

        assert writer.path.read_bytes() == b"\0" * 11 + b"new\n"


def test_a_deleted_file_is_still_written_to(writer: LogWriter) -> None:
    writer.delete()
    writer.lines("into the void")

    assert not writer.path.exists()
