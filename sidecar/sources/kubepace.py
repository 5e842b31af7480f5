"""How often the Kubernetes API is asked.

The problem: one API server serves every sidecar of a cluster, and all of them lose it at the same moment. The promise:
requests that were in vain are repeated ever later, spread at random and never before the server said; one that was
not in vain begins anew. Pure: the caller tells the time and waits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


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


class Turns:
    """When to ask next."""

    def __init__(self, pace: Pace) -> None:
        self.due = 0.0  # of the loop's clock
        self._pace = pace
        self._retry = pace.first_retry
        self._poll = pace.poll

    def again(self, now: float, after: float | None = None) -> None:
        """Ask again later, the later the more often it was in vain; `after` is how long the API wants to be left."""
        pause = self._retry * random.uniform(0.5, 1.0)  # noqa: S311  spreads requests, hides nothing
        self.due = now + (pause if after is None else max(after, pause))
        self._retry = min(self._retry * 2, self._pace.last_retry)

    def look_later(self, now: float) -> None:
        """Ask again where nothing is wrong and nothing is there: the container is not running."""
        self.due = now + self._poll
        self._poll = min(self._poll * 1.5, self._pace.last_poll)

    def opened(self) -> None:
        """There is a log: the next container that is not running is asked for soon again."""
        self._poll = self._pace.poll

    def progressed(self) -> None:
        """A line came: the next failure is the first."""
        self._retry = self._pace.first_retry
