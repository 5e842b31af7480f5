"""Lines as runtimes write them into a container's file, in pieces of any size. IDs are the acceptance cases'."""

from __future__ import annotations

import pytest

from tests.support.following import PodFollower
from tests.support.framed import Framed
from tests.support.kubelet import Container

pytestmark = pytest.mark.usefixtures("woken")  # each test with and without inotify

LIMIT = 16384  # where containerd cuts


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path)
    made.start()
    yield made
    made.exit()


def containerd(container, text):
    """Write a line as containerd does: pieces of exactly 16384 bytes, and no empty one behind the last."""
    while len(text) > LIMIT:
        container.line(text[:LIMIT], tag="P")
        text = text[LIMIT:]
    container.line(text)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT, 2 * LIMIT + 1])
async def test_f06_rule_12_a_line_about_as_long_as_a_piece_is_one_line(tmp_path, container, size):
    async with PodFollower(tmp_path).following() as reader:
        containerd(container, "before")
        containerd(container, "x" * size)
        containerd(container, "after")
        assert await Framed(reader).until(3) == [b"before", b"x" * size, b"after"]


async def test_f07_rule_12_conmons_pieces_of_odd_sizes_are_one_line(tmp_path, container):
    async with PodFollower(tmp_path).following() as reader:
        for piece in ("sho", "rt", ""):
            container.line(piece, tag="P")
        container.line(" line")
        container.line("next")
        assert await Framed(reader).until(2) == [b"short line", b"next"]


TIMES = {
    "no fraction": ("2026-07-02T12:00:00Z", 0),
    "nine digits and an offset": ("2026-07-02T09:00:00.000000001-03:00", 1),
    "trimmed zeros": ("2026-07-02T12:00:00.5+00:00", 500_000_000),
    "an earlier one": ("2026-07-02T11:59:59.9Z", -100_000_000),
    "the same again": ("2026-07-02T11:59:59.9Z", -100_000_000),
}


async def test_f09_rule_13_a_time_is_read_to_the_nanosecond_and_drops_and_moves_no_line(tmp_path, container):
    async with PodFollower(tmp_path).following() as reader:
        for name, (time, _) in TIMES.items():
            container.raw(f"{time} stdout F {name}\n".encode())
        lines = Framed(reader)
        texts = await lines.until(len(TIMES))

    assert texts == [name.encode() for name in TIMES]
    noon = 1_782_993_600 * 10**9
    assert lines.stamps == [noon + ns for _, ns in TIMES.values()]


async def test_f11_rule_14_a_line_that_is_none_is_kept_raw_and_counted_and_the_next_is_whole(tmp_path, container):
    async with PodFollower(tmp_path).following() as reader:
        container.line("before")
        container.raw(b"00:00.123Z stdout F cut off in its head\n")
        container.line("with a tag of tomorrow", tag="F:new")
        container.line("after")
        lines = Framed(reader)
        texts = await lines.until(4)

    assert texts == [b"before", b"00:00.123Z stdout F cut off in its head", b"with a tag of tomorrow", b"after"]
    assert lines.malformed == 1
