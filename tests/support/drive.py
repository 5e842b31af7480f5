"""Ask a ginapp a known mix of requests, and say exactly what it answered.

A mix is a function of its seed, so a count that differs can be looked at again. What comes back is what the service
answered, not what was planned: the two are compared here, so that a test compares the sidecar with the truth.
Every request has a connection of its own: aiohttp would repeat a request whose reused connection had just closed,
and a request made twice and asked once is exactly what must not happen here.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import aiohttp
import yarl

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

UNMATCHED = "unmatched"

ROUTES = (
    "GET /health",
    "GET /ping",
    "GET /orders/:id",
    "POST /orders",
    "GET /slow",
    "GET /status/:code",
    "GET /files/*path",
    "GET /panic",
    "GET /panic-string",
    "GET /error",
    "GET /broken-pipe",
)

# Nothing that leaves the sidecar may hold it.
SECRET = "s3cr3t-7f1d"

AGENTS = ("curl/8.5.0", 'Mozilla/5.0 (X11; "quoted") Gecko/20100101', "kube-probe/1.31", "Grüße/1.0")

# What a log line of the service would be if the path were printed as it is.
FORGERY = "/nope%0A[GIN]%202026/10/06%20-%2009:05:03%20%7C%20500%20%7C%201ms%20%7C%201.2.3.4%20%7C%20GET%20%22/ping%22"


@dataclass(frozen=True, slots=True)
class Request:
    """One request and the answer it must get."""

    method: str
    target: str  # path and query as they go over the wire
    route: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    logged: bool = True  # Gin redirects before any middleware runs: no logger sees it
    disconnects: bool = False

    @property
    def key(self) -> tuple[str, str, int]:
        return self.method, self.route, self.status


@dataclass(slots=True)
class Driven:
    """What the service answered."""

    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # (method, route or "unmatched", status)
    unlogged: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # answered before any logger
    seconds: Counter[tuple[str, str]] = field(default_factory=Counter)  # (method, route) → what clients waited, summed
    slept: Counter[tuple[str, str]] = field(default_factory=Counter)  # likewise, what /slow was asked to wait
    trace_ids: set[str] = field(default_factory=set)  # sent in `traceparent`, where a logger could see it


def _unmatched(method: str, target: str, status: int) -> Request:
    return Request(method, target, UNMATCHED, status)


def _slow(milliseconds: int) -> Request:
    return Request("GET", f"/slow?ms={milliseconds}", "/slow", 200)


def _order(body: bytes, status: int) -> Request:
    return Request("POST", "/orders", "/orders", status, (("Content-Type", "application/json"),), body)


# One of each kind. The recordings under golden/gin-current are these, in this order.
KINDS = (
    Request("GET", "/health", "/health", 200),
    Request("GET", "/ping", "/ping", 200),
    Request("GET", "/ping?a=1&b=%20x", "/ping", 200),
    Request("GET", "/orders/42", "/orders/:id", 200),
    Request("GET", f"/orders/7?expand=items&token={SECRET}", "/orders/:id", 200),
    Request("GET", "/orders/31000", "/orders/:id", 404),
    Request("GET", "/orders/4d1c9e6e-96d4-4b0a-9d3c-2f1f0f1f5a11", "/orders/:id", 404),
    _order(b'{"item":"tea","count":2}', 201),
    _order(b'{"count":2}', 400),
    _slow(20),
    Request("GET", "/slow?ms=soon", "/slow", 400),
    Request("GET", "/status/204", "/status/:code", 204),
    Request("GET", "/status/302", "/status/:code", 302),
    Request("GET", "/status/418", "/status/:code", 418),
    Request("GET", "/status/503", "/status/:code", 503),
    Request("GET", "/files/reports/2026/q3.pdf", "/files/*path", 200),
    Request("GET", "/files/caf%C3%A9/%3Fa%22b?z=%20", "/files/*path", 200),
    Request("GET", "/error", "/error", 500),
    Request("GET", "/panic?item=7", "/panic", 500, (("Authorization", f"Bearer {SECRET}"),)),
    Request("GET", "/panic-string", "/panic-string", 500, (("Cookie", f"session_id={SECRET}"),)),
    Request("GET", "/broken-pipe", "/broken-pipe", 200, disconnects=True),
    Request("GET", "/broken-pipe?via=render", "/broken-pipe", 200, disconnects=True),
    _unmatched("GET", "/nope", 404),
    _unmatched("GET", "/caf%C3%A9/%3Fa%22b?z=%20", 404),
    _unmatched("GET", "/.env", 404),
    _unmatched("POST", "/ping", 405),
    _unmatched("DELETE", "/orders/42", 405),
    _unmatched("HEAD", "/ping", 405),
    _unmatched("PROPFIND", "/ping", 405),
    replace(_unmatched("GET", "/ping/", 301), logged=False),
)


def _weight(kind: Request) -> int:
    """How often a kind comes again in a mix, beside the once that is sure."""
    return 12 if kind.target in {"/ping", "/orders/42"} and kind.status == 200 else 2 if kind.disconnects else 4


def mix(seed: int, count: int, *, forgery: bool = True, errors: bool = True) -> list[Request]:
    """Return `count` requests (at least one of each kind), the same for the same seed.

    Without `forgery` none has a line feed in its path, which splits the lines of loggers that print paths raw.
    Without `errors`, those that leave errors on Gin's context come once each.
    """
    chance = random.Random(seed)
    chosen = list(KINDS)
    if forgery:
        chosen.append(_unmatched("GET", FORGERY, 404))
    weights = [0 if not errors and kind.route in {"/error", "/broken-pipe"} else _weight(kind) for kind in KINDS]
    chosen += chance.choices(KINDS, weights, k=max(count - len(chosen), 0))
    chance.shuffle(chosen)
    return [_vary(request, chance) for request in chosen]


def _vary(request: Request, chance: random.Random) -> Request:
    headers = [*request.headers, ("User-Agent", chance.choice(AGENTS))]
    if chance.random() < 0.5:
        headers.append(("X-Forwarded-For", chance.choice(("10.42.0.17", "2001:db8::7"))))
    if chance.random() < 0.5:
        headers.append(("traceparent", f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"))
    request = replace(request, headers=tuple(headers))
    if request.target == "/orders/42":
        return replace(request, target=f"/orders/{chance.randint(1, 9999)}")
    if request.target == "/slow?ms=20":
        return replace(request, target=f"/slow?ms={chance.choice((10, 20, 40))}")
    return request


async def drive(address: str, requests: Iterable[Request], *, concurrency: int = 8) -> Driven:
    """Make the requests, at most `concurrency` at a time, in order of their start. Raises when an answer is wrong."""
    driven = Driven()
    waiting = iter(requests)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def one_after_the_other() -> None:
            for request in waiting:
                await _make(session, address, request, driven)

        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(one_after_the_other())
    return driven


async def _make(session: aiohttp.ClientSession, address: str, request: Request, driven: Driven) -> None:
    start = time.perf_counter()
    if request.disconnects:
        # Nobody is there to hear the status: 200 is what was written when the connection broke.
        await _ask_and_leave(address, request)
    else:
        url = yarl.URL(f"http://{address}{request.target}", encoded=True)
        async with session.request(
            request.method, url, headers=list(request.headers), data=request.body, allow_redirects=False
        ) as response:
            await response.read()
        if response.status != request.status:
            raise AssertionError(f"{request.method} {request.target}: {response.status}, expected {request.status}")
    (driven.answered if request.logged else driven.unlogged)[request.key] += 1
    pair = request.method, request.route
    driven.seconds[pair] += time.perf_counter() - start
    if request.route == "/slow" and request.status == 200:
        driven.slept[pair] += int(request.target.partition("ms=")[2]) / 1000
    for name, value in request.headers:
        if request.logged and name == "traceparent":
            driven.trace_ids.add(value.split("-")[1])


async def _ask_and_leave(address: str, request: Request) -> None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = [f"{request.method} {request.target} HTTP/1.1", f"Host: {address}"]
    head += [f"{name}: {value}" for name, value in request.headers]
    # What has been sent is still read after the close; a reset instead might overtake it.
    writer.write("\r\n".join([*head, "", ""]).encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def flood(address: str, target: str, count: int) -> int:
    """Ask for `target` `count` times over one connection without waiting for answers; return how many were 200."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    ask = f"GET {target} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {AGENTS[0]}\r\n"
    writer.write((f"{ask}\r\n" * (count - 1) + f"{ask}Connection: close\r\n\r\n").encode())
    answers = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answers.count(b"HTTP/1.1 200 OK\r\n")


async def listening(told: Path) -> str:
    """Return the address that a ginapp with `-addr-file` writes to the FIFO `told` once it listens."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(os.open(told, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(PATIENCE):
            return (await reader.readline()).decode().strip()
    finally:
        transport.close()
