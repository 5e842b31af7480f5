"""Finding a container's saved generations again after a downtime: renamed, compressed, or gone.

The problem: while nobody looked, the kubelet renamed the log, compressed it, deleted it, and the container started
again. The promise: a saved generation goes on where delivery stood in whatever file has its content now; what has been
delivered is not read again out of a `.gz`; what was not, and is nowhere, is counted as lost, or as a gap where nobody
knows how much it was. Refused: to know a file by inode or head alone where its content tells more.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from sidecar.sources import generation, gzipped, resume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.sources.generation import Generation, Identity
    from sidecar.sources.podlog import Found
    from sidecar.telemetry import Telemetry

_LOOKS = 5  # at a directory that changes all the time


@dataclass(frozen=True, slots=True)
class Past:
    """A generation that may come back under another name. `size` is how long it is, or says it is."""

    identity: Identity
    instance: int
    size: int = 0

    @classmethod
    def of(cls, view: generation.View) -> Self:
        """Know a generation that is read and closed."""
        return cls(view.identity, view.instance, view.size)

    @classmethod
    def unread(cls, descriptor: int, instance: int) -> Self:
        """Know a compressed file that is left out."""
        size = gzipped.content_bytes(descriptor)
        status = os.fstat(descriptor)
        head = gzipped.head(descriptor, generation.PROOF_BYTES)
        return cls(generation.Identity.of(status, head, b"", size), instance, size)

    def compressed_to(self, instance: int, head: bytes, size: int) -> bool:
        """Whether a `.gz` with such content is this one: the head has the time of its first line, to the nanosecond."""
        identity = self.identity
        if instance != self.instance or not identity.head_bytes or not identity.begins(head):
            return False
        return size in {self.size, identity.end}

    def given_up(self, status: os.stat_result) -> bool:
        """Whether this very file was found damaged from its first byte on: nothing but where it lies tells it again."""
        identity = self.identity
        same = identity.place == (status.st_dev, status.st_ino) and identity.modified_ns == status.st_mtime_ns
        return same and not identity.head_bytes and not identity.end

    def copied_to(self, instance: int, descriptor: int) -> bool:
        return instance == self.instance and self.identity.end > 0 and self.identity.same_content(descriptor)

    def state(self) -> dict[str, object]:
        return {**self.identity.state(), "instance": self.instance, "size": self.size}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read what `state` wrote. Raises ValueError."""
        identity = generation.Identity.from_state(state)
        return cls(identity, generation.number(state, "instance"), generation.number(state, "size"))


@dataclass(slots=True)
class State:
    """A saved position, read and checked."""

    serial: int
    entries: list[tuple[resume.Entry, int]]  # with the start of the container that wrote it
    done: list[Past]


def parse(saved: Mapping[str, Any], path: str) -> State | None:
    """Return the state if it is of this container. Raises ValueError where it makes no sense."""
    state = resume.parse(saved, "cri", path)
    if state is None:
        return None
    done = saved.get("done")
    if not isinstance(done, list) or not all(isinstance(one, dict) for one in done):
        raise ValueError("done: expected a list of objects")
    instances = [generation.number(one, "instance") for one in saved["generations"]]
    return State(state.serial, list(zip(state.entries, instances, strict=True)), [Past.from_state(one) for one in done])


def restore(
    state: State, look: Callable[[], Sequence[Found]], telemetry: Telemetry
) -> tuple[list[Generation], Sequence[Found]]:
    """Return the saved generations that still exist, in their order, and the listing; count those that do not.

    While the kubelet compresses a file, a listing may have neither the old name nor the new one: what is missed is
    looked for until two listings say the same.
    """
    found = look()
    empty = _empty(state)
    matches = _matches(state, empty, found)
    for _ in range(_LOOKS):
        before, found = found, look()
        missed = len(matches) + len(empty) < len(state.entries)
        if not missed or {(one.path, one.status and one.status.st_ino) for one in before} == {
            (one.path, one.status and one.status.st_ino) for one in found
        }:
            break
        for _, descriptor in matches.values():
            os.close(descriptor)
        matches = _matches(state, empty, found)
    return _held(state, empty, matches, found, telemetry), found


def _matches(state: State, empty: set[int], found: Sequence[Found]) -> dict[int, tuple[Found, int]]:
    """Return by the number of the entry its file and a descriptor."""
    there = [one for one in found if one.status is not None]
    matches: dict[int, tuple[Found, int]] = {}
    # What is certain first, so that files with equal beginnings go to whom they belong.
    for find in (_whole, _by_inode, _compressed, _by_content):
        for number, (entry, instance) in enumerate(state.entries):
            if number in matches or number in empty:
                continue
            # Only by its inode may a file be found twice: late bytes had begun a second log in it.
            taken = set() if find is _by_inode else {one.path for one, _ in matches.values()}
            free = [one for one in there if one.instance == instance and one.path not in taken]
            newest = number == len(state.entries) - 1
            match = find(entry, free, may_be_active=newest and not entry.ended)
            if match is not None:
                matches[number] = match
    return matches


