"""Stands for Loki in a process of its own, so that what it costs does not count: `python -m tests.bench.receiver`.

Takes pushes, counts what is in them, and how old each entry was when its push arrived. Prints its port; ends when its
standard input does, so that it never outlives the bench. `GET /sums` tells, `POST /reset` begins anew.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from isal import igzip

from tests.support import loki_wire

if TYPE_CHECKING:
    from collections.abc import Iterator

PUSH, SUMS, RESET = "/loki/api/v1/push", "/sums", "/reset"


class Receiver:
    """What has been received since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.pushes = 0
        self.body_bytes = 0
        self.ages_ns = array("q")

    async def push(self, request: web.Request) -> web.Response:
        body = await request.read()
        arrived = time.time_ns()
        self.pushes += 1
        self.body_bytes += len(body)
        content = igzip.decompress(body)  # type: ignore[no-untyped-call]
        if request.content_type == "application/x-protobuf":
            self.ages_ns.extend([arrived - time_ns for time_ns in times(loki_wire.unsnap(content))])
        else:
            for stream in orjson.loads(content)["streams"]:
                self.ages_ns.extend([arrived - int(value[0]) for value in stream["values"]])
        return web.Response(status=204)

    async def sums(self, request: web.Request) -> web.Response:
        answer: dict[str, float] = {"entries": len(self.ages_ns), "pushes": self.pushes, "body_bytes": self.body_bytes}
        if "ages" in request.query:
            ages = sorted(self.ages_ns)
            answer |= {f"p{part}": _ms(ages, part) for part in (50, 99)}
        return web.json_response(answer)

    async def begin(self, request: web.Request) -> web.Response:
        self.reset()
        return web.Response(status=204)


def times(request: bytes) -> Iterator[int]:
    """Yield the time of each entry of a PushRequest, and look at nothing else: this must not be what is measured."""
    for _, stream in loki_wire.fields(request):
        for number, entry in loki_wire.fields(stream):
            if number == 2:
                _, stamp = next(loki_wire.fields(entry))
                parts = dict(loki_wire.fields(stamp))
                yield int(parts[1]) * 10**9 + int(parts.get(2, 0))


def _ms(ages: list[int], percent: int) -> float:
    return ages[min(len(ages) - 1, len(ages) * percent // 100)] / 1e6 if ages else 0.0


async def main() -> None:
    receiver = Receiver()
    application = web.Application(client_max_size=64 << 20)
    application.add_routes(
        [web.post(PUSH, receiver.push), web.get(SUMS, receiver.sums), web.post(RESET, receiver.begin)]
    )
    runner = web.AppRunner(application, access_log=None, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
