"""The exception tree: our program's problems and the world's, never the data's.

A bad line is a value (outcome `invalid`). What stands here ends a command or makes a sink try again.
"""

from __future__ import annotations

from dataclasses import dataclass


class SidecarError(Exception):
    """The sidecar cannot go on."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: where it came from, what it says, what was expected."""

    origin: str  # 'SIDECAR_SINKS_LOKI_TIMEOUT', 'sidecar.yaml: sinks.loki.bach', '--set http.port'
    text: str  # 'expected a duration such as "5s", got "fast"'

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


class ConfigError(SidecarError):
    """The configuration is unusable; carries every problem at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class StateError(SidecarError):
    """Checkpoint or spool cannot be used."""


class SourceError(SidecarError):
    """The input cannot be read."""


class SinkRetry(SidecarError):  # noqa: N818  named for what the deliverer does with it
    """The destination did not take the push now; the same bytes may succeed later.

    `reason` is a word of a closed set (a metric label); `after` is the pause the destination asked for, in seconds.
    `stream_only` says that the destination would take the pushes of other streams.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        status: str = "",
        after: float | None = None,
        stream_only: bool = False,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.status = status
        self.after = after
        self.stream_only = stream_only
        super().__init__(f"{reason}: {detail}" if detail else reason)


class SinkRefused(SidecarError):  # noqa: N818  likewise
    """The destination will never take these bytes.

    `reason` is a word of a closed set; `detail` is what the destination answered.
    """

    def __init__(self, reason: str, detail: str = "", *, status: str = "") -> None:
        self.reason = reason
        self.detail = detail
        self.status = status
        super().__init__(f"{reason}: {detail}" if detail else reason)
