"""What the speeds are compared with, run in between on the same lines: numbers from a shared machine drift, ratios less.

The prototype is the whole job as one would write it on one page: split, parse together, look at what the schema
requires, sketch the durations, Loki's JSON, gzip. It knows one shape of line, has no second format, no redaction, no
acknowledgements, no limits and no metrics of its own, so what the program takes more is what those cost.

`python -m tests.bench.yardsticks URL` is the prototype as a process that reads files and pushes to URL, for comparing
whole processes: each line of its input names a file, each line of its output says the CPU seconds that it took.
"""

from __future__ import annotations

import calendar
import http.client
import sys
import time
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import prometheus_client
from isal import igzip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LEVELS = frozenset(("trace", "debug", "info", "warn", "error", "fatal"))
_HEX = b"0123456789abcdef"

Sketches = dict[tuple[str, str, int], dict[int, int]]


def parse_each(lines: list[bytes]) -> int:
    """Parse line by line."""
    loads = orjson.loads
    for line in lines:
        loads(line)
    return len(lines)


def count_each(lines: list[bytes]) -> int:
    """Raise a counter of prometheus_client once per line."""
    counter = prometheus_client.Counter("bench", "Lines.", registry=prometheus_client.CollectorRegistry())
    for _ in lines:
        counter.inc()
    return len(lines)


class Prototype:
    """The whole job in a straight line."""

    def __init__(self, push: Callable[[bytes], object] = len) -> None:
        self.lines = 0
        self.sketches: Sketches = {}
        self._push = push
        self._rest = b""
        self._seconds: dict[str, int] = {}

    def run(self, chunks: Iterable[bytes]) -> int:
        for chunk in chunks:
            self._chunk(chunk)
        return self.lines

    def _chunk(self, chunk: bytes) -> None:
        texts = (self._rest + chunk).split(b"\n")
        self._rest = texts.pop()
        objects: list[dict[str, Any]] = orjson.loads(b"[" + b",".join(texts) + b"]")
        ids = "".join([each["trace_id"] for each in objects])
        if (
            not _LEVELS.issuperset([each["level"] for each in objects])
            or not all(each["service_name"] for each in objects)
            or len(ids) != 32 * len(objects)
            or ids.encode().translate(None, _HEX)
        ):
            raise ValueError("a line is not valid")
        self._sketch(objects)
        values = [
            (
                f"{self._second(stamp[:19])}{stamp[20:-1]:0<9}",
                text.decode(),
                {
                    "trace_id": each["trace_id"],
                    "span_id": each["span_id"],
                    "detected_level": each["level"],
                    "format": "canonical",
                },
            )
            for text, each in zip(texts, objects, strict=True)
            for stamp in (each["timestamp"],)
        ]
        push = {"streams": [{"stream": {"service_name": "orders", "schema_valid": "true"}, "values": values}]}
        self._push(igzip.compress(orjson.dumps(push), 1, mtime=0))
        self.lines += len(texts)

    def _sketch(self, objects: list[dict[str, Any]]) -> None:
        sketches = self.sketches
        for each in objects:
            key = (each["method"], each["route"], each["status"])
            try:
                counts = sketches[key]
            except KeyError:
                counts = sketches[key] = {}
            bucket = ceil(log2(each["duration_ms"]) * 32)
            counts[bucket] = counts.get(bucket, 0) + 1

    def _second(self, text: str) -> int:
        found = self._seconds.get(text)
        if found is None:
            found = self._seconds[text] = calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
        return found


def main(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)

    def push(body: bytes) -> None:
        connection.request("POST", "/loki/api/v1/push", body, {"Content-Encoding": "gzip"})
        connection.getresponse().read()

    prototype = Prototype(push)
    for row in sys.stdin:
        start = time.process_time()
        with Path(row.rstrip("\n")).open("rb", buffering=0) as file:
            prototype.run(iter(lambda: file.read(256 << 10), b""))
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
