"""Records as compact JSON, however deep they are.

Problem: orjson reads values 1024 levels deep and refuses to write more than 254; one such line must not end the
process. Promise: what orjson writes is written by it; what it refuses comes out the same way, only slower, without
recursion.
Refused: values that no JSON parser makes.
"""

from __future__ import annotations

import orjson


def dumps(value: object) -> bytes:
    """Return the JSON text of a value that a parser made."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _deep(value)


def _deep(value: object) -> bytes:
    out: list[bytes] = []
    waiting: list[object] = [value]  # last first; bytes are text that is ready
    while waiting:
        node = waiting.pop()
        if isinstance(node, bytes):
            out.append(node)
        elif isinstance(node, dict):
            parts: list[object] = [b"{"]
            for key, inner in node.items():
                parts += (b"," if len(parts) > 1 else b"") + orjson.dumps(key) + b":", inner
            waiting += reversed([*parts, b"}"])
        elif isinstance(node, list):
            parts = [b"["]
            for inner in node:
                parts += (b"," if len(parts) > 1 else b""), inner
            waiting += reversed([*parts, b"]"])
        else:
            out.append(orjson.dumps(node))
    return b"".join(out)
