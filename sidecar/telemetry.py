"""Everything the sidecar says about itself: one method is one event, and owns its metric and its log line.

Promise: every metric of the contract exists from the first scrape, at 0 where its labels form a closed set;
counters are raised once per batch from local sums; a log line that could repeat is written at a limited rate
and says how many it stands for. Refused: the content of an application's line in our own log (secrets).

WARN is odd, nothing lost. ERROR is loss, or a human is needed.
"""

from __future__ import annotations

import platform
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from sidecar import prometheus
from sidecar.errors import StateError
from sidecar.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")

OUTCOMES = tuple(Outcome)
WITHHELD = ("dropped_invalid", "quarantined")
SKIPPED = ("blank",)
REJECTED = (
    "ambiguous_unit",
    "bad_weight",
    "connection_lifetime",
    "negative",
    "not_finite",
    "not_a_number",
    "too_long",
)
OVERFLOWED = ("path", "method", "series", "stream")
LOST = (
    "line_too_long",
    "truncated_file",
    "nuls",
    "rotated_away",
    "deleted",
    "generation_cap",
    "read_error",
    "quarantine_full",
    "dead_letter_full",
    "spool_damaged",
)
GAPS = ("truncated_file", "rotated_away", "deleted", "generation_cap", "read_error", "restarted")
SINK_OUTCOMES = ("sent", "refused", "dropped", "dead_lettered")
RETRIES = (
    "timeout",
    "connection",
    "rate_limited",
    "stream_rate_limited",
    "stream_limited",
    "server_error",
    "credentials",
    "not_found",
    "blocked",
    "redirect",
    "unknown",
)
REFUSALS = (
    "too_old",
    "too_far_behind",
    "too_new",
    "too_large",
    "line_too_long",
    "metadata",
    "labels",
    "malformed",
    "rejected",
    "poison",
    "closed",
)
ADJUSTMENTS = ("future_time", "past_time", "same_time", "long_line", "label", "metadata")
MERGE_FAILURES = (
    "timeout",
    "connection",
    "redirect",
    "status",
    "too_large",
    "encoding",
    "format",
    "malformed",
)
INOTIFY_FAILURES = ("overflow", "watch_limit", "instance_limit", "denied", "unavailable", "other")
INVALID_CHECKPOINTS = ("damaged", "version", "ahead_of_file", "unreadable")

_REPEAT_SECONDS = 10.0
_SKEW_WORTH_A_WARNING = 30.0  # seconds; less is the resolution of a Date header and a slow answer


