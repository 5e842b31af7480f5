"""The state that outlives the process: one file, written whole or not at all, and a journal of what changed since.

The problem: a process dies between any two bytes, disks fill up, and what must be on disk before a scrape is answered
is mostly what was there a second ago. The promise: after any death `load` returns what one `save` or `note` was given,
the last or the one before, never a mixture and never less; positions and the metrics that belong to them are sections
of one save, so they move together. A file that cannot be used is reported, kept aside under its name and `.damaged`,
and counts as none. A save that fails is reported and tried again, and stops nothing.
Refused: to understand sections, and to wait for a disk in the event loop (the caller has a thread).

checkpoint.json is one JSON object:
  version   1
  saved_at  when, RFC 3339, for people
  checksum  blake2b (16 bytes, hexadecimal) of the JSON array [version, saved_at, sections] with sorted keys
  sections  name → what its owner keeps
checkpoint.journal belongs to the checkpoint.json whose checksum is in its first line. Each line is a checksum (blake2b
of the rest, 8 bytes, hexadecimal), a space, and a JSON object:
  the first   {"journal": 1, "of": checksum}
  each other  {"sections": {name: …}, "entries": {name: {entry: …}}}: sections take the place of what there was, entries
              that of one entry of a section that is an object
Reading stops at the first line that does not match, which is reported, or at a torn last one, which is not: nobody was
told that it is saved. When the journal is longer than 1 MiB and than four
times the sections, all of it becomes a new checkpoint.json, and a new journal begins with the next note.
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
    from collections.abc import Callable, Mapping

    from sidecar.telemetry import Telemetry

VERSION = 1
_JOURNAL = 1  # likewise of the journal
_JOURNAL_BYTES = 1 << 20
_JOURNAL_TIMES = 4


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
        self._journal = self._path.with_suffix(".journal")
        self._saved: bytes | None = None  # the sections on disk, as they were written
        # What `note` keeps, encoded: a tenth of what it takes as objects. Sections, and entries of sections.
        self._sections: dict[str, bytes] = {}
        self._entries: dict[str, dict[str, bytes]] = {}
        self._journalled: int | None = None  # bytes in the journal; None where the next note must begin anew
        self._of = ""  # the checksum of the checkpoint on disk

    def prepare(self, claim: Callable[[], None] = lambda: None) -> None:
        """Make the directory, `claim` it, and prove that it can be written to. Raises StateError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            claim()
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
        self._follow(sections, document["checksum"])
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
        self._journalled = None  # what it says is of another checkpoint from here on
        try:
            self._write(orjson.dumps(document) + b"\n")
            self._temporary.replace(self._path)
            self._sync_directory()
        except OSError as error:
            self._saved = None  # the rename may have happened or not; the next save settles it
            self._telemetry.checkpoint_failed(f"{self._path}: {_problem(error)}")
            return False
        self._saved = body
        self._of = str(document["checksum"])
        self._telemetry.checkpoint_saved()
        return True

    def note(self, sections: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> bool:
        """Save what changed, and return whether it is on disk now. The first note of a process must tell everything.

        `sections` take the place of those of their names; `entries` (section → entry → value) that of single entries.
        What is as it was is not written; where that is everything, nothing is.
        """
        changed = {name: body for name, value in sections.items() if (body := _dump(value)) != self._sections.get(name)}
        parts: dict[str, dict[str, bytes]] = {}
        for name, values in entries.items():
            known = self._entries.setdefault(name, {})
            fresh = {entry: body for entry, value in values.items() if (body := _dump(value)) != known.get(entry)}
            if fresh:
                parts[name] = fresh
                known.update(fresh)
        self._sections.update(changed)
        if self._journalled is None:
            return self._save_noted()
        if not changed and not parts:
            return True
        line = _line(
            {"sections": _fragments(changed), "entries": {name: _fragments(one) for name, one in parts.items()}}
        )
        if not self._append(line):
            return False
        self._telemetry.checkpoint_saved()
        # The note is safe; whether the new file can be written is told by itself.
        if self._journalled > max(_JOURNAL_BYTES, _JOURNAL_TIMES * self._noted_bytes()):
            self._save_noted()
        return True

    def _save_noted(self) -> bool:
        """Write everything that was noted as a new checkpoint, and begin a journal for it."""
        every: dict[str, Any] = {name: orjson.Fragment(body) for name, body in self._sections.items()}
        every |= {name: _fragments(one) for name, one in self._entries.items()}
        self._journalled = None
        if not self.save(every):
            return False
        self._journalled = 0
        return True

    def _noted_bytes(self) -> int:
        return sum(map(len, self._sections.values())) + sum(
            sum(map(len, one.values())) for one in self._entries.values()
        )

    def _append(self, line: bytes) -> bool:
        """Append a line to the journal; say whether it is on disk. After a failure everything is written anew."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        begins = not self._journalled
        if begins:
            line = _line({"journal": _JOURNAL, "of": self._of}) + line
            flags |= os.O_TRUNC
        size = (self._journalled or 0) + len(line)
        self._journalled = None
        try:
            descriptor = os.open(self._journal, flags, 0o600)
            try:
                _write_all(descriptor, line)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            if begins:
                self._sync_directory()
        except OSError as error:
            self._telemetry.checkpoint_failed(f"{self._journal}: {_problem(error)}")
            return False
        self._journalled = size
        return True

    def _follow(self, sections: dict[str, Any], checksum: str) -> None:
        """Bring sections up to date with the journal, as far as it is whole."""
        try:
            content = self._journal.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            self._telemetry.checkpoint_invalid("unreadable", f"{self._journal}: {_problem(error)}")
            return
        lines = content.split(b"\n")[:-1]  # a last line without its end is torn: nobody was told that it is saved
        records = [_read_line(line) for line in lines]
        if records and records[0] not in ({"journal": _JOURNAL, "of": checksum}, None):
            return  # of an earlier checkpoint
        if None in records:
            sound = records.index(None)
            self._telemetry.checkpoint_invalid(
                "damaged",
                f"{self._journal}: line {sound + 1} of {len(records)} does not match its checksum: what was saved from "
                "there on is unknown, and lines read since then are read and counted again",
            )
            with contextlib.suppress(OSError):
                self._journal.with_name(self._journal.name + ".damaged").write_bytes(content)
            records = records[:sound]
        for record in filter(None, records[1:]):
            sections.update(record["sections"])
            for name, values in record["entries"].items():
                sections.setdefault(name, {}).update(values)

    def _write(self, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(self._temporary, flags, 0o600)
        try:
            _write_all(descriptor, content)
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


def _dump(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _fragments(bodies: Mapping[str, bytes]) -> dict[str, orjson.Fragment]:
    return {name: orjson.Fragment(body) for name, body in bodies.items()}


def _line(record: Mapping[str, Any]) -> bytes:
    body = orjson.dumps(record)
    return b"%s %s\n" % (_short_checksum(body), body)


def _read_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a journal's line; None where it is torn."""
    checksum, _, body = line.partition(b" ")
    if checksum != _short_checksum(body):
        return None
    record: dict[str, Any] = orjson.loads(body)
    return record


def _short_checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _problem(error: OSError) -> str:
    return error.strerror or str(error)
