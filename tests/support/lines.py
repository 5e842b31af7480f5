"""Lines that services write, made to measure."""

from __future__ import annotations

import random

import orjson


def canonical(count: int, seed: int = 1) -> list[bytes]:
    """Return access lines that satisfy the schema, each different."""
    rng = random.Random(seed)
    return [
        orjson.dumps(
            {
                "timestamp": f"2026-10-06T09:{number // 60000 % 60:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}000Z",
                "level": "info",
                "service_name": "orders",
                "trace_id": f"{rng.getrandbits(127) + 1:032x}",
                "message": "request completed",
                "span_id": f"{rng.getrandbits(64):016x}",
                "method": "GET",
                "route": "/orders/:id",
                "path": f"/orders/{number}",
                "status": 200,
                "duration_ms": round(rng.lognormvariate(2, 1), 3),
                "client_ip": "10.42.0.17",
                "user_agent": "curl/8.5.0",
                "response_bytes": 512,
            }
        )
        for number in range(count)
    ]


def gin(count: int) -> list[bytes]:
    """Return lines of gin's text logger."""
    return [
        f'[GIN] 2026/10/06 - 09:05:03 | {200 if number % 10 else 404} | {number + 1}ms | 10.0.0.1 | GET      "/orders/{number}"'.encode()
        for number in range(count)
    ]