class Log:
    """The sidecar's own log: canonical JSON on stderr, without trace id."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._silent_until: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def write(self, level: str, event: str, message: str, **fields: object) -> None:
        """Write one line. `event` is a stable key; `fields` say values, never the content of a log line."""
        now = datetime.now(UTC)
        record = {
            "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z",
            "level": level,
            "service_name": "gin-sidecar",
            "message": message,
            "event": event,
            **fields,
        }
        try:
            self._stream.write(orjson.dumps(record, default=str).decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A log that cannot be written has no place left to say so, and must not stop the data.
            return

    def info(self, event: str, message: str, **fields: object) -> None:
        self.write("info", event, message, **fields)

    def warn(self, event: str, message: str, **fields: object) -> None:
        self.write("warn", event, message, **fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        self.write("error", event, message, **fields)

    def limited(self, level: str, event: str, key: str, message: str, **fields: object) -> None:
        """Write at most one line per event and key in ten seconds; the next one tells how many were held back."""
        slot = f"{event}\0{key}"
        now = self._clock()
        if now < self._silent_until.get(slot, 0.0):
            self._held_back[slot] = self._held_back.get(slot, 0) + 1
            return
        if len(self._silent_until) > 1000:  # keys come from closed sets or are few; this bound is for mistakes
            self._silent_until.clear()
        self._silent_until[slot] = now + _REPEAT_SECONDS
        held_back = self._held_back.pop(slot, 0)
        if held_back:
            fields["repeated"] = held_back
        self.write(level, event, message, **fields)


class Telemetry:
    """The catalogue of events. Passed in, never global, so that a test has its own registry for free."""

    def __init__(
        self,
        registry: prometheus.CollectorRegistry | None = None,
        log: Log | None = None,
        *,
        sinks: Iterable[str] = (),
        version: str = "",
        revision: str = "",
    ) -> None:
        self.registry = registry if registry is not None else prometheus.CollectorRegistry()
        self.log = log if log is not None else Log()
        sinks = tuple(sinks)

        def counter(name: str, text: str, **labels: tuple[str, ...]) -> prometheus.Counter:
            made = prometheus.Counter(name, text, tuple(labels), registry=self.registry)
            _exist_at_zero(made, labels)
            return made

        def gauge(name: str, text: str, **labels: tuple[str, ...]) -> prometheus.Gauge:
            made = prometheus.Gauge(name, text, tuple(labels), registry=self.registry)
            _exist_at_zero(made, labels)
            return made

        self._lines = counter("sidecar_lines_read", "Physical lines read.")
        self._bytes = counter("sidecar_bytes_read", "Bytes read from the source.")
        self._records = counter("sidecar_records", "Records by outcome of validation.", outcome=OUTCOMES)
        self._formats = counter("sidecar_format_records", "Records by recognized format.", format=())
        self._levels = counter("sidecar_level_records", "Records by level.", level=LEVELS)
        self._joined = counter("sidecar_lines_joined", "Physical lines that became part of another record.")
        self._skipped = counter("sidecar_lines_skipped", "Physical lines without a record.", reason=SKIPPED)
        self._withheld = counter("sidecar_records_withheld", "Records not offered to sinks.", reason=WITHHELD)
        self._violations = counter(
            "sidecar_schema_violations", "Schema violations of lines as written.", field=(), rule=()
        )
        self._rejected = counter(
            "sidecar_request_observations_rejected",
            "Requests whose duration was not observed.",
            reason=REJECTED,
        )
        self._overflow = counter(
            "sidecar_label_overflow", "Values replaced because a label had too many.", label=OVERFLOWED
        )
        self._observed = counter("sidecar_request_observations", "Request durations observed.")
        self._series = gauge("sidecar_request_series", "Label sets of the request metrics.")
        self._last_observation = gauge(
            "sidecar_request_last_observation_timestamp_seconds", "When a request was last counted; 0 before the first."
        )
        self._sampled = gauge(
            "sidecar_sampling_suspected_paths",
            "Paths whose lines look as if the application's logger left most of them out.",
        )
        self._scrape = gauge("sidecar_scrape_duration_seconds", "How long the last scrape took to write.")
        self._collector_errors = counter(
            "sidecar_collector_errors", "Families left out of a scrape because their collector failed."
        )
        self._deduplicated = counter(
            "sidecar_request_lines_deduplicated", "Access lines of a request that another line had already counted."
        )
        self._truncated = counter("sidecar_truncated_lines", "Lines cut at source.max_line_bytes.")
        self._malformed = counter(
            "sidecar_malformed_lines",
            "Lines of a container's log that are not written as its runtime writes them; kept as they are.",
        )
        self._truncations = counter("sidecar_file_truncations", "Times a followed file became shorter.")
        self._rotations = counter("sidecar_rotations", "Times a followed file was replaced by a new one.")
        self._lost = counter("sidecar_lost_bytes", "Bytes that could not be read or kept.", reason=LOST)
        self._gaps = counter("sidecar_log_gaps", "Holes in the log.", reason=GAPS)
        self._inotify = counter(
            "sidecar_inotify_failures", "Times inotify gave nothing; polling goes on.", reason=INOTIFY_FAILURES
        )
        self._inotify_told: set[str] = set()
        self._lag_bytes = gauge("sidecar_lag_bytes", "Bytes written by the application and not yet read.")
        self._lag_seconds = gauge("sidecar_lag_seconds", "Age of the newest processed line while unread bytes exist.")
        self._offered = counter("sidecar_sink_offered_records", "Records offered to a sink.", sink=sinks)
        self._sunk = counter("sidecar_sink_records", "Records a sink is done with.", sink=sinks, outcome=SINK_OUTCOMES)
        self._pending = gauge("sidecar_sink_pending_records", "Records a sink has and is not done with.", sink=sinks)
        self._spool = gauge("sidecar_sink_spool_bytes", "Bytes waiting in a sink's spool.", sink=sinks)
        self._oldest = gauge("sidecar_sink_oldest_unsent_seconds", "Age of the oldest unsent record.", sink=sinks)
        self._pushes = counter("sidecar_sink_pushes", "Pushes by answer.", sink=(), status=())
        self._retries = counter("sidecar_sink_retries", "Pushes tried again.", sink=sinks, reason=RETRIES)
        self._refusals = counter(
            "sidecar_sink_refusals", "Records a sink refused, by reason.", sink=sinks, reason=REFUSALS
        )
        self._adjusted = counter(
            "sidecar_sink_adjusted_records", "Records changed to what a sink can store.", sink=sinks, rule=ADJUSTMENTS
        )
        self._skew = gauge("sidecar_sink_clock_skew_seconds", "The destination's clock minus ours.", sink=sinks)
        self._saves = counter("sidecar_checkpoint_saves", "Checkpoints written.")
        self._save_failures = counter("sidecar_checkpoint_failures", "Checkpoints that could not be written in time.")
        self._bad_checkpoints = counter(
            "sidecar_checkpoint_invalid", "Checkpoints that could not be used.", reason=INVALID_CHECKPOINTS
        )
        self._merge_failures = counter(
            "sidecar_merge_failures",
            "Times the application's metrics could not be merged whole.",
            reason=MERGE_FAILURES,
        )
        # What goes on over a restart: everything that is in step with the position in the log. Sinks begin anew.
        self._lasting = {
            "sidecar_lines_read": self._lines,
            "sidecar_bytes_read": self._bytes,
            "sidecar_records": self._records,
            "sidecar_format_records": self._formats,
            "sidecar_level_records": self._levels,
            "sidecar_lines_joined": self._joined,
            "sidecar_lines_skipped": self._skipped,
            "sidecar_records_withheld": self._withheld,
            "sidecar_schema_violations": self._violations,
            "sidecar_request_observations_rejected": self._rejected,
            "sidecar_label_overflow": self._overflow,
            "sidecar_request_observations": self._observed,
            "sidecar_request_lines_deduplicated": self._deduplicated,
            "sidecar_truncated_lines": self._truncated,
            "sidecar_malformed_lines": self._malformed,
            "sidecar_file_truncations": self._truncations,
            "sidecar_rotations": self._rotations,
            "sidecar_lost_bytes": self._lost,
            "sidecar_log_gaps": self._gaps,
        }
        build = prometheus.Gauge(
            "sidecar_build_info", "What is running.", ("version", "revision", "python"), registry=self.registry
        )
        build.labels(version, revision, platform.python_version()).set(1)

    # what outlives the process

    def snapshot(self) -> dict[str, Any]:
        """Return the counters that go on over a restart, as plain JSON: name → [[label values], value] of each series.

        Names stand without `_total`; series at 0 are left out.
        """
        saved: dict[str, Any] = {}
        for name, counter in self._lasting.items():
            order = counter._labelnames  # noqa: SLF001  the library keeps no public order
            series = [
                [[sample.labels[label] for label in order], int(sample.value)]
                for metric in counter.collect()
                for sample in metric.samples
                if sample.value and sample.name.endswith("_total")
            ]
            if series:
                saved[name] = series
        return saved

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where `snapshot` stood. Raises StateError, changing nothing."""
        try:
            counts = [
                (self._lasting[name], tuple(map(str, labels)), int(value))
                for name, series in saved.items()
                if name in self._lasting  # another version's may be gone
                for labels, value in series
            ]
            if not all(value >= 0 and len(labels) == len(one._labelnames) for one, labels, value in counts):  # noqa: SLF001
                raise ValueError("expected counts for the labels that there are")  # noqa: TRY301  handled like the others
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the saved counters are unusable: {error!r}") from error
        for counter, labels, value in counts:
            (counter.labels(*labels) if labels else counter).inc(value)

    # what was read

    def bytes_read(self, count: int) -> None:
        self._bytes.inc(count)

    def lines_read(self, physical: int, *, joined: int = 0, blank: int = 0) -> None:
        """Count physical lines when their record leaves the assembler, so that the identity always holds."""
        self._lines.inc(physical)
        self._joined.inc(joined)
        self._skipped.labels("blank").inc(blank)

    def lines_truncated(self, lines: int, lost_bytes: int) -> None:
        self._truncated.inc(lines)
        self._lost.labels("line_too_long").inc(lost_bytes)
        self.log.limited(
            "error",
            "line_too_long",
            "",
            f"{lines} lines were longer than source.max_line_bytes: their heads are kept, {lost_bytes} bytes are lost",
            lines=lines,
            lost_bytes=lost_bytes,
        )

    def lines_malformed(self, lines: int) -> None:
        self._malformed.inc(lines)
        self.log.limited(
            "warn",
            "line_malformed",
            "",
            f"{lines} lines of the container's log are not as the runtime writes them (a full disk leaves such): "
            "they are kept as they are; expected <time> <stdout|stderr> <F|P> <text>, or docker's JSON",
            lines=lines,
        )

    def file_truncated(self, path: str, lost_bytes: int) -> None:
        self._truncations.inc()
        if lost_bytes:
            self._lost.labels("truncated_file").inc(lost_bytes)
            self._gaps.labels("truncated_file").inc()
        self.log.limited(
            "error" if lost_bytes else "warn",
            "file_truncated",
            path,
            f"{path} became shorter: reading it again from its start",
            path=path,
            lost_bytes=lost_bytes,
        )

    def file_rotated(self, path: str) -> None:
        self._rotations.inc()
        self.log.limited("info", "file_rotated", path, f"{path} was replaced by a new file", path=path)

    def bytes_lost(self, reason: str, count: int, detail: str) -> None:
        """Count bytes that will never be delivered, and the hole they leave."""
        self._lost.labels(reason).inc(count)
        if reason in GAPS:
            self._gaps.labels(reason).inc()
        self.log.limited("error", "bytes_lost", reason, f"{count} bytes lost: {detail}", reason=reason, bytes=count)

    def log_gap(self, reason: str, detail: str) -> None:
        """Count a hole in the log of which nobody can say how large it is."""
        self._gaps.labels(reason).inc()
        self.log.limited("error", "log_gap", reason, f"lines may be missing: {detail}", reason=reason)

    def lag(self, unread_bytes: int, seconds: float) -> None:
        self._lag_bytes.set(unread_bytes)
        self._lag_seconds.set(seconds)

    def source_waiting(self, path: str, problem: str) -> None:
        self.log.limited("warn", "source_waiting", path, f"cannot read {path} yet: {problem}; trying again", path=path)

    def inotify_failed(self, reason: str, detail: str) -> None:
        """Count that the kernel does not say when something stirs; tell it once, for nothing is lost by it."""
        self._inotify.labels(reason).inc()
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
            self._records.labels(outcome).inc(count)
        for name, count in formats.items():
            self._formats.labels(name).inc(count)
        for level, count in levels.items():
            self._levels.labels(level).inc(count)
        for (field, rule), count in violations.items():
            self._violations.labels(field, rule).inc(count)

    def records_withheld(self, reason: str, count: int) -> None:
        self._withheld.labels(reason).inc(count)

    def observations_rejected(self, reason: str, count: int) -> None:
        self._rejected.labels(reason).inc(count)
        self.log.limited(
            "warn",
            "observation_rejected",
            reason,
            f"{count} request durations were not observed: {reason.replace('_', ' ')}",
            reason=reason,
        )

    def requests_deduplicated(self, count: int) -> None:
        self._deduplicated.inc(count)

    def requests_observed(self, count: int, at: float) -> None:
        self._observed.inc(count)
        self._last_observation.set(at)

    def sampled_paths(self, count: int) -> None:
        self._sampled.set(count)

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
        self._series.set(count)

    def scraped(self, seconds: float) -> None:
        self._scrape.set(seconds)

    def collector_failed(self, name: str, problem: str) -> None:
        self._collector_errors.inc()
        self.log.limited("error", "collector_failed", name, f"{name} is missing from a scrape: {problem}", name=name)

    def label_overflowed(self, label: str, count: int = 1) -> None:
        self._overflow.labels(label).inc(count)
        self.log.limited(
            "warn", "label_overflow", label, f"too many values of the label {label}: further ones share one series"
        )

    # what sinks did

    def sink_offered(self, sink: str, count: int) -> None:
        self._offered.labels(sink).inc(count)
        self._pending.labels(sink).inc(count)

    def sink_done(self, sink: str, outcome: str, count: int) -> None:
        """A sink is done with records: `sent`, `refused`, `dropped` or `dead_lettered`."""
        self._sunk.labels(sink, outcome).inc(count)
        self._pending.labels(sink).dec(count)

    def sink_refused(self, sink: str, count: int, reason: str, detail: str, *, dead_lettered: bool = False) -> None:
        self.sink_done(sink, "dead_lettered" if dead_lettered else "refused", count)
        self._refusals.labels(sink, reason).inc(count)
        fate = "kept as dead letters" if dead_lettered else "lost"
        self.log.limited(
            "error",
            "sink_refused",
            f"{sink}\0{reason}",
            f"{sink} refused {count} records ({reason}), they are {fate}: {detail}",
            sink=sink,
            reason=reason,
            records=count,
        )

    def sink_adjusted(self, sink: str, rule: str, count: int) -> None:
        """Count records that were changed to what the sink can store; the records themselves say what was changed."""
        self._adjusted.labels(sink, rule).inc(count)

    def sink_degraded(self, sink: str, what: str, text: str) -> None:
        """Say once in a while that a sink sends less than it was asked to, because the destination allows no more."""
        self.log.limited("warn", "sink_degraded", f"{sink}\0{what}", f"{sink}: {text}", sink=sink)

    def sink_skew(self, sink: str, seconds: float) -> None:
        self._skew.labels(sink).set(seconds)
        if abs(seconds) > _SKEW_WORTH_A_WARNING:
            self.log.limited(
                "warn", "clock_skew", sink, f"{sink}: its clock and ours differ by {seconds:.0f} s", sink=sink
            )

    def sink_dropped(self, sink: str, count: int, reason: str) -> None:
        self.sink_done(sink, "dropped", count)
        self.log.limited(
            "error", "sink_dropped", f"{sink}\0{reason}", f"{sink}: {count} records dropped ({reason})", sink=sink
        )

    def sink_pushed(self, sink: str, status: str) -> None:
        self._pushes.labels(sink, status).inc()

    def sink_retried(self, sink: str, reason: str, detail: str, pause: float) -> None:
        self._retries.labels(sink, reason).inc()
        self.log.limited(
            "warn",
            "sink_retry",
            f"{sink}\0{reason}",
            f"{sink} did not take a push ({reason}): {detail}; trying again in {pause:.1f} s",
            sink=sink,
            reason=reason,
        )

    def sink_state(self, sink: str, *, oldest_unsent_seconds: float, spool_bytes: int = 0) -> None:
        self._oldest.labels(sink).set(oldest_unsent_seconds)
        self._spool.labels(sink).set(spool_bytes)

    # what was asked of us

    def http_failed(self, detail: str, error: BaseException | None) -> None:
        """Say that a request could not be answered: a mistake of ours."""
        stack = "".join(traceback.format_exception(error)) if error is not None else ""
        self.log.limited("error", "http_failed", type(error).__name__, f"{detail}: {error!r}", stack=stack)

    # what was asked of the application

    def merge_failed(self, reason: str, detail: str) -> None:
        """Count a page of the application's metrics that is missing, or not whole, in /metrics/merged."""
        self._merge_failures.labels(reason).inc()
        self.log.limited(
            "warn", "merge_failed", reason, f"the application's metrics could not be merged: {detail}", reason=reason
        )

    # state on disk

    def checkpoint_saved(self) -> None:
        self._saves.inc()

    def checkpoint_failed(self, problem: str) -> None:
        self._save_failures.inc()
        self.log.limited(
            "error", "checkpoint_failed", "", f"the checkpoint cannot be written: {problem}; trying again at the next"
        )

    def checkpoint_invalid(self, reason: str, detail: str) -> None:
        self._bad_checkpoints.labels(reason).inc()
        self.log.error("checkpoint_invalid", f"the checkpoint cannot be used: {detail}", reason=reason)


def _exist_at_zero(metric: Any, labels: Mapping[str, tuple[str, ...]]) -> None:  # noqa: ANN401  Counter or Gauge
    """Create every series of a closed label set; an open label (no values given) creates none."""
    combinations: list[tuple[str, ...]] = [()]
    for values in labels.values():
        combinations = [(*head, value) for head in combinations for value in values]
    if labels:
        for combination in combinations:
            metric.labels(*combination)
