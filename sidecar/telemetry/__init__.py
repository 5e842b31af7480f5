"""Everything the sidecar says about itself: one method is one event, and owns its metric and its log line.

Promise: counters are raised once per batch from local sums. Refused: the content of an application's line (secrets).

WARN is odd, nothing lost. ERROR is loss, or a human is needed.
"""

from __future__ import annotations

import errno
import traceback
from typing import TYPE_CHECKING, Any

from sidecar import prometheus
from sidecar.telemetry import catalogue
from sidecar.telemetry.log import Log
from sidecar.telemetry.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sidecar.model import Outcome

__all__ = ["Log", "Recent", "Telemetry"]

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.EIO: "io",
    errno.ESTALE: "stale",
    errno.EBADF: "stale",
}  # why a source cannot be read
_SKEW_WORTH_A_WARNING = 30.0  # seconds; less is the resolution of a Date header and a slow answer


class Telemetry:
    """The catalogue of events. Passed in, never global, so that a test has its own registry for free."""

    def __init__(
        self,
        registry: prometheus.CollectorRegistry | None = None,
        log: Log | None = None,
        *,
        sinks: Iterable[str] = (),
        formats: Iterable[str] = (),
        version: str = "",
        revision: str = "",
    ) -> None:
        self.registry = registry if registry is not None else prometheus.CollectorRegistry()
        self.log = log if log is not None else Log()
        self.recent = Recent()
        self._metrics = catalogue.Catalogue(
            self.registry, sinks=tuple(sinks), formats=tuple(formats), version=version, revision=revision
        )
        self._inotify_told: set[str] = set()

    # what outlives the process

    def snapshot(self) -> dict[str, Any]:
        """Return the counters that go on over a restart, as plain JSON."""
        return self._metrics.snapshot()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `snapshot` stood. Raises StateError, changing nothing."""
        self._metrics.restore(saved)

    # what was read

    def bytes_read(self, count: int) -> None:
        self._metrics.bytes.inc(count)

    def lines_read(self, physical: int, *, joined: int = 0, blank: int = 0) -> None:
        """Count physical lines when their record leaves the assembler, so that the identity always holds."""
        self._metrics.lines.inc(physical)
        self._metrics.joined.inc(joined)
        self._metrics.skipped.labels("blank").inc(blank)

    def lines_truncated(self, lines: int, lost_bytes: int) -> None:
        self._metrics.truncated.inc(lines)
        self._lose("line_too_long", lost_bytes)
        self.log.limited(
            "error",
            "line_too_long",
            "",
            lambda sums: (
                f"{sums['lines']} lines were longer than source.max_line_bytes: their heads are kept, "
                f"{sums['lost_bytes']} bytes are lost"
            ),
            sums={"lines": lines, "lost_bytes": lost_bytes},
        )

    def lines_malformed(self, lines: int) -> None:
        self._metrics.malformed.inc(lines)
        self.log.limited(
            "warn",
            "line_malformed",
            "",
            lambda sums: (
                f"{sums['lines']} lines of the container's log are not as the runtime writes them (a full disk leaves "
                "such): they are kept as they are; expected <time> <stdout|stderr> <F|P> <text>, or docker's JSON"
            ),
            sums={"lines": lines},
        )

    def file_truncated(self, path: str, lost_bytes: int) -> None:
        self._metrics.truncations.inc()
        if lost_bytes:
            self._lose("truncated_file", lost_bytes)
            self._metrics.gaps.labels("truncated_file").inc()
        self.log.limited(
            "error" if lost_bytes else "warn",
            "file_truncated",
            path,
            f"{path} became shorter: reading it again from its start",
            sums={"lost_bytes": lost_bytes},
            path=path,
        )

    def file_rotated(self, path: str) -> None:
        self._metrics.rotations.inc()
        self.log.limited("info", "file_rotated", path, f"{path} was replaced by a new file", path=path)

    def bytes_lost(self, reason: str, count: int, detail: str) -> None:
        """Count bytes that will never be delivered, and the hole they leave."""
        self._lose(reason, count)
        if reason in catalogue.GAPS:
            self._metrics.gaps.labels(reason).inc()
        self.log.limited(
            "error",
            "bytes_lost",
            reason,
            lambda sums: f"{sums['bytes']} bytes lost: {detail}",
            sums={"bytes": count},
            reason=reason,
        )

    def _lose(self, reason: str, count: int) -> None:
        self._metrics.lost.labels(reason).inc(count)
        self.recent.lost(reason, count)

    def log_gap(self, reason: str, detail: str) -> None:
        """Count a hole in the log of which nobody can say how large it is."""
        self._metrics.gaps.labels(reason).inc()
        self.log.limited("error", "log_gap", reason, f"lines may be missing: {detail}", reason=reason)

    def lag_from(self, unread_bytes: Callable[[], int], seconds: Callable[[], float]) -> None:
        """Ask for the lag when a scrape does: who waits for a sink has no turn to tell it."""
        self._metrics.lag_bytes.set_function(unread_bytes)
        self._metrics.lag_seconds.set_function(seconds)

    def source_waiting(self, path: str, problem: OSError | str, reason: str = "other") -> None:
        """Count that it could not be read, which is tried again; an OSError tells the reason."""
        if isinstance(problem, OSError):
            reason = _REASONS.get(problem.errno or 0, "other")
            problem = problem.strerror or str(problem)
        self._metrics.source_failures.labels(reason).inc()
        self.log.limited("warn", "source_waiting", path, f"cannot read {path} yet: {problem}; trying again", path=path)

    def inotify_failed(self, reason: str, detail: str) -> None:
        """Count that the kernel does not say when something stirs; tell it once, for nothing is lost by it."""
        self._metrics.inotify.labels(reason).inc()
        if reason not in self._inotify_told:
            self._inotify_told.add(reason)
            self.log.warn("inotify_failed", f"inotify: {detail}; polling goes on, lines come later", reason=reason)

    # what it became

    def records(
        self,
        outcomes: Mapping[Outcome, int],
        formats: Mapping[str, int],
        levels: Mapping[str, int],
        violations: Mapping[tuple[str, str], int],
    ) -> None:
        for outcome, count in outcomes.items():
            self._metrics.records.labels(outcome).inc(count)
        for name, count in formats.items():
            self._metrics.formats.labels(name).inc(count)
        for level, count in levels.items():
            self._metrics.levels.labels(level).inc(count)
        for (field, rule), count in violations.items():
            self._metrics.violations.labels(field, rule).inc(count)

    def records_withheld(self, reason: str, count: int) -> None:
        self._metrics.withheld.labels(reason).inc(count)

    def observations_rejected(self, reason: str, count: int) -> None:
        self._metrics.rejected.labels(reason).inc(count)
        self.log.limited(
            "warn",
            "observation_rejected",
            reason,
            lambda sums: f"{sums['requests']} request durations were not observed: {reason.replace('_', ' ')}",
            sums={"requests": count},
            reason=reason,
        )

    def requests_deduplicated(self, count: int) -> None:
        self._metrics.deduplicated.inc(count)

    def requests_observed(self, count: int, at: float) -> None:
        self._metrics.observed.inc(count)
        self._metrics.last_observation.set(at)

    def sampled_paths(self, count: int) -> None:
        self._metrics.sampled.set(count)

    def sampling_suspected(self, path: str) -> None:
        """Take the label of a path, never a path as logged."""
        self.log.limited(
            "warn",
            "sampling_suspected",
            path,
            f"the lines of {path} look sampled by the application's logger: after 100 a second only every 100th is "
            "logged, and its requests are counted too low; switch sampling off (zap: config.Sampling = nil), or log "
            "sample_weight",
            path=path,
        )

    def request_series(self, count: int) -> None:
        self._metrics.series.set(count)

    def scraped(self, seconds: float) -> None:
        self._metrics.scrape.set(seconds)

    def collector_failed(self, name: str, problem: str) -> None:
        self._metrics.collector_errors.inc()
        self.log.limited("error", "collector_failed", name, f"{name} is missing from a scrape: {problem}", name=name)

    def label_overflowed(self, label: str, count: int = 1) -> None:
        self._metrics.overflow.labels(label).inc(count)
        self.log.limited(
            "warn", "label_overflow", label, f"too many values of the label {label}: further ones share one series"
        )

    # what sinks did

    def sink_offered(self, sink: str, count: int) -> None:
        self._metrics.offered.labels(sink).inc(count)
        self._metrics.pending.labels(sink).inc(count)

    def sink_done(self, sink: str, outcome: str, count: int) -> None:
        """A sink is done with records: `sent`, `refused`, `dropped` or `dead_lettered`."""
        self._metrics.sunk.labels(sink, outcome).inc(count)
        self._metrics.pending.labels(sink).dec(count)

    def sink_refused(self, sink: str, count: int, reason: str, detail: str, *, dead_lettered: bool = False) -> None:
        self.sink_done(sink, "dead_lettered" if dead_lettered else "refused", count)
        self._metrics.refusals.labels(sink, reason).inc(count)
        fate = "kept as dead letters" if dead_lettered else "lost"
        self.log.limited(
            "error",
            "sink_refused",
            f"{sink}\0{reason}\0{fate}",
            lambda sums: f"{sink} refused {sums['records']} records ({reason}), they are {fate}: {detail}",
            sums={"records": count},
            sink=sink,
            reason=reason,
        )

    def sink_adjusted(self, sink: str, rule: str, count: int) -> None:
        """Count records that were changed to what the sink can store; the records themselves say what was changed."""
        self._metrics.adjusted.labels(sink, rule).inc(count)

    def sink_degraded(self, sink: str, what: str, text: str) -> None:
        """Say once in a while that a sink sends less than it was asked to, because the destination allows no more."""
        self.log.limited("warn", "sink_degraded", f"{sink}\0{what}", f"{sink}: {text}", sink=sink)

    def sink_skew(self, sink: str, seconds: float) -> None:
        self._metrics.skew.labels(sink).set(seconds)
        if abs(seconds) > _SKEW_WORTH_A_WARNING:
            self.log.limited(
                "warn", "clock_skew", sink, f"{sink}: its clock and ours differ by {seconds:.0f} s", sink=sink
            )

    def sink_dropped(self, sink: str, count: int, reason: str) -> None:
        self.sink_done(sink, "dropped", count)
        self.log.limited(
            "error",
            "sink_dropped",
            f"{sink}\0{reason}",
            lambda sums: f"{sink}: {sums['records']} records dropped ({reason})",
            sums={"records": count},
            sink=sink,
        )

    def sink_pushed(self, sink: str, status: str) -> None:
        self._metrics.pushes.labels(sink, status).inc()

    def sink_retried(self, sink: str, reason: str, detail: str, pause: float) -> None:
        self._metrics.retries.labels(sink, reason).inc()
        self.log.limited(
            "warn",
            "sink_retry",
            f"{sink}\0{reason}",
            f"{sink} did not take a push ({reason}): {detail}; trying again in {pause:.1f} s",
            sink=sink,
            reason=reason,
        )

    def sink_state(self, sink: str, *, oldest_unsent_seconds: float, spool_bytes: int = 0) -> None:
        self._metrics.oldest.labels(sink).set(oldest_unsent_seconds)
        self._metrics.spool.labels(sink).set(spool_bytes)

    # what was asked of us

    def http_failed(self, detail: str, error: BaseException | None) -> None:
        """Say that a request could not be answered: a mistake of ours."""
        stack = "".join(traceback.format_exception(error)) if error is not None else ""
        self.log.limited("error", "http_failed", type(error).__name__, f"{detail}: {error!r}", stack=stack)

    # what was asked of the application

    def merge_failed(self, reason: str, detail: str) -> None:
        """Count a page of the application's metrics that is missing, or not whole, in /metrics/merged."""
        self._metrics.merge_failures.labels(reason).inc()
        self.log.limited(
            "warn", "merge_failed", reason, f"the application's metrics could not be merged: {detail}", reason=reason
        )

    # state on disk

    def checkpoint_saved(self) -> None:
        self._metrics.saves.inc()
        self.recent.saved()

    def checkpoint_failed(self, problem: str) -> None:
        self._metrics.save_failures.inc()
        self.recent.not_saved(problem)
        self.log.limited(
            "error", "checkpoint_failed", "", f"the checkpoint cannot be written: {problem}; trying again at the next"
        )

    def checkpoint_invalid(self, reason: str, detail: str) -> None:
        self._metrics.bad_checkpoints.labels(reason).inc()
        self.log.error("checkpoint_invalid", f"the checkpoint cannot be used: {detail}", reason=reason)
