"""One open stream of a container's log, and what is known to come again on it.

The problem: a stream begins with lines that were read before, and may stall without a word. The promise: a line that
must come again is told from a new one as often as it was read and no more often; what is newest can be asked for
beside the stream. Refused: to judge what a missing line means, which is the source's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sidecar import times
from sidecar.sources import stamped

if TYPE_CHECKING:
    from sidecar.sources import kubeapi
    from sidecar.sources.kubeinstances import Instance


@dataclass(slots=True)
class Connection:
    """An open stream, and what is known to come again on it."""

    stream: kubeapi.Stream
    run: kubeapi.Run
    instance: Instance
    splitter: stamped.Splitter
    expected: Counter[int] = field(default_factory=Counter)
    asked: int = 0  # how many lines are expected
    came: int = 0  # how many of them came
    final: bool = False  # not followed: its end is the end of what there is now

    @property
    def unanswered(self) -> bool:
        """Whether none of the lines that must come again has come."""
        return bool(self.asked) and not self.came

    def known(self, line: stamped.Line) -> bool:
        """Say whether a line is one that must come again; it is as often as it was read."""
        if self.expected[line.key] <= 0:
            return False
        self.expected[line.key] -= 1
        self.came += 1
        return True

    def rest(self) -> stamped.Line | None:
        """Return the line without an end at the end of the stream, unless it is known or the kubelet's. Once."""
        rest = self.splitter.rest()
        if rest is not None and (not rest.text or self.expected[rest.key] > 0):
            return None
        return rest


def connection(
    stream: kubeapi.Stream, run: kubeapi.Run, instance: Instance, *, final: bool, max_line_bytes: int, now_ns: int
) -> Connection:
    """Return a stream that was opened for what is missing of an instance."""
    stamp = times.format_time(times.Stamp(instance.seen.newest_ns or now_ns, 9)).encode()
    splitter = stamped.Splitter(max_line_bytes, stamp)
    expected = instance.seen.expected()
    asked = expected.total()
    if not instance.seen.newest_ns:
        expected = Counter(instance.strays)
    return Connection(stream, run, instance, splitter, expected, asked, final=final)


async def newest(api: kubeapi.Api, container: str, max_line_bytes: int) -> list[stamped.Line]:
    """Ask for the last line there is; none where it has no end yet. Raises ApiError."""
    splitter = stamped.Splitter(max_line_bytes)
    lines: list[stamped.Line] = []
    stream = await api.log(container, follow=False, previous=False, tail=1)
    try:
        while data := await stream.read():
            lines.extend(splitter.feed(data))
    finally:
        await stream.close()
    return lines
