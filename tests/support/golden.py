"""Golden files of log lines: what a program printed, and what we make of it, side by side.

A line that begins with `> ` is input (a physical line, byte for byte), one that begins with `= ` is the expected record
as compact JSON: format, outcome, what remains violated, the request it counts, and the record itself. Everything else is
a comment. `pytest --update-golden` writes the `= ` lines anew; the difference is for a person to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from sidecar import multiline, normalize, validation
from sidecar.model import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLOCK_NS = 1_791_277_503_123_456_789  # 2026-10-06T09:05:03.123456789Z, for lines without a time


def normalizer(**config: object) -> normalize.Normalizer:
    """Make a normalizer as `run` does, with a clock that stands still."""
    return normalize.Normalizer(
        normalize.Config(**config),
        validation.load(validation.Config()),
        service_name="shop",
        clock_ns=lambda: CLOCK_NS,
    )


def assemble(texts: list[bytes]) -> Lines:
    """Assemble physical lines as the pump does when all of them come at once and then nothing."""
    assembler = multiline.Assembler(idle=1.0)
    lines = assembler.feed(Lines(list(texts)), 0.0)
    rest = assembler.flush()
    lines.kinds.update({index + len(lines.texts): kind for index, kind in rest.kinds.items()})
    lines.marks.update({index + len(lines.texts): mark for index, mark in rest.marks.items()})
    lines.texts += rest.texts
    lines.joined += rest.joined
    lines.blank += rest.blank
    return lines


def explain(texts: list[bytes], using: normalize.Normalizer) -> Iterator[bytes]:
    """Yield the expectation line of every record."""
    lines = assemble(texts)
    for index, text in enumerate(lines.texts):
        one = Lines([text])
        if index in lines.kinds:
            one.kinds[0] = lines.kinds[index]
        result = using.normalize(one)
        record = result.records[0]
        said: dict[str, object] = {"format": record.format, "outcome": record.outcome}
        if record.violations:
            said["violations"] = [f"{field}:{rule}" for field, rule in record.violations]
        for (method, route, path, status), group in result.requests.items():
            said["request"] = [method, route, path, status, *group.durations]
        if result.deduplicated:
            said["request"] = "counted before"
        if result.rejected:
            said["rejected"] = list(result.rejected)
        if result.routes:
            said["route"] = list(result.routes[0])
        said["record"] = orjson.Fragment(record.line)
        yield orjson.dumps(said)


def read(path: Path) -> list[bytes]:
    """Return the input lines of a golden file."""
    return [row[2:] for row in path.read_bytes().split(b"\n") if row.startswith(b"> ")]


def check(path: Path, *, update: bool) -> None:
    """Compare a golden file with what we say now; each block of input is a program of its own."""
    rows = path.read_bytes().split(b"\n")
    written: list[bytes] = []
    block: list[bytes] = []
    using = normalizer()

    def close() -> None:
        if block:
            written.extend(b"= " + said for said in explain(block, using))
            block.clear()

    for row in rows:
        if row.startswith(b"> "):
            block.append(row[2:])
            written.append(row)
        elif not row.startswith(b"= "):
            close()
            if row.startswith(b"## "):
                using = normalizer()
            written.append(row)
    close()
    if update:
        path.write_bytes(b"\n".join(written))
    assert b"\n".join(written).decode("utf-8", "replace") == b"\n".join(rows).decode("utf-8", "replace")
