"""Finding the generations of a saved position again after a downtime, whatever their files are called by then.

The problem: while nobody looked, the log may have been renamed, truncated, copied, deleted, or all of it.
The promise: a saved generation goes on where delivery stood if a file with its inode, the one that has the log's name
now, or a copy proves to be it (`generation` says how); what was read and not delivered and is found nowhere is counted
as lost; what was written to files that nobody has seen is left for `known` to find. Refused: to guess. A state that
makes no sense is the caller's to report.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.sources import generation, gzipped, siblings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.sources.generation import Generation
    from sidecar.sources.known import Known
    from sidecar.sources.siblings import Sibling
    from sidecar.sources.succession import Succession
    from sidecar.telemetry import Telemetry


@dataclass(slots=True)
class Entry:
    """One generation of a saved state."""

    identity: generation.Identity
    log: str
    path: str
    offset: int
    ended: bool

    @property
    def undelivered(self) -> int:
        """How many bytes had been read and not delivered."""
        return max(0, self.identity.end - self.offset)

    @property
    def done(self) -> bool:
        """Whether nothing of it is missed if it is gone."""
        return self.ended and not self.undelivered

    def hold(self, descriptor: int, path: str) -> Generation:
        """Go on where delivery stood."""
        offset = min(self.offset, self.identity.end)
        if path.endswith(gzipped.SUFFIX):  # what was written behind an end that was told is in it too
            return gzipped.Gzipped(descriptor, path, self.log, offset, self.identity)
        one = generation.Generation(descriptor, path, self.log, offset)
        one.proven = self.identity
        if self.done:
            one.told = one.offset
            one.settled = True
        return one


@dataclass(slots=True)
class State:
    """A saved position, read and checked."""

    serial: int
    modified_ns: int
    entries: list[Entry]


def parse(saved: Mapping[str, Any], kind: str, path: str) -> State | None:
    """Return the state if it is of this source and path. Raises ValueError where it makes no sense."""
    if saved.get("kind") != kind or saved.get("path") != path:
        return None
    raw = saved.get("generations")
    if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
        raise ValueError("generations: expected a list of objects")
    entries = [
        Entry(
            identity=generation.Identity.from_state(one),
            log=str(one.get("log")),
            path=str(one.get("path")),
            offset=generation.number(one, "offset"),
            ended=one.get("ended") is True,
        )
        for one in raw
    ]
    return State(generation.number(saved, "serial"), generation.number(saved, "modified_ns"), entries)


def restore(state: State, path: str, succession: Succession, known: Known, telemetry: Telemetry, now: float) -> bool:
    """Put the saved generations that still exist into the succession. True if the log was truncated meanwhile."""
    succession.serial = state.serial
    rotated = siblings.rotated(path)
    held, missing = _by_inode([(index, one) for index, one in enumerate(state.entries) if one.identity.end], path)
    last = state.entries[-1] if state.entries else None
    # Of a log that nothing was read of, nobody knows whether it is what it was: its file may have been copied and cut
    # off, or be another one that got its inode.
    unread = last is None or not last.identity.end
    archives = [one for one in siblings.rotated(path, compressed=True) if one.compressed] if missing or unread else []
    truncated = False
    for index, entry in missing:
        again = _replaced(entry, path) if entry is last and siblings.place(path) not in held else None
        if again is not None:
            held[again.place] = (index, again)
            continue
        copy = None if entry.done else _copy(entry, rotated, held, known)
        if copy is None:
            archived, archive = _archived(entry, archives)
            if archive is not None:
                archives.remove(archive)
                if archived is not None:
                    held[archived.place] = (index, archived)
                continue
        else:
            held[copy.place] = (index, copy)
        if _account(entry, path, telemetry, known_now=entry.identity.place in held, copied=copy is not None):
            truncated = True
    beside = {one.place for one in rotated}
    gone, unseen = _hold_unread(state, path, held, cut_off=siblings.place(path) if truncated else None, beside=beside)
    for entry in gone:
        # What nobody has seen may be all that was written to it, or what came after it.
        _account(entry, path, telemetry, known_now=True, copied=False)
    for _, one in sorted(held.values(), key=lambda item: item[0]):
        succession.add(one, now)

    newest = succession.newest
    named = newest is not None and newest.place == siblings.place(path)
    undisturbed = named and newest is not None and newest.identity.end > 0
    archives = [
        one for one in archives if one.status.st_mtime_ns > state.modified_ns and succession.held(one.status) is None
    ]
    for archive in archives:  # compressed before anybody read it
        try:
            descriptor = generation.open_log(archive.path)
        except OSError as error:
            telemetry.source_waiting(archive.path, error)
            continue
        if named and not undisturbed:
            telemetry.file_truncated(path, 0)
        one = gzipped.Gzipped(descriptor, archive.path, succession.name(archive.place))
        succession.add(one, now, newest if named and not undisturbed else None)
    for sibling in rotated:
        fresh = succession.held(sibling.status) is None and sibling.place not in unseen
        if fresh and (undisturbed or sibling.status.st_mtime_ns <= state.modified_ns):
            known.learn(sibling)
    return truncated


def _by_inode(
    entries: list[tuple[int, Entry]], path: str
) -> tuple[dict[tuple[int, int], tuple[int, Generation]], list[tuple[int, Entry]]]:
    """Return the generations found, by place and with the number of their entry, and the entries that were not."""
    held: dict[tuple[int, int], tuple[int, Generation]] = {}
    missing: list[tuple[int, Entry]] = []
    for index, entry in entries:
        found = _find(entry, path)
        if found is None:
            missing.append((index, entry))
            continue
        descriptor, name = found
        status = os.fstat(descriptor)
        earlier = held.pop((status.st_dev, status.st_ino), None)
        if earlier is not None:
            # Late bytes had begun a second log in this file. One descriptor reads it, from where delivery stood.
            earlier[1].close()
            entry.offset = min(entry.offset, earlier[1].offset)
        one = entry.hold(descriptor, name)
        held[one.place] = (index, one)
    return held, missing


def _hold_unread(
    state: State,
    path: str,
    held: dict[tuple[int, int], tuple[int, Generation]],
    cut_off: tuple[int, int] | None,
    beside: set[tuple[int, int]],
) -> tuple[list[Entry], set[tuple[int, int]]]:
    """Hold what nothing was read of; return what is gone, and may have been more than an empty file.

    What others are proved to be is theirs: inodes come back. What has a successor that was read was empty, and where an
    older one is still there nothing is gone: who rotates deletes the oldest first. Where the log is another file now,
    those `beside` it that no read one comes behind are returned too: others may have to be read before.
    """
    gone: list[Entry] = []
    unread: list[tuple[int, Generation]] = []
    for index, entry in enumerate(state.entries):
        if entry.identity.end:
            gone.clear()
            continue
        found = _find(entry, path)
        if found is not None:
            one = entry.hold(*found)
            if one.place not in held and one.place != cut_off and all(one.place != other.place for _, other in unread):
                unread.append((index, one))
                continue
            one.close()
        if not any(number < index for number, _ in (*held.values(), *unread)):
            gone.append(entry)
    read = max((index for index, entry in enumerate(state.entries) if entry.identity.end), default=-1)
    another = siblings.place(path) not in {*held, *(one.place for _, one in unread)}
    unseen: set[tuple[int, int]] = set()
    for index, one in unread:
        if another and index > read and one.place in beside:
            unseen.add(one.place)
            one.close()
        else:
            held[one.place] = (index, one)
    return gone, unseen


def _find(entry: Entry, path: str) -> tuple[int, str] | None:
    """Return a descriptor and the name of the file that has the entry's inode and proves to be it.

    The device's number proves nothing either way: it may change with the next mount. Where nothing was read that could
    prove it, the name must be like the log's: the inode may be any file's by now.
    """
    directories = [Path(path).parent, Path(path).resolve().parent, Path(entry.path).parent]
    for sibling in siblings.with_inode(directories, entry.identity.inode):
        if not entry.identity.end and not _named_alike(sibling.path, entry, path):
            continue
        try:
            descriptor = generation.open_log(sibling.path)
        except OSError:
            continue
        if entry.identity.same_content(descriptor):
            return descriptor, sibling.path
        os.close(descriptor)
    return None


def _named_alike(name: str, entry: Entry, path: str) -> bool:
    if name == entry.path:
        return True
    alike = siblings.is_rotated(name, path) or Path(name).name.startswith((Path(path).name, Path(path).resolve().name))
    return alike and not name.endswith(gzipped.SUFFIX)  # no file becomes compressed in place


def _replaced(entry: Entry, path: str) -> Generation | None:
    """Go on in the file that took the newest generation's place and has its content: an editor's work."""
    if entry.ended:
        return None
    try:
        descriptor = generation.open_log(path)
    except OSError:
        return None
    if entry.identity.continued_by(descriptor):
        return entry.hold(descriptor, path)
    os.close(descriptor)
    return None


def _copy(
    entry: Entry, rotated: list[Sibling], held: Mapping[tuple[int, int], object], known: Known
) -> Generation | None:
    for sibling in reversed(rotated):
        if sibling.place in held:
            continue
        descriptor = known.copy(sibling, entry.identity)
        if descriptor is not None:
            one = entry.hold(descriptor, sibling.path)
            one.complete = True
            return one
    return None


def _archived(entry: Entry, archives: list[Sibling]) -> tuple[Generation | None, Sibling | None]:
    """Return the compressed file that has the entry's content, and what is left of it to be read."""
    for archive in reversed(archives):
        try:
            descriptor = generation.open_log(archive.path)
        except OSError:
            continue
        if not gzipped.same_content(descriptor, entry.identity):
            os.close(descriptor)
            continue
        if entry.done:
            os.close(descriptor)
            return None, archive
        return entry.hold(descriptor, archive.path), archive
    return None, None


def _account(entry: Entry, path: str, telemetry: Telemetry, *, known_now: bool, copied: bool) -> bool:
    """Count what a generation that is gone takes with it. True if the log was truncated under its name."""
    lost = 0 if copied else entry.undelivered
    if entry.identity.place == siblings.place(path) and not known_now:
        size = Path(path).stat().st_size
        if size < entry.offset and not copied:
            telemetry.checkpoint_invalid(
                "ahead_of_file",
                f"{path} has {size} bytes, the saved position is {entry.offset}; reading from its start",
            )
        telemetry.file_truncated(path, lost)
        return True
    if not copied and not entry.done:
        telemetry.bytes_lost(
            "rotated_away",
            lost,
            f"{entry.path}, read up to byte {entry.identity.end}, is gone, and what followed there",
        )
    return False
