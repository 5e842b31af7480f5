"""Dead letters: what a destination will never take, kept on disk so that a person can look and send it again.

One JSON object per line: `time` (when it was given up), `reason`, `detail` (what the destination said, shortened),
and `record`, the record's own bytes. `sidecar replay` reads these files.
Promise: the files of one sink never take more than their bound; a file that is full becomes `<name>.1`, and what the
previous `.1` held is counted as lost. A write that fails loses nothing silently: the caller is told and counts.
After a crash a torn last line is closed with a newline, so that what follows stays readable.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from sidecar.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sidecar.model import Record
    from sidecar.telemetry import Telemetry

_DETAIL_CHARACTERS = 300


class DeadLetters:
    """One bounded NDJSON file and the one before it."""

    def __init__(
        self, path: Path, *, max_bytes: int, telemetry: Telemetry, lost_reason: str = "dead_letter_full"
    ) -> None:
        """Open the file, which may exist. Raises StateError."""
        self._path = path
        self._older = path.with_name(path.name + ".1")
        self._half = max_bytes // 2
        self._telemetry = telemetry
        self._lost_reason = lost_reason
        self._descriptor = -1
        self._size = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise StateError(f"cannot open the dead-letter file {path}: {error.strerror}") from error

    @property
    def size(self) -> int:
        """Return how many bytes the current file holds."""
        return self._size

    def write(self, records: Sequence[Record], reason: str, detail: str = "") -> int:
        """Append records and return how many were kept; the bytes of the others are counted as lost."""
        now = datetime.now(UTC)
        head = {"time": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z", "reason": reason}
        if detail:
            head["detail"] = detail[:_DETAIL_CHARACTERS]
        prefix = orjson.dumps(head)[:-1] + b',"record":'
        kept = lost = 0
        for record in records:
            line = prefix + record.line + b"}\n"
            if self._append(line):
                kept += 1
            else:
                lost += len(record.line)
        if lost:
            self._telemetry.bytes_lost(self._lost_reason, lost, f"{self._path.name} cannot take them")
        return kept

    async def sync(self) -> None:
        """Wait until what was written is on disk."""
        if self._descriptor >= 0:
            with suppress(OSError):  # a disk that fails here has failed the write before, or will fail the next one
                await asyncio.to_thread(os.fdatasync, self._descriptor)

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, line: bytes) -> bool:
        if len(line) > self._half:
            return False
        try:
            if self._descriptor < 0:
                self._open()
            if self._size + len(line) > self._half:
                self._rotate()
            written = os.write(self._descriptor, line)
        except OSError:
            return False
        if written < len(line):  # the disk is full: take the torn line back
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            return False
        self._size += written
        return True

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _rotate(self) -> None:
        with suppress(FileNotFoundError):
            lost = self._older.stat().st_size
            self._telemetry.bytes_lost(self._lost_reason, lost, f"{self._older.name} made room for newer ones")
        self._path.replace(self._older)
        self.close()
        self._open()
