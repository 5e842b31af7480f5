"""What every source must do. A source's test says how to write to its input and inherits the suite.

class TestContract(SourceContract):
    def opened(self): ...      # a context with a Subject: a started source and the other end of its input
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.patience import PATIENCE
from tests.support.reading import CHUNK_BYTES, Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from sidecar.sources import Source


@dataclass
class Subject:
    """A source and the other end of its input."""

    source: Source
    write: Callable[[bytes], None]  # at most 16 KiB at a time, for pipes
    end: Callable[[], None] | None = None  # ends the input; None where an input has no end
    again: Callable[[dict[str, Any]], Source] | None = None  # the same input after a restart, with the saved state
    grows: bool = True  # False where the input's end is what is there


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, first + count))


async def unread(source: Source, count: int) -> None:
    """Wait until so many bytes are known to wait: who looks from time to time only knows of them later."""
    async with asyncio.timeout(10.0):
        while source.unread() != count:
            await asyncio.sleep(0.001)


class SourceContract:
    """Subclass as `Test…`."""

    @abstractmethod
    def opened(self, content: bytes = b"") -> AbstractAsyncContextManager[Subject]:
        """Return a context with a subject, started; `content` was written to its input before."""

    async def test_everything_written_is_read_once_and_in_order(self):
        written = lines(1000)

        async with self.opened(written[:5000]) as subject:
            for begin in range(5000, len(written), 1000):
                subject.write(written[begin : begin + 1000])
            await Reader(subject.source).expect(written)

    async def test_a_read_is_never_larger_than_a_turn(self):
        """The reader checks it on every chunk."""
        block = lines(2000)[:16000]

        async with self.opened() as subject:
            reader = Reader(subject.source)
            for _ in range(40):
                subject.write(block)
                subject.write(block)
                if subject.grows:
                    await reader.expect(block * 2)
            if not subject.grows:
                await reader.expect(block * 80)

            assert len(reader.data) > 2 * CHUNK_BYTES

    async def test_silence_is_an_empty_chunk_after_the_time_asked_for(self):
        async with self.opened() as subject:
            if not subject.grows:
                pytest.skip("its end is what is there")
            loop = asyncio.get_running_loop()
            begin = loop.time()
            async with asyncio.timeout(PATIENCE):
                chunk = await subject.source.read(0.03)

            assert chunk is not None
            assert chunk.data == b""
            assert not chunk.end_of_log
            assert loop.time() - begin >= 0.03

    async def test_a_cancelled_read_loses_nothing(self):
        async with self.opened() as subject:
            if not subject.grows:
                pytest.skip("it never waits")
            reader = Reader(subject.source)
            for number in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await subject.source.read(3600.0)
                subject.write(b"after %d\n" % number)
                await reader.expect(b"after %d\n" % number)

    async def test_after_stop_comes_what_is_there_and_then_the_end(self):
        async with self.opened() as subject:
            reader = Reader(subject.source)
            subject.write(lines(10))
            await reader.expect(lines(10))
            subject.write(lines(10, first=10))

            subject.source.stop()

            assert await reader.rest() == lines(10, first=10)
            assert await subject.source.read(0.0) is None

    async def test_what_comes_after_the_first_read_behind_stop_is_left_alone(self):
        async with self.opened() as subject:
            subject.write(lines(10))
            subject.source.stop()
            reader = Reader(subject.source)
            await reader.once(60.0)
            subject.write(lines(10, first=10))
            await reader.rest()

            assert reader.data == lines(10)

    async def test_stop_wakes_a_read_that_waits(self):
        async with self.opened() as subject:
            if not subject.grows:
                pytest.skip("it never waits")
            waiting = asyncio.create_task(subject.source.read(3600.0))
            await asyncio.sleep(0)
            subject.source.stop()

            async with asyncio.timeout(PATIENCE):
                assert await waiting is None

    async def test_stopping_twice_is_stopping_once(self):
        async with self.opened() as subject:
            subject.write(b"one\n")
            subject.source.stop()
            reader = Reader(subject.source)
            await reader.once(60.0)
            subject.write(b"two\n")
            subject.source.stop()
            await reader.rest()

            assert reader.data == b"one\n"

    async def test_an_ended_input_is_told_for_each_log_and_then_none_for_ever(self):
        async with self.opened() as subject:
            if subject.end is None:
                pytest.skip("this input has no end")
            subject.write(b"last words")
            subject.end()
            reader = Reader(subject.source)

            assert await reader.rest() == b"last words"
            # what can be read again may be longer at the next start
            assert set(reader.ended) == (set() if subject.source.resumable else set(reader.logs))
            assert await subject.source.read(0.0) is None
            assert await subject.source.read(0.0) is None

    async def test_unread_is_what_waits_and_nothing_once_it_is_read(self):
        async with self.opened() as subject:
            subject.write(lines(10))
            await unread(subject.source, len(lines(10)))

            await Reader(subject.source).expect(lines(10))
            await unread(subject.source, 0)

    async def test_it_says_what_it_follows_and_what_it_can_promise(self):
        async with self.opened() as subject:
            described = json.loads(json.dumps(subject.source.describe()))

            assert described["source"]
            assert isinstance(described["lossless"], bool)
            assert described["why"]
            assert {"uid", "gid"} <= set(described)

    async def test_it_is_attached_once_started(self):
        async with self.opened() as subject:
            assert subject.source.attached

    async def test_a_resumable_source_goes_on_where_delivery_stood(self):
        async with self.opened(lines(20)) as subject:
            if subject.again is None:
                assert not subject.source.resumable
                assert subject.source.snapshot({}) == {}
                return
            assert subject.source.resumable
            reader = Reader(subject.source)
            await reader.expect(lines(20))
            read = reader.positions
            log, position = next(iter(read.items()))
            delivered = {log: type(position)(log, len(lines(7)))}
            states = [json.loads(json.dumps(subject.source.snapshot(where))) for where in ({}, delivered, read)]
            await subject.source.close()
            subject.write(lines(5, first=20))

            for state, first in zip(states, (0, 7, 20), strict=True):
                again = subject.again(state)
                await again.start()
                await Reader(again).expect(lines(25 - first, first=first))
                await again.close()

    async def test_a_saved_state_of_something_else_is_none(self):
        async with self.opened(lines(5)) as subject:
            if subject.again is None:
                pytest.skip("not resumable")
            for state in ({}, {"kind": "carrier pigeon"}, subject.source.snapshot({}) | {"path": "/elsewhere"}):
                again = subject.again(state)
                await again.start()
                await Reader(again).expect(lines(5))
                await again.close()

    async def test_a_saved_state_that_makes_no_sense_is_reported_not_raised(self):
        async with self.opened(lines(5)) as subject:
            if subject.again is None:
                pytest.skip("not resumable")
            state = subject.source.snapshot({})
            first = state["generations"][0]
            for generations in (None, [1], [first | {"offset": -1}], [first | {"inode": "x"}]):
                again = subject.again(state | {"generations": generations})
                await again.start()
                await Reader(again).expect(lines(5))
                await again.close()

    async def test_closing_twice_is_closing_once(self):
        async with self.opened() as subject:
            await subject.source.close()
            await subject.source.close()
