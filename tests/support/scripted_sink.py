"""A sink without a network that answers as a test tells it, and keeps what it was sent and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from sidecar.model import Push, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model import Record

    Answer = Receipt | Exception | float | None  # a number: this many seconds, then taken; None: taken


class ScriptedSink:
    """Its streams are the records' service names. `answer` is asked with each push; by default all is taken."""

    name = "loki"

    def __init__(self, *, push_records: int = 100) -> None:
        self.answer: Callable[[Push], Answer] = lambda push: None
        self.attempts: list[tuple[float, list[str]]] = []  # when, and the messages
        self.bodies: list[bytes] = []
        self.stored: list[str] = []
        self.encoded = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._push_records = push_records

    def script(self, *answers: Answer) -> None:
        """Give these answers to the next pushes, one each; then take everything."""
        left = list(answers)
        self.answer = lambda push: left.pop(0) if left else None

    def settle(self, records: Sequence[Record]) -> list[int]:
        return [record.time_ns for record in records]

    def snapshot(self, settled: int) -> Mapping[str, int]:
        return {"settled": settled}

    def restore(self, saved: Mapping[str, int]) -> None:
        self.restored = saved

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        self.encoded += len(records)
        lanes: dict[str, list[Record]] = {}
        for record in records:
            lanes.setdefault(record.service_name, []).append(record)
        return [
            self._push(lane[start : start + self._push_records])
            for lane in lanes.values()
            for start in range(0, len(lane), self._push_records)
        ]

    def divide(self, push: Push) -> list[Push]:
        middle = len(push.records) // 2
        return [self._push(push.records[:middle]), self._push(push.records[middle:])] if middle else []

    async def send(self, push: Push) -> Receipt:
        messages = [orjson.loads(record.line)["message"] for record in push.records]
        self.attempts.append((asyncio.get_running_loop().time(), messages))
        self.bodies.append(push.body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self.answer(push)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, float):
                await asyncio.sleep(answer)
        finally:
            self.in_flight -= 1
        receipt = answer if isinstance(answer, Receipt) else Receipt("204")
        gone = {id(record) for record in receipt.refused}
        gone.update(id(record) for again in receipt.again for record in again.records)
        for record, message in zip(push.records, messages, strict=True):
            if id(record) not in gone:
                self.stored.append(message)
        return receipt

    async def close(self) -> None:
        pass

    def _push(self, records: Sequence[Record]) -> Push:
        return Push(b"\n".join(record.line for record in records), records, records[0].service_name)
