"""Every metric that the sidecar keeps about itself: name, meaning, labels, and which of them outlive the process.

Promise: all of them exist from the first scrape, at 0 where their labels form a closed set, so that a rule over a rate
misses no first event. Refused: to know what raises them, which is `Telemetry`'s, and the metrics of requests.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from sidecar import prometheus
from sidecar.errors import StateError
from sidecar.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    "collision",
)
INOTIFY_FAILURES = ("overflow", "watch_limit", "instance_limit", "denied", "unavailable", "silent", "other")
SOURCE_FAILURES = ("missing", "denied", "descriptors", "io", "stale", "api", "other")
INVALID_CHECKPOINTS = ("damaged", "version", "ahead_of_file", "unreadable")


class Catalogue:
    """The metrics, registered."""

    def __init__(
        self,
        registry: prometheus.CollectorRegistry,
        *,
        sinks: tuple[str, ...],
        formats: tuple[str, ...],
        version: str,
        revision: str,
    ) -> None:
        """Take the values of labels that others know: `sinks` as configured, and the names of `formats`."""

        def counter(name: str, text: str, **labels: tuple[str, ...]) -> prometheus.Counter:
            made = prometheus.Counter(name, text, tuple(labels), registry=registry)
            _exist_at_zero(made, labels)
            return made

        def gauge(name: str, text: str, **labels: tuple[str, ...]) -> prometheus.Gauge:
            made = prometheus.Gauge(name, text, tuple(labels), registry=registry)
            _exist_at_zero(made, labels)
            return made

        self.lines = counter("sidecar_lines_read", "Physical lines read.")
        self.bytes = counter("sidecar_bytes_read", "Bytes read from the source.")
        self.records = counter("sidecar_records", "Records by outcome of validation.", outcome=OUTCOMES)
        self.formats = counter("sidecar_format_records", "Records by recognized format.", format=formats)
        self.levels = counter("sidecar_level_records", "Records by level.", level=LEVELS)
        self.joined = counter("sidecar_lines_joined", "Physical lines that became part of another record.")
        self.skipped = counter("sidecar_lines_skipped", "Physical lines without a record.", reason=SKIPPED)
        self.withheld = counter("sidecar_records_withheld", "Records not offered to sinks.", reason=WITHHELD)
        self.violations = counter(
            "sidecar_schema_violations", "Schema violations of lines as written.", field=(), rule=()
        )
        self.rejected = counter(
            "sidecar_request_observations_rejected",
            "Requests whose duration was not observed.",
            reason=REJECTED,
        )
        self.overflow = counter(
            "sidecar_label_overflow", "Values replaced because a label had too many.", label=OVERFLOWED
        )
        self.observed = counter("sidecar_request_observations", "Request durations observed.")
        self.series = gauge("sidecar_request_series", "Label sets of the request metrics.")
        self.last_observation = gauge(
            "sidecar_request_last_observation_timestamp_seconds", "When a request was last counted; 0 before the first."
        )
        self.sampled = gauge(
            "sidecar_sampling_suspected_paths",
            "Paths whose lines look as if the application's logger left most of them out.",
        )
        self.scrape = gauge("sidecar_scrape_duration_seconds", "How long the last scrape took to write.")
        self.collector_errors = counter(
            "sidecar_collector_errors", "Families left out of a scrape because their collector failed."
        )
        self.deduplicated = counter(
            "sidecar_request_lines_deduplicated", "Access lines of a request that another line had already counted."
        )
        self.truncated = counter("sidecar_truncated_lines", "Lines cut at source.max_line_bytes.")
        self.malformed = counter(
            "sidecar_malformed_lines",
            "Lines of a container's log that are not written as its runtime writes them; kept as they are.",
        )
        self.truncations = counter("sidecar_file_truncations", "Times a followed file became shorter.")
        self.rotations = counter("sidecar_rotations", "Times a followed file was replaced by a new one.")
        self.lost = counter("sidecar_lost_bytes", "Bytes that could not be read or kept.", reason=LOST)
        self.gaps = counter("sidecar_log_gaps", "Holes in the log.", reason=GAPS)
        self.source_failures = counter(
            "sidecar_source_failures", "Times the source could not be read; it is tried again.", reason=SOURCE_FAILURES
        )
        self.inotify = counter(
            "sidecar_inotify_failures", "Times inotify gave nothing; polling goes on.", reason=INOTIFY_FAILURES
        )
        self.lag_bytes = gauge("sidecar_lag_bytes", "Bytes written by the application and not yet read.")
        self.lag_seconds = gauge("sidecar_lag_seconds", "Age of the newest processed line while unread bytes exist.")
        self.offered = counter("sidecar_sink_offered_records", "Records offered to a sink.", sink=sinks)
        self.sunk = counter("sidecar_sink_records", "Records a sink is done with.", sink=sinks, outcome=SINK_OUTCOMES)
        self.pending = gauge("sidecar_sink_pending_records", "Records a sink has and is not done with.", sink=sinks)
        self.spool = gauge("sidecar_sink_spool_bytes", "Bytes waiting in a sink's spool.", sink=sinks)
        self.oldest = gauge("sidecar_sink_oldest_unsent_seconds", "Age of the oldest unsent record.", sink=sinks)
        self.pushes = counter("sidecar_sink_pushes", "Pushes by answer.", sink=(), status=())
        self.retries = counter("sidecar_sink_retries", "Pushes tried again.", sink=sinks, reason=RETRIES)
        self.refusals = counter(
            "sidecar_sink_refusals", "Records a sink refused, by reason.", sink=sinks, reason=REFUSALS
        )
        self.adjusted = counter(
            "sidecar_sink_adjusted_records", "Records changed to what a sink can store.", sink=sinks, rule=ADJUSTMENTS
        )
        self.skew = gauge("sidecar_sink_clock_skew_seconds", "The destination's clock minus ours.", sink=sinks)
        self.saves = counter("sidecar_checkpoint_saves", "Checkpoints written.")
        self.save_failures = counter("sidecar_checkpoint_failures", "Checkpoints that could not be written in time.")
        self.bad_checkpoints = counter(
            "sidecar_checkpoint_invalid", "Checkpoints that could not be used.", reason=INVALID_CHECKPOINTS
        )
        self.merge_failures = counter(
            "sidecar_merge_failures",
            "Times the application's metrics could not be merged whole.",
            reason=MERGE_FAILURES,
        )
        # What goes on over a restart: everything that is in step with the position in the log. Sinks begin anew.
        self._lasting = {
            "sidecar_lines_read": self.lines,
            "sidecar_bytes_read": self.bytes,
            "sidecar_records": self.records,
            "sidecar_format_records": self.formats,
            "sidecar_level_records": self.levels,
            "sidecar_lines_joined": self.joined,
            "sidecar_lines_skipped": self.skipped,
            "sidecar_records_withheld": self.withheld,
            "sidecar_schema_violations": self.violations,
            "sidecar_request_observations_rejected": self.rejected,
            "sidecar_label_overflow": self.overflow,
            "sidecar_request_observations": self.observed,
            "sidecar_request_lines_deduplicated": self.deduplicated,
            "sidecar_truncated_lines": self.truncated,
            "sidecar_malformed_lines": self.malformed,
            "sidecar_file_truncations": self.truncations,
            "sidecar_rotations": self.rotations,
            "sidecar_lost_bytes": self.lost,
            "sidecar_log_gaps": self.gaps,
        }
        build = prometheus.Gauge(
            "sidecar_build_info", "What is running.", ("version", "revision", "python"), registry=registry
        )
        build.labels(version, revision, platform.python_version()).set(1)

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


def _exist_at_zero(metric: Any, labels: Mapping[str, tuple[str, ...]]) -> None:  # noqa: ANN401  Counter or Gauge
    """Create every series of a closed label set; an open label (no values given) creates none."""
    combinations: list[tuple[str, ...]] = [()]
    for values in labels.values():
        combinations = [(*head, value) for head in combinations for value in values]
    if labels:
        for combination in combinations:
            metric.labels(*combination)
