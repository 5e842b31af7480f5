"""The lines that are measured: canonical access lines, and everything that a Gin service may write.

Canonical lines are what one service writes in our own format: valid as written, of one shape, each with a trace of its
own. The mixed corpus is half that and half the recordings under golden/corpus (text, zap, slog, zerolog, logrus,
panics), again and again with other numbers, in their blocks, because lines of one block belong together.
"""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = "orders"
CANONICAL_BYTES = 354  # of a canonical line, on average, without its newline: what the budget was set for

_CORPUS = Path(__file__).parents[1] / "golden" / "corpus"
_RUN = 50  # canonical lines between two blocks of the mixed corpus

# method, route, path, how often in a hundred
_ROUTES = (
    ("GET", "/v1/orders/:id", "/v1/orders/{}", 34),
    ("GET", "/v1/orders", "/v1/orders", 16),
    ("POST", "/v1/orders", "/v1/orders", 10),
    ("GET", "/v1/customers/:id", "/v1/customers/{}", 12),
    ("GET", "/v1/customers/:id/orders", "/v1/customers/{}/orders", 8),
    ("PUT", "/v1/orders/:id", "/v1/orders/{}", 5),
    ("PATCH", "/v1/orders/:id/items/:item", "/v1/orders/{}/items/3", 4),
    ("DELETE", "/v1/orders/:id", "/v1/orders/{}", 2),
    ("GET", "/v1/products/:sku", "/v1/products/SKU-{}", 6),
    ("GET", "/health", "/health", 3),
)
# What answers: 2xx, now and then 4xx, rarely 5xx.
_STATUSES = {
    "GET": (200, 404, 500),
    "POST": (201, 400, 500),
    "PUT": (200, 409, 500),
    "PATCH": (200, 404, 500),
    "DELETE": (204, 404, 500),
}
_AGENTS = ("axios/1.7.7", "okhttp/4.12.0", "curl/8.5.0", "kube-probe/1.31")


def canonical(count: int, *, seed: int = 1, step_ns: int = 100_000) -> list[bytes]:
    """Return lines whose times ascend, the last one now; each ends with its newline."""
    line = canonical_line(seed)
    chance = random.Random(seed)
    now = time.time_ns()
    times = list(accumulate(chance.randrange(step_ns // 2, step_ns * 3 // 2) for _ in range(count)))
    return [line(now - times[-1] + moment) for moment in times]


def in_cri(line: bytes, time_ns: int) -> bytes:
    """Return the line as containerd writes it to a container's log."""
    return f"{_second(time_ns // 10**9)}.{time_ns % 10**9:09d}Z stdout F ".encode() + line


def canonical_line(seed: int) -> Callable[[int], bytes]:
    """Return what writes the next line, given its time. Chance comes from few bits and pools, because whoever writes 1 000 lines/s shares the machine with what is measured."""
    chance = random.Random(seed)
    bits, below = chance.getrandbits, chance.randrange
    routes = [route[:3] for route in _ROUTES for _ in range(route[3])]
    durations = [f"{exp(chance.gauss(2.5, 1.1)):.6f}" for _ in range(4096)]

    def line(time_ns: int) -> bytes:
        method, route, path = routes[below(100)]
        draw = bits(8)
        status = _STATUSES[method][0 if draw < 240 else 1 if draw < 252 else 2]
        level = "error" if status >= 500 else "warn" if status >= 400 else "info"
        return (
            f'{{"timestamp":"{_second(time_ns // 10**9)}.{time_ns // 1000 % 10**6:06d}Z","level":"{level}",'
            f'"service_name":"{SERVICE}","trace_id":"{bits(127) + 1:032x}","message":"served",'
            f'"span_id":"{bits(63) + 1:016x}","method":"{method}","route":"{route}",'
            f'"path":"{path.format(bits(16) + 10**4)}","status":{status},"duration_ms":{durations[bits(12)]},'
            f'"client_ip":"10.42.{bits(3)}.{bits(7) + 2}","user_agent":"{_AGENTS[bits(2)]}",'
            f'"response_bytes":{bits(13) + 40}}}\n'
        ).encode()

    return line


def with_routes(lines: list[bytes], routes: int) -> list[bytes]:
    """Return canonical lines that ask for so many routes, one after the other."""
    return [
        re.sub(rb'"method":"[A-Z]+","route":"[^"]+"', b'"method":"GET","route":"/v1/r%d/:id"' % (index % routes), line)
        for index, line in enumerate(lines)
    ]


def with_secrets(lines: list[bytes], every: int = 400) -> list[bytes]:
    """Return canonical lines of which one in `every` has a secret in its path: the others must not pay for it."""
    hiding = b'?token=0123456789abcdef","status"'
    return [
        line.replace(b'","status"', hiding) if index % every == every // 2 else line for index, line in enumerate(lines)
    ]


def mixed(count: int, *, seed: int = 1) -> list[bytes]:
    """Return at least `count` physical lines, whole blocks."""
    chance = random.Random(seed)
    access = iter(canonical(count, seed=seed))
    lines: list[bytes] = []
    pool: list[list[bytes]] = []
    while len(lines) < count:
        if not pool:
            pool = [*_blocks()]
            chance.shuffle(pool)
        block = pool.pop()
        lines.extend(_vary(line, chance) for line in block)
        lines.extend(next(access) for _ in range(min(len(block), _RUN)))
    return lines


def chunks(lines: list[bytes], size: int = 256 << 10) -> list[bytes]:
    """Return the bytes as a source reads them."""
    data = b"".join(lines)
    return [data[start : start + size] for start in range(0, len(data), size)]


@cache
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


_CAPTION = re.compile(rb"#{2,} ?.*")
_EXPECTED = re.compile(rb"-?\d+\s+(?=\[GIN\])")  # nanoseconds that a recording notes beside a line
_QUOTED = re.compile(rb'"(\[GIN\].*)\\n"')  # a line with colours, as Go's %q writes it


@cache
def _blocks() -> tuple[list[bytes], ...]:
    """Return what stands between the captions of the recordings."""
    return tuple(block for path in sorted(_CORPUS.glob("*.txt")) for block in _read(path))


def _read(path: Path) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    for row in path.read_bytes().splitlines(keepends=True):
        line = row.removesuffix(b"\n")
        if _CAPTION.fullmatch(line):
            if block:
                yield block
            block = []
            continue
        line = _EXPECTED.sub(b"", line, count=1)
        if quoted := _QUOTED.fullmatch(line):
            line = quoted[1].replace(rb"\x1b", b"\x1b").replace(rb"\"", b'"')
        block.append(line + b"\n")
    if block:
        yield block


# Fractions of seconds and of durations, ids in paths, integers that are latencies: what differs from request to request.
_NUMBERS = re.compile(rb'(?<=\.)\d{3,9}(?![\d/])|(?<=/orders/)\d+|(?<="latency":)\d{4,}')
_DIGITS = b"123456789"


def _vary(line: bytes, chance: random.Random) -> bytes:
    return _NUMBERS.sub(lambda match: bytes(chance.choices(_DIGITS, k=len(match[0]))), line)
