"""Follows a container's log through the Kubernetes API: for namespaces that allow no hostPath.

The problem: the API resumes at a second, ends a healthy stream whenever it likes, repeats a dead instance's log while a
new one is waited for, and never serves a rotated file. The promise: every line that the API still serves is read
once: known lines are told by their digests (`seen`), instances by their container ID, the end of an instance by the
pod's status and never by the end of a stream; where known lines do not come back, or an instance is gone before its
log was read to its end, a gap is counted. Refused: to be lossless, which the API does not allow; stdout and stderr as
two streams, which it does not tell; and to end: a container may always be started again.

Without `get` on `pods` the log is followed all the same, without knowing one instance from the next.
A request that hangs keeps `read` waiting for 10 s at most: there is no task here that could wait instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar import times
from sidecar.model import Chunk, Position
from sidecar.sources import generation, kubeapi, stamped
from sidecar.sources.seen import SECOND, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.telemetry import Telemetry

_KIND = "kubernetes"
_RELABELED_SECONDS = 1  # lines that much younger than an instance's end are its successor's; ends are whole seconds
_KEPT = 4  # instances: the API reaches two


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often is asked, in seconds."""

    first_retry: float = 0.1
    last_retry: float = 30.0
    poll: float = 1.0  # while the container is not running
    last_poll: float = 5.0
    probe: float = 60.0  # of silence, until it is made sure that the stream has not stalled
    settle: float = 2.0  # the pod's status may be so old: before missing lines are taken for rotated away
    drain: float = 2.0  # after `stop`: what a native sidecar has


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


@dataclass(slots=True)
class _Connection:
    """An open stream, and what is known to come again on it."""

    stream: kubeapi.Stream
    run: kubeapi.Run
    instance: Instance
    splitter: stamped.Splitter
    expected: Counter[int] = field(default_factory=Counter)
    asked: int = 0  # how many lines are expected
    came: int = 0  # how many of them came
    final: bool = False  # not followed: its end is the end of what there is now


