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
import time
from typing import TYPE_CHECKING, Any

from sidecar.model import Chunk, Position
from sidecar.sources import kubeapi, kubestream
from sidecar.sources.kubeinstances import Instance, Instances
from sidecar.sources.kubepace import Pace, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.sources import stamped
    from sidecar.sources.kubestream import Connection
    from sidecar.telemetry import Telemetry


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
        self._pace = pace if pace is not None else Pace()
        self._clock_ns = clock_ns
        self._instances = Instances(path, container, telemetry, start_at_end=start_at == "end", clock_ns=clock_ns)
        self._connection: Connection | None = None
        self._doubt: tuple[Instance, float] | None = None  # whose lines did not come again, and since when
        self._turns = Turns(self._pace)
        self._probe_at = 0.0
        self._refused_token = False
        self._blind = False  # the pod's status is refused, and that was said
        self._bound: asyncio.Timeout | None = None  # of what waits now; stop() ends it
        self._stopping_ns: int | None = None
        self._stop_by = 0.0
        self._over = False
        if saved is not None:
            self._instances.resume(saved)

    async def start(self) -> None:
        """Ask once, so that what can be read is attached from the beginning."""
        await self._advance()

    async def read(self, wait: float) -> Chunk | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            if self._instances.out:
                return self._instances.out.popleft()
            if self._over:
                return None
            if self._stopping_ns is not None:
                await self._drain(loop.time())
            elif self._connection is None:
                await self._look(min(self._turns.due, deadline))
            elif await self._receive(deadline):
                continue
            elif loop.time() >= self._probe_at:
                await self._probe()
            if not self._instances.out and self._stopping_ns is None and loop.time() >= deadline:
                return Chunk(b"", self._instances.position())

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
        return sum(len(chunk.data) for chunk in self._instances.out)

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        return self._instances.snapshot(delivered)

    def describe(self) -> dict[str, object]:
        return {
            "source": "kubernetes",
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
        self._instances.out.clear()
        self._over = True
        self.attached = False

    # waiting

    async def _look(self, until: float) -> None:
        """Wait, for stop if need be, and ask again if it is time to."""
        with contextlib.suppress(TimeoutError):
            await self._bounded(until, asyncio.Event().wait)
        if self._stopping_ns is None and asyncio.get_running_loop().time() >= self._turns.due:
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
            self._turns.due = now + self._pace.settle
        return True

    async def _drain(self, now: float) -> None:
        """After stop: read what there is once more, from the beginning of what is missing, and be over."""
        if now >= self._stop_by:
            self._telemetry.log.error("not_drained", f"{self._path}: the API did not give the last lines in time")
            self._over = True
        elif self._connection is None:
            await self._pause_stopping(min(self._turns.due, self._stop_by))
            await self._advance()
        elif not self._connection.final:
            await self._disconnect()
            self._turns.due = now
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
        chosen = self._instances.choose(runs)
        now = asyncio.get_running_loop().time()
        if chosen is None:
            self.attached = True
            self._refused_token = False
            self._turns.look_later(now)
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
            self._instances.lose(instance, f"the API has no log of {instance.id} any more")
            self._turns.due = now
            return
        self.attached = True
        self._refused_token = False
        self._turns.opened()
        self._connection = kubestream.connection(
            stream, run, instance, final=final, max_line_bytes=self._max_line_bytes, now_ns=self._clock_ns()
        )
        self._probe_at = asyncio.get_running_loop().time() + self._pace.probe

    async def _probe(self) -> None:
        """After a long silence make sure that the log is silent too: followers have stalled at rotations."""
        connection = self._connection
        assert connection is not None
        self._probe_at = asyncio.get_running_loop().time() + self._pace.probe
        try:
            lines = await self._bounded(
                None, lambda: kubestream.newest(self._api, self._container, self._max_line_bytes)
            )
        except (TimeoutError, kubeapi.ApiError):
            return  # the next one will tell
        known = connection.instance.seen
        if any(line.text and line.ns > known.newest_ns and not known.expected()[line.key] for line in lines):
            self._telemetry.source_waiting(self._path, "the stream has stalled", "api")
            await self._disconnect()
            self._turns.due = 0.0

    # what came

    def _take(self, connection: Connection, data: bytes, now: float) -> bool:
        """Take lines; say no where they may be another instance's: the pod is to be looked at again first."""
        for line in connection.splitter.feed(data):
            if not line.text:
                self._telemetry.source_waiting(self._path, f"the kubelet says: {line.complaint}", "api")
            elif not connection.known(line) and not self._unwanted(connection, line):
                if connection.unanswered:
                    if self._doubts(connection, now):
                        return False
                    self._gap(connection)
                self._doubt = None
                self._turns.progressed()
                self._instances.add(connection.instance, line)
        self._instances.pack(connection.instance)
        return True

    def _unwanted(self, connection: Connection, line: stamped.Line) -> bool:
        """Say whether a line is older than where reading begins, or younger than where it ends."""
        if line.ns < connection.instance.not_before_ns:
            return True
        return self._stopping_ns is not None and line.ns > self._stopping_ns

    def _doubts(self, connection: Connection, now: float) -> bool:
        """Say whether lines that do not come again may be missing because the container was just replaced."""
        instance = connection.instance
        if not connection.run.running or not instance.id or self._stopping_ns is not None:
            return False
        if self._doubt is None or self._doubt[0] is not instance:
            self._doubt = (instance, now)
        return now < self._doubt[1] + self._pace.settle

    def _gap(self, connection: Connection) -> None:
        connection.asked = 0
        connection.instance = self._instances.divide(connection.instance, connection.run)

    # ends

    async def _ended(self) -> None:
        """The stream has ended, which says nothing of the container: the pod does."""
        connection = self._connection
        assert connection is not None
        rest = connection.rest()
        await self._disconnect()
        if connection.run.running:
            if connection.final:
                if rest is not None and rest.ns <= (self._stopping_ns or 0):
                    self._instances.hand_over(connection.instance, rest)
                self._over = True
            else:
                self._instances.half = rest
                self._turns.again(asyncio.get_running_loop().time())
            return
        if connection.unanswered:
            self._gap(connection)
        self._instances.finish(connection.instance, rest)
        self._instances.half = None
        self._turns.due = 0.0

    async def _broken(self, error: kubeapi.ApiError) -> None:
        connection = self._connection
        assert connection is not None
        self._instances.half = connection.splitter.rest()
        await self._disconnect()
        self._failed(error, asyncio.get_running_loop().time())

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.stream.close()

    def _failed(self, error: kubeapi.ApiError, now: float) -> None:
        if error.reason == "waiting":  # a container that is being created is no failure
            self.attached = True
            self._turns.look_later(now)
            return
        self._telemetry.source_waiting(self._path, str(error), "api")
        if error.reason in ("unauthorized", "forbidden"):
            self.attached = False
        elif error.reason == "missing":
            self.attached = True
        if error.reason == "unauthorized" and not self._refused_token:
            self._refused_token = True
            self._turns.due = now  # the token is read again for each request: it may just have been replaced
            return
        self._turns.again(now, error.after)


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
