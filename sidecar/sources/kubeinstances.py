"""The instances of one container, in order, and what was read of each.

The problem: the API names a dead instance and its successor alike, shows two of them at most, and the pod's status is
older than what the kubelet serves. The promise: an instance is known by its container ID, read to its end before its
successor is begun, and each is one log of ours, with offsets that go on after a restart of the sidecar; one that can
no longer be asked for is a counted gap. No I/O: the source asks, and tells what came.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar.model import Chunk, Position
from sidecar.sources import generation, kubeapi
from sidecar.sources.seen import SECOND, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.sources import stamped
    from sidecar.telemetry import Telemetry

_KIND = "kubernetes"
_RELABELED_SECONDS = 1  # lines that much younger than an instance's end are its successor's; ends are whole seconds
_KEPT = 4  # instances: the API reaches two


@dataclass(slots=True, eq=False)
class Instance:
    """One run of the container, or the part of its log behind a gap: one log of ours."""

    id: str  # "" where the pod may not be looked at
    restarts: int
    log: str
    seen: Seen
    origin: int = 0  # the offset at which this process began
    offset: int = 0
    not_before_ns: int = 0
    ended: bool = False
    strays: Counter[int] = field(default_factory=Counter)  # its first lines, maybe read under its predecessor's name

    def state(self, delivered: int) -> dict[str, object]:
        return {
            "id": self.id,
            "restarts": self.restarts,
            "log": self.log,
            "offset": delivered,
            "not_before_ns": self.not_before_ns,
            **self.seen.state(delivered),
        }


class Instances:
    """Those that are known, oldest first; `out` is what was read of them and not taken."""

    def __init__(
        self, path: str, container: str, telemetry: Telemetry, *, start_at_end: bool, clock_ns: Callable[[], int]
    ) -> None:
        self.known: list[Instance] = []
        self.out: deque[Chunk] = deque()
        self.half: stamped.Line | None = None  # of the connection that broke
        self._path = path
        self._container = container
        self._telemetry = telemetry
        self._start_at_end = start_at_end
        self._clock_ns = clock_ns
        self._serial = 0
        self._began = False
        self._inherited: Seen | None = None  # lines of the next instance, read under its predecessor's name
        self._texts: list[bytes] = []

    def choose(self, runs: list[kubeapi.Run] | None) -> tuple[kubeapi.Run, Instance] | None:
        """Return the oldest instance that is not read to its end; None where there is nothing to read now.

        `runs` is None where the pod may not be looked at.
        """
        chosen = self._choose(runs)
        self._began = True
        return chosen

    def add(self, instance: Instance, line: stamped.Line) -> None:
        """Take a line; `pack` gives it away."""
        self.half = None
        self._texts.append(line.text)
        instance.offset += len(line.text)
        instance.seen.add(instance.offset, line.ns, line.key)
        if line.lost:
            self._telemetry.bytes_lost("line_too_long", line.lost, "a line is longer than source.max_line_bytes")

    def pack(self, instance: Instance) -> None:
        """Give what was taken to the reader, a turn at a time."""
        data = b"".join(self._texts)
        self._texts.clear()
        start = instance.offset - len(data)
        for begin in range(0, len(data), generation.CHUNK_BYTES):
            part = data[begin : begin + generation.CHUNK_BYTES]
            self.out.append(Chunk(part, Position(instance.log, start + begin)))

    def hand_over(self, instance: Instance, half: stamped.Line) -> None:
        """Give half a line away, and do not remember it: it is no line yet, the next start reads it again."""
        self.out.append(Chunk(half.text, Position(instance.log, instance.offset)))

    def divide(self, instance: Instance, run: kubeapi.Run) -> Instance:
        """Begin the part behind a gap: lines that must come again did not.

        Their file was rotated away, and with it perhaps lines nobody has read. What follows is a log of its own,
        because positions behind the gap are not those of an earlier reading.
        """
        self._telemetry.log_gap(
            "rotated_away", f"{self._path}: the last lines read are gone, and what followed them before the rotation"
        )
        self.pack(instance)
        self.finish(instance, self.half)
        self.half = None
        self._inherited = instance.seen.continued()
        return self._begin(run)

    def finish(self, instance: Instance, half: stamped.Line | None) -> None:
        """Say that a log is over; `half` is what is left of a line without an end."""
        data = half.text if half is not None else b""
        self.out.append(Chunk(data, Position(instance.log, instance.offset), end_of_log=True, final=True))
        instance.offset += len(data)
        instance.ended = True

    def lose(self, instance: Instance, detail: str) -> None:
        """Count an instance that is gone before it was read to its end."""
        self._telemetry.log_gap("restarted", f"{self._path}: {detail}")
        self.finish(instance, self.half)
        self.half = None

    def position(self) -> Position:
        """Return where reading stands."""
        newest = self.known[-1] if self.known else None
        return Position(newest.log, newest.offset) if newest is not None else Position(self._container, 0)

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        states = []
        for one in self.known:
            position = delivered.get(one.log)
            offset = one.origin if position is None else position.offset
            if not one.ended or offset < one.offset or one is self.known[-1]:
                states.append({**one.state(offset), "ended": one.ended and offset >= one.offset})
        return {"kind": _KIND, "path": self._path, "serial": self._serial, "generations": states}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take up what `snapshot` saved; nothing where that was of another pod, or is damaged, which is counted."""
        if saved.get("kind") != _KIND or saved.get("path") != self._path:
            return
        try:
            entries = saved.get("generations")
            if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
                raise ValueError("generations: expected a list of objects")  # noqa: TRY301  one place to report
            instances: list[Instance] = []
            for entry in entries:
                if any(one.id == entry.get("id") for one in instances):
                    continue  # behind a gap: found again by reading on
                offset = generation.number(entry, "offset")
                instances.append(
                    Instance(
                        str(entry.get("id")),
                        generation.number(entry, "restarts"),
                        str(entry.get("log")),
                        Seen.from_state(entry),
                        origin=offset,
                        offset=offset,
                        not_before_ns=generation.number(entry, "not_before_ns"),
                        ended=entry.get("ended") is True,
                    )
                )
            self._serial = generation.number(saved, "serial")
            self.known = instances
            self._began = True
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved position of {self._path}: {error}")

    def _choose(self, runs: list[kubeapi.Run] | None) -> tuple[kubeapi.Run, Instance] | None:
        current = self.known[-1] if self.known else None
        if runs is None:
            if current is None or current.ended:
                current = self._begin(kubeapi.Run("", 0, running=True))
            return kubeapi.Run(current.id, current.restarts, running=True), current
        if not runs:
            return None
        if current is not None and not current.id:  # the pod may be looked at now
            current.id, current.restarts = runs[-1].id, runs[-1].restarts
        self._account(runs)
        newest = max((one.restarts for one in self.known), default=-1)
        for run in runs:
            instance = next((one for one in reversed(self.known) if one.id == run.id), None)
            if instance is None:
                if run.restarts < newest:
                    continue  # over before what we began with
                if self._start_at_end and not self._began and run.previous:
                    continue
                instance = self._begin(run)
            if not instance.ended:
                self._relabel(run, instance)
            if not instance.ended:
                return run, instance
        return None

    def _account(self, runs: list[kubeapi.Run]) -> None:
        """Count what can no longer be asked for."""
        reachable = {run.id for run in runs}
        for one in self.known:
            if not one.ended and one.id not in reachable:
                self.lose(one, f"{one.id} was replaced more than once since it was last read")
        if self.known and runs[0].restarts > self.known[-1].restarts + 1:
            self._telemetry.log_gap("restarted", f"{self._path} was restarted faster than its logs can be asked for")
            # counted once: from here on the newest one known is the one before
            self.known[-1].restarts = runs[0].restarts - 1

    def _relabel(self, run: kubeapi.Run, instance: Instance) -> None:
        """Give what was read under the name of a dead instance to its successor, where it is younger than that.

        Between the look at the pod and the opening of the log the container was replaced. Lines that were known before
        would have been missed (`_doubts`): so nothing of the dead one was read, and all of it is still to be.
        """
        if not run.finished or instance.seen.newest_ns < (run.finished + _RELABELED_SECONDS) * SECOND:
            return
        self._inherited = instance.seen.continued()
        instance.seen = Seen()
        if any(one.id == instance.id and one is not instance for one in self.known):
            self.finish(instance, None)  # part of it was read, in front of a gap that is counted

    def _begin(self, run: kubeapi.Run) -> Instance:
        self._serial += 1
        before = self.known[-1] if self.known else None
        seen, self._inherited = self._inherited or Seen(), None
        not_before = 0
        if self._start_at_end and not self._began:
            not_before = self._clock_ns()
            seen = Seen(not_before)
        one = Instance(run.id, run.restarts, f"{self._container}#{self._serial}", seen, not_before_ns=not_before)
        if before is not None and not seen.newest_ns:
            one.strays = before.seen.expected()
        self.known.append(one)
        if len(self.known) > _KEPT:
            del self.known[0]
        return one
