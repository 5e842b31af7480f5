"""Whose turn it is among the generations of one log, to the second: time is a number here."""

from __future__ import annotations

import os

import pytest

from sidecar.sources import generation, resume, succession
from tests.support.following import Follower
from tests.support.log_writer import LogWriter


class Log:
    """A succession over the files that a test adds, on a clock of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.told = Follower(directory / "app.log")
        self.succession = succession.Succession(self.told.telemetry, succession.Timing(), lambda _: [])
        self.now = 1000.0

    def add(self, name):
        writer = LogWriter(self.directory / name)
        descriptor = generation.open_log(str(writer.path))
        status = os.fstat(descriptor)
        log = self.succession.name((status.st_dev, status.st_ino))
        self.succession.add(generation.Generation(descriptor, str(writer.path), log), self.now)
        return writer

    def turn(self, after=0.0):
        """Return what the next turn gives: bytes, "end" of which file, or None."""
        self.now += after
        chunk = self.succession.turn(self.now)
        if chunk is None:
            return None
        return "end" if chunk.end_of_log else chunk.data


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.succession.close()


def test_rule_02_the_new_file_begins_when_the_old_one_was_at_its_end_twice_a_tenth_of_a_second_apart(log):
    old, new = log.add("old"), log.add("new")
    old.write(b"old")
    new.write(b"new")

    assert log.turn() == b"old"
    assert log.turn() is None
    assert log.turn(after=0.09) is None
    assert log.turn(after=0.02) == b"new"


def test_bytes_in_between_begin_the_wait_anew(log):
    old, new = log.add("old"), log.add("new")
    new.write(b"new")

    assert log.turn() is None
    old.write(b"late")
    assert log.turn(after=0.11) == b"late"
    assert log.turn(after=0.09) is None
    assert log.turn(after=0.11) == b"new"


def test_rule_03_the_end_of_the_old_file_is_told_five_seconds_after_its_last_byte(log):
    old, _new = log.add("old"), log.add("new")

    assert log.turn() is None
    old.write(b"late")
    assert log.turn(after=4.9) == b"late"
    assert log.turn(after=4.9) is None
    assert log.turn(after=0.2) == "end"
    assert log.turn(after=100.0) is None


def test_a_file_without_a_successor_never_ends(log):
    log.add("only").write(b"half a line")

    assert log.turn() == b"half a line"
    assert log.turn(after=10_000.0) is None


def test_a_writer_that_never_rests_in_the_old_file_lets_the_new_one_begin_after_five_seconds(log):
    old, new = log.add("old"), log.add("new")
    new.write(b"new")

    for _ in range(5):
        old.write(b"busy")
        assert log.turn(after=0.99) == b"busy"
    old.write(b"busy")
    assert log.turn(after=0.1) == b"busy"
    old.write(b"busy")
    assert {log.turn(), log.turn()} == {b"new", b"busy"}


def test_rule_27_a_busy_file_shares_its_turns(log):
    old, new = log.add("old"), log.add("new")
    log.turn()
    log.turn(after=0.2)  # the old one is settled
    for _ in range(3):
        old.write(b"x" * generation.CHUNK_BYTES)
        new.write(b"y" * generation.CHUNK_BYTES)

    served = b"".join(log.turn()[:1] for _ in range(6))

    assert served in (b"xyxyxy", b"yxyxyx")


def test_the_oldest_of_three_is_settled_first(log):
    writers = [log.add(name) for name in ("a", "b", "c")]
    for name, writer in zip("abc", writers, strict=True):
        writer.write(name.encode())

    assert log.turn() == b"a"
    assert log.turn() is None
    assert log.turn(after=0.2) == b"b"
    assert log.turn() is None
    assert log.turn(after=0.2) == b"c"


def test_rule_19_a_descriptor_that_gives_no_bytes_is_counted_and_given_up(log, tmp_path):
    """ESTALE, as a remote file system says when a file is gone for good; here a descriptor that cannot be read."""
    path = tmp_path / "old"
    path.write_bytes(b"12345")
    held = log.add("old")
    spoil(log.succession.generations[0])
    path.unlink()
    held.close()
    new = log.add("new")
    new.write(b"new")

    assert log.turn() is None
    assert log.turn() == "end"
    assert log.turn() == b"new"
    assert log.told.lost == {"read_error": 5}
    assert log.told.gaps == {"read_error": 1}
    assert log.told.counted("sidecar_source_failures_total", reason="stale") == 1


def test_rule_19_a_descriptor_that_went_bad_is_replaced_where_the_path_still_names_the_file(log, tmp_path):
    held = log.add("log")
    held.write(b"one\n")
    assert log.turn() == b"one\n"
    spoil(log.succession.generations[0])
    held.write(b"two\n")

    assert log.turn() is None
    assert log.turn() == b"two\n"
    assert log.told.lost == log.told.gaps == {}


def spoil(held):
    """Let a descriptor give nothing any more."""
    unreadable = os.open(held.path, os.O_WRONLY)
    os.dup2(unreadable, held.descriptor)
    os.close(unreadable)


def test_rule_10_a_deleted_old_file_is_closed_when_its_end_was_told(log):
    old, _new = log.add("old"), log.add("new")
    old.delete()
    log.turn()

    assert log.turn(after=6.0) == "end"
    log.turn()

    assert len(log.succession.generations) == 1
    assert [one.descriptor for one in log.succession.past] == [-1]


def test_g06_what_was_read_tells_a_file_again_before_it_is_read_again(tmp_path):
    """A process that dies before it has read anything must not leave less of a proof than it found."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\n")
    first = generation.Generation(generation.open_log(str(path)), str(path), "log")
    assert first.read() == b"one\ntwo\nthree\n"

    again = resume.Entry(first.identity, "log", str(path), offset=4, ended=False).hold(
        generation.open_log(str(path)), str(path)
    )

    assert again.identity == first.identity
    assert again.read() == b"two\nthree\n"
    assert again.identity == first.identity
    first.close()
    again.close()
