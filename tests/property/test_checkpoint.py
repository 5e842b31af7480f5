"""Laws: what is saved is loaded; and a save cut at any byte leaves the old sections or the new ones, never others."""

from __future__ import annotations

import io
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar import checkpoint, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-é", max_size=3), inner, max_size=3),
    max_leaves=8,
)
sections = st.dictionaries(st.text("abc", min_size=1, max_size=6), values, max_size=4)


def quiet() -> telemetry.Telemetry:
    return telemetry.Telemetry(log=telemetry.Log(io.StringIO()))


def made(directory: str) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(Path(directory) / "checkpoint.json", quiet())


@contextmanager
def disk_takes(count: int) -> Iterator[None]:
    """No file may grow beyond `count` bytes: the kernel cuts a write there, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(max_examples=30, deadline=None)
@given(saved=sections)
def test_what_is_saved_is_loaded(saved: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        assert made(directory).save(saved)

        assert made(directory).load() == saved


@settings(max_examples=30, deadline=None)
@given(old=sections, new=sections, cut=st.floats(0, 1, exclude_max=True))
def test_g09_rule_23_a_write_that_the_disk_cuts_leaves_the_old_sections(
    old: dict[str, Any], new: dict[str, Any], cut: float
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        saved = made(directory)
        saved.save(new)
        size = (Path(directory) / "checkpoint.json").stat().st_size
        saved.save(old)

        with disk_takes(int(cut * size)):
            done = saved.save(new)

        expected = new if done else old
        assert made(directory).load() == expected
        assert done == (saved_alike(old) == saved_alike(new))
        assert saved.save(new)
        assert made(directory).load() == new


@settings(max_examples=30, deadline=None)
@given(old=sections, new=sections, cut=st.floats(0, 1))
def test_a_file_system_that_cuts_the_file_behind_our_back_gives_nothing_or_the_new_sections(
    old: dict[str, Any], new: dict[str, Any], cut: float
) -> None:
    """A machine may die with the rename on disk and the content not, fsync or no fsync. The checksum is for that."""
    with tempfile.TemporaryDirectory() as directory:
        saved = made(directory)
        saved.save(old)
        saved.save(new)
        path = Path(directory) / "checkpoint.json"
        whole = path.read_bytes()
        length = round(cut * len(whole))
        os.truncate(path, length)

        loaded = made(directory).load()

        assert loaded == (new if length >= len(whole) - 1 else None), "only the final newline may be missing"


@settings(max_examples=30, deadline=None)
@given(saved=sections, at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_nothing_or_the_very_same_sections(saved: dict[str, Any], at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made(directory).save(saved)
        path = Path(directory) / "checkpoint.json"
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= 1 << bit
        path.write_bytes(content)

        assert made(directory).load() in (None, saved)


def saved_alike(one: dict[str, Any]) -> str:
    """What decides whether two are the same to a checkpoint: 1 and 1.0 are not, the order of keys is nothing."""
    return repr(sorted_keys(one))


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, sorted_keys(value[key])) for key in sorted(value)]
    return [sorted_keys(one) for one in value] if isinstance(value, list) else value
