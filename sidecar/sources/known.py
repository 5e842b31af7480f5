"""What is known of the files beside a log, so that each is read once.

The problem: after a rotation the directory holds files that were read long ago, files that nobody has seen yet (two
rotations between two looks, or during a downtime), and copies of what was just read (copytruncate).
The promise: a file that appeared is returned whole, one that grew from where it had ended, a copy goes on where its
original was emptied, and a known one is left alone. A file is known by its content, wherever its inode has been.
Refused: to look at all of this while nothing happens; the owner asks after a rotation, a truncation or a start.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sidecar.sources import generation, siblings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.sources.generation import Generation, Identity
    from sidecar.sources.siblings import Sibling
    from sidecar.sources.succession import Succession
    from sidecar.telemetry import Telemetry

_LISTINGS = 5  # of a directory that changes all the time


class Known:
    """The identities of the rotated files beside one log that are not held."""

    def __init__(self, path: str, succession: Succession, telemetry: Telemetry) -> None:
        self._path = path
        self._succession = succession
        self._telemetry = telemetry
        self._identities: dict[tuple[int, int], Identity] = {}

    @property
    def modified_ns(self) -> int:
        """The latest write to any of them; what is written later nobody has seen."""
        return max((one.modified_ns for one in self._identities.values()), default=0)

    def learn(self, sibling: Sibling) -> None:
        """Take a file as read up to its end."""
        descriptor = self._open(sibling)
        if descriptor is None:
            return
        known = generation.Generation(descriptor, sibling.path, "", os.fstat(descriptor).st_size)
        self._identities[known.place] = known.identity
        known.close()

    def unseen(self, beside: Generation | None = None, opened: Generation | None = None) -> list[Generation]:
        """Return the files beside the log, or their ends, that nobody has read, oldest first.

        No copies of `beside`, of which nothing is read yet: what they say, it says. With `opened`, under the log's
        name a moment ago: it comes last, unless it was renamed since, and maybe deleted, and others came after it.
        """
        remembered = {one.place: one for one in self._succession.remembered()} | self._identities
        self._identities = {}
        older, younger = self._around(opened)
        found = self._unread(older, remembered, beside)
        if opened is not None:
            found += [opened, *self._unread(younger, remembered, beside)]
        return found

    def _unread(
        self, files: list[Sibling], remembered: Mapping[tuple[int, int], Identity], beside: Generation | None
    ) -> list[Generation]:
        found: list[Generation] = []
        for sibling in files:
            if self._succession.held(sibling.status) is not None:
                continue
            descriptor = self._open(sibling)
            if descriptor is None:
                continue
            identity = remembered.get(sibling.place)
            offset = 0
            if identity is not None and identity.same_content(descriptor):
                offset = identity.end
                if offset >= os.fstat(descriptor).st_size:
                    self._identities[identity.place] = identity
                    os.close(descriptor)
                    continue
            elif beside is not None and generation.same_beginning(
                descriptor, beside.descriptor, sibling.status.st_size
            ):
                os.close(descriptor)
                continue
            found.append(generation.Generation(descriptor, sibling.path, self._succession.name(sibling.place), offset))
        return found

    def rescue(self, truncated: Generation) -> list[Generation]:
        """Let a truncated generation go on in its copy, and return what was written between the two."""
        for sibling in reversed(self._beside()):
            if self._succession.held(sibling.status) is not None:
                continue
            descriptor = self.copy(sibling, truncated.identity)
            if descriptor is not None:
                truncated.adopt(descriptor, sibling.path)
                break
        # The copy is held by now only where the generation is in the succession, which it is.
        return self.unseen()

    def copy(self, sibling: Sibling, original: Identity) -> int | None:
        """Return a descriptor if the file is a copy of `original`, made after it was last read.

        An older file may begin with the same banner; its last write tells it apart.
        """
        status = sibling.status
        if not original.end or status.st_size < original.end or status.st_mtime_ns < original.modified_ns:
            return None
        descriptor = self._open(sibling)
        if descriptor is not None and not original.same_content(descriptor):
            os.close(descriptor)
            return None
        return descriptor

    def _beside(self) -> list[Sibling]:
        """Return the files beside the log once two listings agree: while names move on, one may miss a file."""
        found: list[Sibling] = []
        for _ in range(_LISTINGS):
            before, found = found, siblings.rotated(self._path)
            if [(one.path, one.place) for one in before] == [(one.path, one.place) for one in found]:
                break
        return found

    def _around(self, opened: Generation | None) -> tuple[list[Sibling], list[Sibling]]:
        """Return the files beside the log: those older than the opened one, and those that came after it."""
        files = self._beside()
        if opened is None:
            return files, []
        for _ in range(2):  # it may be renamed after they were listed
            index = next((index for index, one in enumerate(files) if one.place == opened.place), None)
            if index is not None:
                return files[:index], files[index + 1 :]
            if siblings.place(self._path) == opened.place:
                return files, []
            files = self._beside()
        # Renamed and deleted: who rotates deletes the oldest first.
        written_ns = os.fstat(opened.descriptor).st_mtime_ns
        index = sum(one.status.st_mtime_ns < written_ns for one in files)
        return files[:index], files[index:]

    def _open(self, sibling: Sibling) -> int | None:
        try:
            descriptor = generation.open_log(sibling.path)
        except FileNotFoundError:
            return None  # renamed since it was listed; the next rotation finds it
        except OSError as error:
            self._telemetry.source_waiting(sibling.path, error)
            return None
        if os.path.samestat(os.fstat(descriptor), sibling.status):
            return descriptor
        os.close(descriptor)
        return None  # likewise, and another has its name
