"""Liveness, readiness and /health, told from what the parts already know.

Problem: a probe that asks around when it is asked hangs with whatever hangs, and a pod is restarted for its backend.
Promise: `Health` answers from cached state without I/O, in microseconds. Alive means that the event loop turns, nothing
else. Ready means started, attached and, where it is asked, the application healthy. In the report a dead part, a
stalled loop or shutdown is `fail`; trouble of a downstream (Loki) is at most `warn`: its records are kept or counted.
Refused: judging a part by its exceptions, restarting anything, names and addresses of the application in an answer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import orjson

from sidecar import fetch
from sidecar.options import Duration, option, show_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Status = Literal["pass", "warn", "fail"]

BEAT_SECONDS = 0.5
STALLED_SECONDS = 10.0  # without a beat for so long the loop counts as stalled
LAGGING_SECONDS = 1.0  # a beat that late is worth a warning, for a minute
_LAG_MEMORY_SECONDS = 60.0
PERIOD_SECONDS = 5.0  # how often the application is asked; what platforms use for their own probes
INITIAL_DELAY_SECONDS = 10.0  # an application that does not answer yet is starting for so long, then it is failing
_STARTING_PERIOD_SECONDS = 1.0  # asked more often until it first answers, so that the pod becomes ready soon
_ANSWER_BYTES = 10 << 10
_REASON_CHARACTERS = 500

_SEVERITY: dict[Status, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `health`."""

    app_url: str = option("", "The application's own health address; part of /health and /readyz when set.")
    timeout: Duration = option(Duration(2.0), "Longest time to wait for the application's answer.", minimum=0.05)


@dataclass(frozen=True, slots=True)
class Check:
    """What one part says of itself. `output` is the reason, for people; empty where all is well."""

    status: Status
    output: str = ""
    observed_value: float | str | None = None
    observed_unit: str = ""
    component_type: str = "component"
    time: datetime | None = None  # when it was observed; None: just now
    details: Mapping[str, object] = field(default_factory=dict)  # members beside those of the draft, which allows it


Probe: TypeAlias = "Callable[[], Check]"  # cheap, reads what is already known


class Gate(NamedTuple):
    """One condition of readiness. `reason` is empty while it holds."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The pod's health at one moment."""

    status: Status
    reason: str  # empty when all is well
    checks: dict[str, Check]
    about: dict[str, object]  # version, releaseId, serviceId, notes: those that are known
    time: datetime

    def text(self) -> str:
        """Return `OK`, or the reason in one line."""
        return "OK" if self.status == "pass" else self.reason

    def json(self) -> bytes:
        """Return the report as `application/health+json` (draft-inadarei-api-health-check)."""
        body: dict[str, object] = {"status": self.status, **self.about}
        if self.reason:
            body["output"] = self.reason
        body["checks"] = {name: [self._check(check)] for name, check in self.checks.items()}
        return orjson.dumps(body)

    def _check(self, check: Check) -> dict[str, object]:
        told: dict[str, object] = {"componentType": check.component_type, "status": check.status}
        if check.observed_value is not None:
            told["observedValue"] = check.observed_value
        if check.observed_unit:
            told["observedUnit"] = check.observed_unit
        told["time"] = (check.time or self.time).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if check.output:
            told["output"] = check.output
        return {**check.details, **told}


@dataclass(slots=True)
class _Part:
    probe: Probe
    downstream: bool
    gates_readiness: bool


