"""The nouns that travel through the pipeline: Position, Chunk, Lines, Record, Batch, Push, Receipt.

Promise: plain data that decides nothing, imported by everything and importing nothing of ours.
A batch (everything one read gave) is the unit that moves; nothing here is ever awaited per line.
Hot types are mutable dataclasses with slots because freezing costs twice the time to build them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Outcome(StrEnum):
    """What validation said of a line; exactly one per record."""

    VALID = "valid"
    NORMALIZED = "normalized"
    INVALID = "invalid"


class Mark(StrEnum):
    """What happened to a line on the way in; most lines carry none."""

    TRUNCATED = "truncated"  # longer than source.max_line_bytes: the head is kept, the rest counted as lost
    PARTIAL = "partial"  # its end never came: no newline before the end of the input


@dataclass(slots=True, frozen=True)
class Position:
    """Where reading stands: `log` names one physical log (only its source knows how), `offset` counts its bytes."""

    log: str
    offset: int


@dataclass(slots=True)
class Chunk:
    """Bytes as one read gave them. Empty data means that nothing came within the time asked for."""

    data: bytes
    start: Position
    stream: str = ""  # "stdout", "stderr", or "" where the source cannot tell
    end_of_log: bool = False  # this log will not grow any more: what is unfinished in it stays so
    final: bool = False  # with `end_of_log`: nor does another log go on where it stops, as one does after a rotation
    writer: str = ""  # whose lines these are, where a source follows several: those of two never make one record
    continues: str = ""  # on the first chunk of a log: the one that it goes on with, where that one had no `final` end


@dataclass(slots=True)
class Lines:
    """Lines in reading order, undecoded and without their newline.

    `framing` hands over physical lines, `multiline` logical ones; both fill the same columns.
    """

    texts: list[bytes]
    streams: list[str] | str = ""  # one per text where the runtime tells (CRI, docker); else one for all
    stamps: list[int] | None = None  # the container runtime's time, ns since the epoch; None where there is none
    log: str = ""  # the log they are from
    starts: list[int] | None = None  # where each text begins in its log; None while nobody needs it
    marks: dict[int, Mark] = field(default_factory=dict)  # index → mark; sparse
    kinds: dict[int, str] = field(default_factory=dict)  # index → kind of multi-line block; sparse
    joined: int = 0  # physical lines that became part of another text
    blank: int = 0  # physical lines with nothing but white space, left out of `texts`
    lost_bytes: int = 0  # cut from truncated lines
    spans: list[tuple[int, int]] = field(default_factory=list)  # of texts made of pieces: start, last piece's start
    blocks: list[list[tuple[str, int]]] = field(default_factory=list)  # of texts made of lines: log and start of each
    malformed: int = 0  # lines of a CRI or docker log that are not written as such; kept raw, one text each

    @property
    def physical(self) -> int:
        """How many physical lines these texts account for."""
        return len(self.texts) + self.joined + self.blank

    def part(self, start: int, end: int) -> Lines:
        """Return some of the lines; what counts for all of them stays with the first part."""
        return Lines(
            self.texts[start:end],
            streams=self.streams if isinstance(self.streams, str) else self.streams[start:end],
            log=self.log,
            stamps=self.stamps[start:end] if self.stamps is not None else None,
            starts=self.starts[start:end] if self.starts is not None else None,
            marks={index - start: mark for index, mark in self.marks.items() if start <= index < end},
            joined=self.joined if start == 0 else 0,
            blank=self.blank if start == 0 else 0,
        )

    def append(self, more: Lines) -> None:
        """Take over the logical lines of one stream behind what is here; times stay where all of them have one."""
        offset = len(self.texts)
        self.texts += more.texts
        if self.stamps is not None and more.texts:
            if more.stamps is None:
                self.stamps = None
            else:
                self.stamps += more.stamps
        self.marks.update({index + offset: mark for index, mark in more.marks.items()})
        self.kinds.update({index + offset: kind for index, kind in more.kinds.items()})
        self.blocks += more.blocks
        self.joined += more.joined
        self.blank += more.blank


@dataclass(slots=True)
class Record:
    """One normalized log record. Every line becomes one, good or bad.

    `line` is one JSON object without newline, encoded once and shared by all sinks:
    the original bytes where the outcome is valid, the canonical form otherwise.
    """

    time_ns: int  # may lie outside what a sink can store (year 0, year 9999): the sink decides
    outcome: Outcome
    format: str
    level: str
    service_name: str
    trace_id: str  # "" where the record has none that is well formed
    span_id: str  # likewise
    line: bytes
    violations: tuple[tuple[str, str], ...] = ()  # (field, rule) that remain after normalization


# method, route as logged ("" where unknown), path as logged ("" where unknown), status
RequestKey = tuple[str, str, str, int]


@dataclass(slots=True)
class RequestGroup:
    """The requests of one batch that share a key. What is here has been checked and is counted once each."""

    durations: list[float] = field(default_factory=list)  # milliseconds, finite, 0 ≤ d ≤ 24 h
    trace_ids: list[str] = field(default_factory=list)  # parallel to durations; "" where there is none
    unmeasured: int = 0  # requests whose duration could not be used: counted, not observed
    weighted: list[tuple[float, str, int]] = field(default_factory=list)  # (ms, trace id, requests it stands for)
    times_ns: list[int] = field(default_factory=list, compare=False)  # of lines of live batches, to suspect sampling


class Ack(Protocol):
    """A batch's way to say that somebody durable has it."""

    @property
    def passed(self) -> bool:
        """Say whether every sink is done with the batch and all before it, and none of it will be read again."""

    def done(self) -> None:
        """Say that one sink is done with the batch: delivered, spooled, or refused and recorded."""


@dataclass(slots=True)
class Batch:
    """The records of one read with their one acknowledgement."""

    records: Sequence[Record]
    ack: Ack


@dataclass(slots=True)
class Push:
    """One request of a sink, encoded once: sending it again sends the same bytes."""

    body: bytes
    records: Sequence[Record]  # what is in it, in order, for counting, dividing and dead letters
    stream: str = ""  # pushes of one stream go in order, one at a time; streams do not wait for each other


@dataclass(slots=True, frozen=True)
class Receipt:
    """What became of a push that was answered: all delivered, except what stands in `refused` and `again`."""

    status: str  # for the metric: "204", "ok"
    refused: Sequence[Record] = ()  # the destination will never take these, because of `reason`
    reason: str = ""
    detail: str = ""
    again: Sequence[Push] = ()  # what is still to be sent, in place of the push and in this order