def _held(
    state: State,
    empty: set[int],
    matches: Mapping[int, tuple[Found, int]],
    found: Sequence[Found],
    telemetry: Telemetry,
) -> list[Generation]:
    held: dict[str, Generation] = {}  # by the name of their file now
    older: set[int] = set()
    names = {one.path for one in found}
    for number, (entry, instance) in enumerate(state.entries):
        if number in empty:
            continue
        if number not in matches:
            # Nothing was read of it that could tell it, and nothing of it is gone where its archive has its name, or an
            # older one is there: the kubelet deletes the oldest first.
            if not entry.identity.end and (instance in older or entry.path + gzipped.SUFFIX in names):
                continue
            _account(entry, telemetry)
            before = [one for one in held.values() if one.instance == instance]
            if before and not entry.done:  # gone with the end of a line that the one before it began
                before[-1].severed = True
            continue
        older.add(instance)
        one, descriptor = matches[number]
        if one.compressed and entry.done and gzipped.content_bytes(descriptor) == entry.identity.end:
            # Its old inode is somebody else's by now.
            status = os.fstat(descriptor)
            identity = replace(entry.identity, device=status.st_dev, inode=status.st_ino)
            state.done.append(Past(identity, instance, entry.identity.end))
            os.close(descriptor)
            continue
        earlier = held.pop(one.path, None)
        if earlier is not None:  # one descriptor reads both logs, from where delivery stood
            entry.offset = min(entry.offset, earlier.offset)
            earlier.close()
        held[one.path] = again = entry.hold(descriptor, one.path)
        again.instance = instance
    return list(held.values())


def _empty(state: State) -> set[int]:
    """Return the entries that were empty, as what came behind them was read: their inodes may be any file's by now."""
    read = {instance: number for number, (entry, instance) in enumerate(state.entries) if entry.identity.end}
    return {
        number
        for number, (entry, instance) in enumerate(state.entries)
        if not entry.identity.end and number < read.get(instance, -1)
    }


def _whole(entry: resume.Entry, candidates: Sequence[Found], *, may_be_active: bool) -> tuple[Found, int] | None:
    """Return the `.gz` of a generation that had ended, if it has what was read and no more."""
    if not entry.ended:
        return None
    match = _compressed(entry, candidates, may_be_active=may_be_active)
    if match is not None and gzipped.content_bytes(match[1]) != entry.identity.end:
        os.close(match[1])
        return None
    return match


def _by_inode(entry: resume.Entry, candidates: Sequence[Found], *, may_be_active: bool) -> tuple[Found, int] | None:
    """Return the file that has the inode and the content, under whatever name."""
    del may_be_active
    same = [one for one in candidates if one.status is not None and one.status.st_ino == entry.identity.inode]
    if not entry.identity.end and not entry.ended:  # nothing of it was read that could prove it, and nothing is skipped
        for one in same:
            descriptor = _open(one) if one.compressed and one.path == entry.path else None
            if descriptor is not None:
                return one, descriptor
    return _proved(entry, [one for one in same if not one.compressed])


def _compressed(entry: resume.Entry, candidates: Sequence[Found], *, may_be_active: bool) -> tuple[Found, int] | None:
    """Return the `.gz` that has the content."""
    del may_be_active
    for one in candidates:
        descriptor = _open(one) if one.compressed else None
        if descriptor is None:
            continue
        if gzipped.same_content(descriptor, entry.identity):
            return one, descriptor
        os.close(descriptor)
    return None


def _by_content(entry: resume.Entry, candidates: Sequence[Found], *, may_be_active: bool) -> tuple[Found, int] | None:
    """Return a copy: of a file that was written to, perhaps the one that has its name now."""
    if not entry.identity.end:
        return None
    plain = [one for one in candidates if not one.compressed and not one.unfinished]
    return _proved(entry, [one for one in plain if may_be_active or not one.active])


def _proved(entry: resume.Entry, candidates: Sequence[Found]) -> tuple[Found, int] | None:
    for one in candidates:
        descriptor = _open(one)
        if descriptor is None:
            continue
        if entry.identity.same_content(descriptor):
            return one, descriptor
        os.close(descriptor)
    return None


def _account(entry: resume.Entry, telemetry: Telemetry) -> None:
    """Count what a generation that is gone takes with it. That its inode may have come back says nothing."""
    if entry.done:
        return
    telemetry.bytes_lost(
        "rotated_away",
        entry.undelivered,
        f"{entry.path}, read up to byte {entry.identity.end}, is gone, and what followed there",
    )


def _open(one: Found) -> int | None:
    try:
        return generation.open_log(one.path)
    except OSError:
        return None