class Kubernetes:
    """The source `kubernetes`."""

    resumable = True

    def __init__(
        self,
        api: kubeapi.Api,
        path: str,
        container: str,
        telemetry: Telemetry,
        *,
        max_line_bytes: int,
        start_at: str = "beginning",
        saved: Mapping[str, Any] | None = None,
        pace: Pace | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`path` names the container among all there are: namespace/pod/uid/container."""
        self.attached = False
        self._api = api
        self._path = path
        self._container = container
        self._telemetry = telemetry
        self._max_line_bytes = max_line_bytes
        self._start_at_end = start_at == "end"
        self._pace = pace if pace is not None else Pace()
        self._clock_ns = clock_ns
        self._serial = 0
        self._instances: list[Instance] = []
        self._began = False
        self._connection: _Connection | None = None
        self._half: stamped.Line | None = None  # of the connection that broke
        self._inherited: Seen | None = None  # lines of the next instance, read under its predecessor's name
        self._doubt: tuple[Instance, float] | None = None  # whose lines did not come again, and since when
        self._out: deque[Chunk] = deque()
        self._texts: list[bytes] = []
        self._due = 0.0
        self._retry = self._pace.first_retry
        self._poll = self._pace.poll
        self._probe_at = 0.0
        self._refused_token = False
        self._blind = False  # the pod's status is refused, and that was said
        self._bound: asyncio.Timeout | None = None  # of what waits now; stop() ends it
        self._stopping_ns: int | None = None
        self._stop_by = 0.0
        self._over = False
        if saved is not None:
            self._resume(saved)

    async def start(self) -> None:
        """Ask once, so that what can be read is attached from the beginning."""
        await self._advance()

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if self._out:
                return self._out.popleft()
            if self._over:
                return None
            if self._stopping_ns is not None:
                await self._drain(loop.time())
            elif self._connection is None:
                await self._look(min(self._due, deadline))
            elif await self._receive(deadline):
                continue
            elif loop.time() >= self._probe_at:
                await self._probe()
            if not self._out and self._stopping_ns is None and loop.time() >= deadline:
                return Chunk(b"", self._position())

    def stop(self) -> None:
        """What the runtime has stamped until now is what is there; it is asked for once more, without following."""
        if self._stopping_ns is not None:
            return
        now = asyncio.get_running_loop().time()
        self._stopping_ns = self._clock_ns()
        self._stop_by = now + self._pace.drain
        if self._bound is not None:
            self._bound.reschedule(now)

    def unread(self) -> int:
        """Return what has come and was not taken; the API does not tell what waits behind it."""
        return sum(len(chunk.data) for chunk in self._out)

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        states = []
        for one in self._instances:
            position = delivered.get(one.log)
            offset = one.origin if position is None else position.offset
            if not one.ended or offset < one.offset or one is self._instances[-1]:
                states.append({**one.state(offset), "ended": one.ended and offset >= one.offset})
        return {"kind": _KIND, "path": self._path, "serial": self._serial, "generations": states}

    def describe(self) -> dict[str, object]:
        return {
            "source": _KIND,
            "path": self._path,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "format": "Kubernetes API, stdout and stderr as one",
            "lossless": False,
            "why": "the API never serves a rotated file, and only the last of the dead instances: what was rotated "
            "away while the connection was down is lost, and counted as a gap; needs Kubernetes 1.29 to follow "
            "across rotations",
        }

    async def close(self) -> None:
        await self._disconnect()
        self._out.clear()
        self._over = True
        self.attached = False

    # waiting

    async def _look(self, until: float) -> None:
        """Wait, for stop if need be, and ask again if it is time to."""
        with contextlib.suppress(TimeoutError):
            await self._bounded(until, asyncio.Event().wait)
        if self._stopping_ns is None and asyncio.get_running_loop().time() >= self._due:
            await self._advance()

    async def _bounded(self, until: float | None, work: Callable[[], Any]) -> Any:  # noqa: ANN401  what `work` gives
        """Await `work` until a time of the loop's clock, or until stop. Raises TimeoutError."""
        try:
            async with asyncio.timeout_at(until) as self._bound:
                return await work()
        finally:
            self._bound = None

    async def _receive(self, deadline: float) -> bool:
        """Take what comes until `deadline`; say whether something did, an end included."""
        connection = self._connection
        assert connection is not None
        try:
            data = await self._bounded(min(deadline, self._probe_at), connection.stream.read)
        except TimeoutError:
            return False
        except kubeapi.ApiError as error:
            await self._broken(error)
            return True
        now = asyncio.get_running_loop().time()
        if not data:
            await self._ended()
        elif self._take(connection, data, now):
            self._probe_at = now + self._pace.probe
        else:
            await self._disconnect()
            self._due = now + self._pace.settle
        return True

    async def _drain(self, now: float) -> None:
        """After stop: read what there is once more, from the beginning of what is missing, and be over."""
        if now >= self._stop_by:
            self._telemetry.log.error("not_drained", f"{self._path}: the API did not give the last lines in time")
            self._over = True
        elif self._connection is None:
            await self._pause_stopping(min(self._due, self._stop_by))
            await self._advance()
        elif not self._connection.final:
            await self._disconnect()
            self._due = now
        else:
            await self._receive(self._stop_by)

    async def _pause_stopping(self, until: float) -> None:
        now = asyncio.get_running_loop().time()
        if until > now:
            await asyncio.sleep(until - now)

    # asking

    async def _advance(self) -> None:
        """Look at the pod, and open the log that is to be read next."""
        now = asyncio.get_running_loop().time()
        try:
            await self._bounded(self._stop_by if self._stopping_ns is not None else None, self._connect)
        except TimeoutError:
            return  # told to stop
        except kubeapi.ApiError as error:
            self._failed(error, now)

    async def _connect(self) -> None:
        runs: list[kubeapi.Run] | None = None
        try:
            runs = await self._api.runs(self._container)
            self._blind = False
        except kubeapi.ApiError as error:
            if error.reason != "forbidden":
                raise
            if not self._blind:  # once, and again when it was allowed in between: it is asked at each connection
                self._blind = True
                self._telemetry.log.warn(
                    "pod_status_forbidden", f"following {self._path} without the pod's status: {error}", path=self._path
                )
        chosen = self._choose(runs)
        self._began = True
        now = asyncio.get_running_loop().time()
        if chosen is None:
            self.attached = True
            self._refused_token = False
            self._due = now + self._poll
            self._poll = min(self._poll * 1.5, self._pace.last_poll)
            self._over = self._over or self._stopping_ns is not None
            return
        run, instance = chosen
        final = not run.running or self._stopping_ns is not None
        since = instance.seen.since()
        try:
            stream = await self._api.log(self._container, follow=not final, previous=run.previous, since=since)
        except kubeapi.ApiError as error:
            if error.reason != "missing" or run.running:
                raise
            self._lose(instance, f"the API has no log of {instance.id} any more")
            self._due = now
            return
        self.attached = True
        self._refused_token = False
        self._poll = self._pace.poll
        stamp = times.format_time(times.Stamp(instance.seen.newest_ns or self._clock_ns(), 9)).encode()
        expected = instance.seen.expected()
        splitter = stamped.Splitter(self._max_line_bytes, stamp)
        asked = expected.total()
        if not instance.seen.newest_ns:
            expected = Counter(instance.strays)
        self._connection = _Connection(stream, run, instance, splitter, expected, asked, final=final)
        self._probe_at = asyncio.get_running_loop().time() + self._pace.probe

    def _choose(self, runs: list[kubeapi.Run] | None) -> tuple[kubeapi.Run, Instance] | None:
        """Return the oldest instance that is not read to its end; None where there is nothing to read now."""
        current = self._instances[-1] if self._instances else None
        if runs is None:
            if current is None or current.ended:
                current = self._begin(kubeapi.Run("", 0, running=True))
            return kubeapi.Run(current.id, current.restarts, running=True), current
        if not runs:
            return None
        if current is not None and not current.id:  # the pod may be looked at now
            current.id, current.restarts = runs[-1].id, runs[-1].restarts
        self._account(runs)
        newest = max((one.restarts for one in self._instances), default=-1)
        for run in runs:
            instance = next((one for one in reversed(self._instances) if one.id == run.id), None)
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
        for one in self._instances:
            if not one.ended and one.id not in reachable:
                self._lose(one, f"{one.id} was replaced more than once since it was last read")
        if self._instances and runs[0].restarts > self._instances[-1].restarts + 1:
            self._telemetry.log_gap("restarted", f"{self._path} was restarted faster than its logs can be asked for")
            # counted once: from here on the newest one known is the one before
            self._instances[-1].restarts = runs[0].restarts - 1

    def _relabel(self, run: kubeapi.Run, instance: Instance) -> None:
        """Give what was read under the name of a dead instance to its successor, where it is younger than that.

        Between the look at the pod and the opening of the log the container was replaced. Lines that were known before
        would have been missed (`_doubts`): so nothing of the dead one was read, and all of it is still to be.
        """
        if not run.finished or instance.seen.newest_ns < (run.finished + _RELABELED_SECONDS) * SECOND:
            return
        self._inherited = instance.seen.continued()
        instance.seen = Seen()
        if any(one.id == instance.id and one is not instance for one in self._instances):
            self._finish(instance, None)  # part of it was read, in front of a gap that is counted

    def _begin(self, run: kubeapi.Run) -> Instance:
        self._serial += 1
        before = self._instances[-1] if self._instances else None
        seen, self._inherited = self._inherited or Seen(), None
        not_before = 0
        if self._start_at_end and not self._began:
            not_before = self._clock_ns()
            seen = Seen(not_before)
        one = Instance(run.id, run.restarts, f"{self._container}#{self._serial}", seen, not_before_ns=not_before)
        if before is not None and not seen.newest_ns:
            one.strays = before.seen.expected()
        self._instances.append(one)
        if len(self._instances) > _KEPT:
            del self._instances[0]
        return one

    async def _probe(self) -> None:
        """After a long silence make sure that the log is silent too: followers have stalled at rotations."""
        connection = self._connection
        assert connection is not None
        self._probe_at = asyncio.get_running_loop().time() + self._pace.probe
        splitter = stamped.Splitter(self._max_line_bytes)
        lines: list[stamped.Line] = []

        async def ask() -> None:
            stream = await self._api.log(self._container, follow=False, previous=False, tail=1)
            try:
                while data := await stream.read():
                    lines.extend(splitter.feed(data))
            finally:
                await stream.close()

        try:
            await self._bounded(None, ask)
        except (TimeoutError, kubeapi.ApiError):
            return  # the next one will tell
        known = connection.instance.seen
        if any(line.text and line.ns > known.newest_ns and not known.expected()[line.key] for line in lines):
            self._telemetry.source_waiting(self._path, "the stream has stalled")
            await self._disconnect()
            self._due = 0.0

    # what came

    def _take(self, connection: _Connection, data: bytes, now: float) -> bool:
        """Take lines; say no where they may be another instance's: the pod is to be looked at again first."""
        for line in connection.splitter.feed(data):
            if not line.text:
                self._telemetry.source_waiting(self._path, f"the kubelet says: {line.complaint}")
            elif connection.expected[line.key] > 0:
                connection.expected[line.key] -= 1
                connection.came += 1
            elif not self._unwanted(connection, line):
                if connection.asked and not connection.came:
                    if self._doubts(connection, now):
                        return False
                    self._gap(connection)
                self._add(connection.instance, line)
        self._pack(connection.instance)
        return True

    def _unwanted(self, connection: _Connection, line: stamped.Line) -> bool:
        """Say whether a line is older than where reading begins, or younger than where it ends."""
        if line.ns < connection.instance.not_before_ns:
            return True
        return self._stopping_ns is not None and line.ns > self._stopping_ns

    def _doubts(self, connection: _Connection, now: float) -> bool:
        """Say whether lines that do not come again may be missing because the container was just replaced."""
        instance = connection.instance
        if not connection.run.running or not instance.id or self._stopping_ns is not None:
            return False
        if self._doubt is None or self._doubt[0] is not instance:
            self._doubt = (instance, now)
        return now < self._doubt[1] + self._pace.settle

    def _add(self, instance: Instance, line: stamped.Line) -> None:
        self._half = None
        self._doubt = None
        self._retry = self._pace.first_retry
        self._texts.append(line.text)
        instance.offset += len(line.text)
        instance.seen.add(instance.offset, line.ns, line.key)
        if line.lost:
            self._telemetry.bytes_lost("line_too_long", line.lost, "a line is longer than source.max_line_bytes")

    def _pack(self, instance: Instance) -> None:
        """Give what was taken to the reader, a turn at a time."""
        data = b"".join(self._texts)
        self._texts.clear()
        start = instance.offset - len(data)
        for begin in range(0, len(data), generation.CHUNK_BYTES):
            part = data[begin : begin + generation.CHUNK_BYTES]
            self._out.append(Chunk(part, Position(instance.log, start + begin)))

    def _gap(self, connection: _Connection) -> None:
        """Lines that must come again did not: their file was rotated away, and with it perhaps lines nobody has read.

        What follows is a log of its own, because positions behind the gap are not those of an earlier reading.
        """
        instance = connection.instance
        self._telemetry.log_gap(
            "rotated_away", f"{self._path}: the last lines read are gone, and what followed them before the rotation"
        )
        connection.asked = 0
        self._pack(instance)
        self._finish(instance, self._half)
        self._half = None
        self._inherited = instance.seen.continued()
        connection.instance = self._begin(connection.run)

    def _finish(self, instance: Instance, half: stamped.Line | None) -> None:
        """Say that a log is over; `half` is what is left of a line without an end."""
        data = half.text if half is not None else b""
        self._out.append(Chunk(data, Position(instance.log, instance.offset), end_of_log=True, final=True))
        instance.offset += len(data)
        instance.ended = True

    def _lose(self, instance: Instance, detail: str) -> None:
        self._telemetry.log_gap("restarted", f"{self._path}: {detail}")
        self._finish(instance, self._half)
        self._half = None

    # ends

    async def _ended(self) -> None:
        """The stream has ended, which says nothing of the container: the pod does."""
        connection = self._connection
        assert connection is not None
        rest = connection.splitter.rest()
        if rest is not None and (not rest.text or connection.expected[rest.key] > 0):
            rest = None
        await self._disconnect()
        if connection.run.running:
            if connection.final:
                if rest is not None and rest.ns <= (self._stopping_ns or 0):
                    # handed over, and not remembered: it is no line yet, the next start reads it again
                    self._out.append(Chunk(rest.text, Position(connection.instance.log, connection.instance.offset)))
                self._over = True
            else:
                self._half = rest
                self._again(asyncio.get_running_loop().time())
            return
        if connection.asked and not connection.came:
            self._gap(connection)
        self._finish(connection.instance, rest)
        self._half = None
        self._due = 0.0

    async def _broken(self, error: kubeapi.ApiError) -> None:
        connection = self._connection
        assert connection is not None
        self._half = connection.splitter.rest()
        await self._disconnect()
        self._failed(error, asyncio.get_running_loop().time())

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.stream.close()

    def _again(self, now: float, after: float | None = None) -> None:
        """Ask again later, the later the more often it was in vain."""
        pause = self._retry * random.uniform(0.5, 1.0)  # noqa: S311  spreads requests, hides nothing
        self._due = now + (pause if after is None else max(after, pause))
        self._retry = min(self._retry * 2, self._pace.last_retry)

    def _failed(self, error: kubeapi.ApiError, now: float) -> None:
        if error.reason == "waiting":  # a container that is being created is no failure
            self.attached = True
            self._due = now + self._poll
            self._poll = min(self._poll * 1.5, self._pace.last_poll)
            return
        self._telemetry.source_waiting(self._path, str(error))
        if error.reason in ("unauthorized", "forbidden"):
            self.attached = False
        elif error.reason == "missing":
            self.attached = True
        if error.reason == "unauthorized" and not self._refused_token:
            self._refused_token = True
            self._due = now  # the token is read again for each request: it may just have been replaced
            return
        self._again(now, error.after)

    def _position(self) -> Position:
        newest = self._instances[-1] if self._instances else None
        return Position(newest.log, newest.offset) if newest is not None else Position(self._container, 0)

    # states

    def _resume(self, saved: Mapping[str, Any]) -> None:
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
            self._instances = instances
            self._began = True
        except ValueError as error:
            self._telemetry.checkpoint_invalid("damaged", f"the saved position of {self._path}: {error}")


def create(
    environ: Mapping[str, str],
    container: str,
    telemetry: Telemetry,
    *,
    max_line_bytes: int,
    start_at: str,
    saved: Mapping[str, Any] | None,
) -> Kubernetes:
    """Return the source for a container of the pod that `environ` names. Raises SourceError outside a cluster."""
    namespace, pod = environ.get("POD_NAMESPACE", ""), environ.get("POD_NAME", "")
    # For clusters that mount the account elsewhere.
    account = environ.get("KUBERNETES_SERVICE_ACCOUNT_DIR", kubeapi.ACCOUNT)
    return Kubernetes(
        kubeapi.Api(environ, namespace, pod, account=account),
        f"{namespace}/{pod}/{environ.get('POD_UID', '')}/{container}",
        container,
        telemetry,
        max_line_bytes=max_line_bytes,
        start_at=start_at,
        saved=saved,
    )
