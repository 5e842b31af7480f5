"""The state that outlives the process: one file, written whole or not at all.

The problem: a process dies between any two bytes, and disks fill up. The promise: after any death `load` returns the
sections of one `save`, the last or the one before, never a mixture and never less; positions and the metrics that
belong to them are sections of one file, so they move together. A file that cannot be used is reported, kept aside
under its name and `.damaged`, and counts as none. A save that fails is reported and tried again, and stops nothing.
Refused: to understand sections, and to wait for a disk in the event loop (the caller has a thread).

The file is one JSON object:
  version   1
  saved_at  when, RFC 3339, for people
  checksum  blake2b (16 bytes, hexadecimal) of the JSON array [version, saved_at, sections] with sorted keys
  sections  name → what its owner keeps
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from sidecar.errors import StateError
from sidecar.options import Duration, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.telemetry import Telemetry

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `state`."""

    dir: str = option("", "Checkpoint, spool and dead letters. Empty: in memory only, which start-up says aloud.")
    checkpoint_interval: Duration = option(
        Duration(1.0), "How often positions are saved, if they changed.", minimum=0.1
    )


class Checkpoint:
    """The checkpoint in one file. One writer; synchronous, to be called in a thread."""

    def __init__(self, path: str | Path, telemetry: Telemetry) -> None:
        self._path = Path(path)
        self._directory = self._path.parent
        self._temporary = self._beside(".tmp")
        self._telemetry = telemetry
        self._saved: bytes | None = None  # the sections on disk, as they were written

    def prepare(self) -> None:
        """Make the directory and prove that it can be written to. Raises StateError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._write(b"{}\n")
            self._temporary.unlink()
        except OSError as error:
            raise StateError(
                f"state.dir: cannot write to {self._directory}: {_problem(error)}; expected a directory that user "
                f"{os.geteuid()} can write to, or none"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Return the saved sections, None where there are none that can be used."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._refuse("unreadable", f"{self._path}: {_problem(error)}")
            return None
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            self._refuse("damaged", f"{self._path} is not JSON: {error}")
            return None
        if not isinstance(document, dict) or not isinstance(document.get("version"), int):
            self._refuse("damaged", f"{self._path} is not a checkpoint")
            return None
        version, saved_at, sections = document["version"], document.get("saved_at"), document.get("sections")
        if version != VERSION:
            self._refuse("version", f"{self._path} has version {version}, this program reads {VERSION}")
            return None
        if not isinstance(sections, dict) or document.get("checksum") != _checksum(saved_at, sections):
            self._refuse("damaged", f"{self._path} does not match its checksum")
            return None
        return sections

    def save(self, sections: Mapping[str, Any]) -> bool:
        """Save the sections, all of them, and return whether they are on disk now. Unchanged ones are not written."""
        body = orjson.dumps(sections, option=orjson.OPT_SORT_KEYS)
        if body == self._saved:
            return True
        saved_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = {
            "version": VERSION,
            "saved_at": saved_at,
            "checksum": _checksum(saved_at, sections),
            "sections": orjson.Fragment(body),
        }
        try:
            self._write(orjson.dumps(document) + b"\n")
            self._temporary.replace(self._path)
            self._sync_directory()
        except OSError as error:
            self._saved = None  # the rename may have happened or not; the next save settles it
            self._telemetry.checkpoint_failed(f"{self._path}: {_problem(error)}")
            return False
        self._saved = body
        self._telemetry.checkpoint_saved()
        return True

    def _write(self, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(self._temporary, flags, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_directory(self) -> None:
        """Make the rename survive the machine's death too, not only ours."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot, and say so each time
                raise
        finally:
            os.close(descriptor)

    def _refuse(self, reason: str, detail: str) -> None:
        """Report a file that cannot be used, and keep it for whoever wants to know why."""
        self._telemetry.checkpoint_invalid(reason, detail)
        with contextlib.suppress(OSError):
            self._path.replace(self._beside(".damaged"))

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)


def _checksum(saved_at: object, sections: Mapping[str, Any]) -> str:
    content = orjson.dumps([VERSION, saved_at, sections], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _problem(error: OSError) -> str:
    return error.strerror or str(error)