class Health:
    """Knows how the sidecar is. One writer, the event loop; every answer comes from cached state."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        version: str = "",
        release_id: str = "",
        service_id: str = "",
        notes: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.starting = True
        self.stopping = False
        # Whether the source is attached. Only `pass` is: a source that cannot be read may `warn` and say why.
        self.attached: Probe = lambda: Check("warn", "not attached yet")
        self._clock = clock
        self._now = now
        self._about: dict[str, object] = {
            key: value
            for key, value in (
                ("version", version),
                ("releaseId", release_id),
                ("serviceId", service_id),
                ("notes", list(notes)),
            )
            if value
        }
        self._parts: dict[str, _Part] = {}
        self._last_beat = self._worst_at = clock()
        self._worst_lag = 0.0

    def add(self, name: str, probe: Probe, *, downstream: bool = False, gates_readiness: bool = False) -> None:
        """Add a part, named "component:measurement".

        A `downstream` is out of our hands: its `fail` counts, and shows, as `warn`.
        A part that `gates_readiness` holds /readyz back unless it says `pass`.
        """
        if name in self._parts:
            raise ValueError(f"there is a health check {name} already")
        self._parts[name] = _Part(probe, downstream, gates_readiness)

    def heartbeat(self) -> None:
        """Say that the event loop turns."""
        now = self._clock()
        lag = max(0.0, now - self._last_beat - BEAT_SECONDS)
        if lag >= self._worst_lag or now - self._worst_at > _LAG_MEMORY_SECONDS:
            self._worst_lag, self._worst_at = lag, now
        self._last_beat = now

    async def tick(self) -> None:
        """Beat for ever; app runs it as a task, from before anybody can ask."""
        while True:
            self.heartbeat()
            await asyncio.sleep(BEAT_SECONDS)

    def live(self) -> bool:
        """Tell whether the event loop turns: the one thing a restart can mend."""
        return self._clock() - self._last_beat <= STALLED_SECONDS

    @property
    def ready(self) -> bool:
        return not any(gate.reason for gate in self.gates())

    def gates(self) -> list[Gate]:
        """Return every condition of readiness with what keeps it closed."""
        gates = [
            Gate("started", "still starting" if self.starting else ""),
            Gate("shutdown", "shutting down" if self.stopping else ""),
            Gate("source", _objection(self.attached())),
        ]
        gates += [Gate(name, _objection(part.probe())) for name, part in self._parts.items() if part.gates_readiness]
        return gates

    def report(self) -> Report:
        """Return the whole state. Worst first: the reason is that of the checks that decide the status."""
        checks = {"sidecar:state": self._state(), "event-loop:lag": self._loop(), "source:attached": self.attached()}
        for name, part in self._parts.items():
            check = part.probe()
            if part.downstream and check.status == "fail":
                check = replace(check, status="warn")
            checks[name] = check
        status = max((check.status for check in checks.values()), key=_SEVERITY.__getitem__)
        reason = ""
        if status != "pass":
            deciding = (f"{name}: {_objection(check)}" for name, check in checks.items() if check.status == status)
            reason = one_line("; ".join(deciding))
        return Report(status, reason, checks, self._about, self._now())

    def _state(self) -> Check:
        if self.stopping:
            return Check("fail", "shutting down", "stopping")
        if self.starting:
            return Check("warn", "still starting", "starting")
        return Check("pass", "", "running")

    def _loop(self) -> Check:
        silence = self._clock() - self._last_beat
        if not self.live():
            return Check("fail", f"the event loop has not turned for {silence:.0f} s", round(silence, 3), "s", "system")
        lag = round(max(self._worst_lag, silence - BEAT_SECONDS), 3)  # the last minute's worst, or late right now
        if lag > LAGGING_SECONDS:
            return Check("warn", f"the event loop turned {lag:.1f} s late", lag, "s", "system")
        return Check("pass", "", lag, "s", "system")


def one_line(text: str) -> str:
    """Return the text without line breaks and not longer than a line is read."""
    text = " ".join(text.split())
    return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"


def _objection(check: Check) -> str:
    return "" if check.status == "pass" else one_line(check.output) or check.status


class AppProbe:
    """Asks the application's own health address from time to time and remembers the answer.

    2xx is healthy, anything else is not; the status line decides, as for the kubelet, and the body is only drained.
    One bad answer is enough: it is the platform's probe that counts to three, and counting twice would take 30 s more.
    An application that hangs is `fail` within one period and one timeout.
    While it starts: before it first answers, silence is `warn` for `initial_delay` (unknown: not ready, and not an
    outage either) and it is asked every second; a bad answer is an answer and fails at once.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        period: float = PERIOD_SECONDS,
        *,
        initial_delay: float = INITIAL_DELAY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the address. Raises ValueError when it is none."""
        self._client = fetch.Client(url)
        self._timeout = timeout
        self._period = period
        self._initial_delay = initial_delay
        self._clock = clock
        self._now = now
        self._born = clock()
        self._answered = False  # ever
        self._asked: float | None = None  # when the last finished question was put
        self._failure = ""
        self._seconds = 0.0  # how long its answer took
        self._time: datetime | None = None

    def check(self) -> Check:
        """Return what the last answer means now; the probe to add to Health."""
        starting = not self._answered and self._clock() - self._born < self._initial_delay
        if self._asked is None or (starting and self._failure):
            reason = f"has not answered yet ({self._failure})" if self._failure else "has not been asked yet"
            return Check("warn" if starting else "fail", reason, time=self._time)
        age = self._clock() - self._asked
        if age > 2 * (self._period + self._timeout):  # nobody asks any more: an old "healthy" must not stand for ever
            return Check("fail", f"was last asked {age:.0f} s ago", time=self._time)
        if self._failure:
            return Check("fail", self._failure, time=self._time)
        return Check("pass", "", round(self._seconds * 1000, 3), "ms", time=self._time)

    async def ask(self) -> None:
        """Ask once and remember. Never raises for what the application does."""
        asked = self._clock()
        try:
            answer = await self._client.get(timeout=self._timeout, max_bytes=_ANSWER_BYTES, cut=True)
        except fetch.FetchError as error:
            failure = f"no answer within {show_duration(self._timeout)}" if error.reason == "timeout" else error.detail
            self._answered |= error.reason == "redirect"
        else:
            failure = "" if 200 <= answer.status < 300 else f"answers {answer.status}"
            self._answered = True
        self._failure = failure
        self._seconds = self._clock() - asked
        self._asked = asked
        self._time = self._now()

    async def run(self) -> None:
        """Ask for ever; app runs it as a task."""
        try:
            while True:
                begun = self._clock()
                await self.ask()
                starting = not self._answered and begun - self._born < self._initial_delay
                period = min(self._period, _STARTING_PERIOD_SECONDS) if starting else self._period
                await asyncio.sleep(max(0.0, begun + period - self._clock()))
        finally:
            await self.close()

    async def close(self) -> None:
        """Release everything. Idempotent; `run` does it when it ends."""
        await self._client.close()
