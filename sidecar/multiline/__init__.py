"""Physical lines become one text where a program wrote one thing on many lines.

The problem: a Gin Recovery block, a Go panic, an access line with its errors are one fact each, and a log carries them
as dozens of lines. The promise: what is known to belong together comes out as one text, its physical lines joined with
a newline and otherwise untouched; no line is lost, and texts + joined + blank is what went in but for what is pending;
however lines are grouped into calls, the same texts come out in the same order. Refused: joining by guess. What is
uncertain ends the block and stands for itself; a message of several lines that no pattern knows stays several records.

Which lines begin, continue and end a block is told in `blocks`. Everything works on undecoded bytes with their ANSI
sequences and carriage returns, because a bare reset sequence is what ends a Recovery block. A batch of JSON or of
access lines is passed on at the speed of C.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

from sidecar.model import Lines, Mark
from sidecar.multiline import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = blocks.Kind

_WHOLE = (b"{", b"[GIN] ")  # such lines never continue another


class Assembler:
    """Joins the lines of one stream. A block beyond `max_lines` or `max_bytes` is handed over in parts."""

    def __init__(self, *, idle: float, max_lines: int = 512, max_bytes: int = 65_536) -> None:
        self._idle = idle
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._block: blocks.Block | None = None
        self._resumed: tuple[str, int, blocks.Rule, int] | None = None  # log, start, rule and phase: see `resume`

    @property
    def pending(self) -> bool:
        """Whether a block is open."""
        return self._block is not None

    @property
    def pending_places(self) -> list[tuple[str, int]]:
        """The log and the start of each pending line, where their Lines told; the first line's come first."""
        block = self._block
        if block is None:
            return []
        places = [_place(*block.origin), *block.places]
        if block.held is not None:
            places.append(_place(*block.held[1]))
        return [place for place in places if place is not None]

    def continuing(self) -> dict[str, Any] | None:
        """Return what the open block cannot tell from its lines: its rule, where earlier parts have been handed over.

        Plain JSON, for `resume`.
        """
        block = self._block
        place = _place(*block.origin) if block is not None and block.split else None
        if block is None or place is None:
            return None
        rule = next((name for name, rule in blocks.RULES.items() if rule is block.rule), "")
        return {"log": place[0], "start": place[1], "rule": rule, "phase": block.phase}

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take the next line for what goes on in the block of `continuing`, if it is the same line.

        Raises KeyError, TypeError or ValueError where `saved` is something else.
        """
        self._resumed = (
            str(saved["log"]), int(saved["start"]), blocks.RULES[str(saved["rule"])], int(saved["phase"]),
        )  # fmt: skip

    def feed(self, lines: Lines, now: float) -> Lines:
        """Take lines; return what is complete. The same object comes back where there was nothing to do."""
        texts = lines.texts
        if self._resumed is not None and texts:
            return self._resume(lines, now)
        block = self._block
        if not texts or (block is None and all(map(bytes.startswith, texts, repeat(b"{")))):
            return lines
        # With errors in the block, a line that begins with "{" may be the text of one.
        fresh = block is None or (block.rule is blocks.ACCESS and (block.lone or texts[0].startswith(b"[")))
        if fresh and all(map(bytes.startswith, texts, repeat(_WHOLE))):
            return self._access_lines(lines, now)
        out = _Out(lines)
        self._judge_each(lines, out, now)
        block = self._block
        if block is not None and block.touched != now and now - block.touched >= self._idle:
            self._close(out)  # only others' lines came for so long: on a busy stream it would never be idle
        return out.finish()

    def idle_flush(self, now: float) -> Lines | None:
        """Return the open block when nothing has been added to it for `idle` seconds."""
        block = self._block
        return self.flush() if block is not None and now - block.touched >= self._idle else None

    def flush(self) -> Lines:
        """Return what is pending, complete or not."""
        if self._block is None:
            return Lines([])
        source = self._block.origin[0]
        out = _Out(source, counts=False)
        self._close(out)
        return out.finish()

    def _resume(self, lines: Lines, now: float) -> Lines:
        """Go on in a block whose earlier parts another process handed over."""
        assert self._resumed is not None
        log, start, rule, phase = self._resumed
        self._resumed = None
        if _place(lines, 0) != (log, start):
            return self.feed(lines, now)
        self._block = block = blocks.Block(rule, lines.texts[0], (lines, 0), lines.marks.get(0), now)
        block.split = True
        block.phase = phase
        out = _Out(lines)
        self._judge_each(lines, out, now, 1)
        return out.finish()

    def _access_lines(self, lines: Lines, now: float) -> Lines:
        """Pass on access lines and JSON, of which none continues another; the last one's errors may still come."""
        out = _Out(lines)
        if self._block is not None:
            self._close(out)
        count = len(lines.texts)
        if lines.texts[-1].startswith(b"["):
            count -= 1
            self._block = blocks.Block(blocks.ACCESS, lines.texts[-1], (lines, count), lines.marks.get(count), now)
        if lines.marks:
            for index in range(count):
                out.single(lines.texts[index], index)
        else:
            out.texts += lines.texts[:count]
            out.rows += range(count)
        return out.finish()

    def _judge_each(self, lines: Lines, out: _Out, now: float, first: int = 0) -> None:
        texts, marks = lines.texts, lines.marks
        opens, verdicts = blocks.OPENS.get, blocks.Verdict
        following = texts[1:]
        take_text, take_row = out.texts.append, out.rows.append
        for index, text in enumerate(texts[first:] if first else texts, first):
            if (block := self._block) is not None:
                second = block.rule.second
                if second is not None and block.lone and not second(text):
                    verdict = verdicts.END
                else:
                    verdict = block.rule.judge(block, text)
                if verdict is verdicts.PASS:
                    out.single(text, index)
                    continue
                if verdict is not verdicts.END:
                    block.touched = now
                    line = (text, (lines, index), marks.get(index))
                    if verdict is verdicts.HOLD:
                        block.held = line
                        continue
                    if block.held is not None:
                        held, block.held = block.held, None
                        self._add(block, out, *held)
                    self._add(block, out, *line)
                    if verdict is verdicts.LAST:
                        self._close(out)
                    continue
                self._close(out)
            opener = opens(text[:1], blocks.open_any)
            if opener is not None:
                if opener is blocks.open_space and not text.strip():
                    out.blank += 1
                    continue
                rule = opener(text)
                # Where the next line is here and not what the rule asks for, a block would only be closed again.
                if rule is not None and (
                    rule.second is None or index >= len(following) or rule.second(following[index])
                ):
                    self._block = blocks.Block(rule, text, (lines, index), marks.get(index), now)
                    continue
            if marks:
                out.single(text, index)
            else:  # without the call: 0.15 µs a line
                take_text(text)
                take_row(index)

    def _add(self, block: blocks.Block, out: _Out, text: bytes, origin: tuple[Lines, int], mark: Mark | None) -> None:
        size = block.size + 1 + len(text)
        if len(block.texts) < self._max_lines and size <= self._max_bytes:
            block.texts.append(text)
            block.size = size
            place = _place(*origin)
            if place is not None:
                block.places.append(place)
            if block.mark is not Mark.TRUNCATED:
                block.mark = mark or block.mark
            return
        block.split = True
        out.block(block, block.texts)
        block.texts, block.size, block.origin, block.mark = [text], len(text), origin, mark
        block.places = []

    def _close(self, out: _Out) -> None:
        block = self._block
        assert block is not None
        self._block = None
        texts = block.texts
        while texts and not texts[-1].strip():  # blank lines behind a block are not in it
            texts.pop()
            out.blank += 1
        if texts:
            out.block(block, texts)
        if block.held is not None:
            out.foreign(*block.held)


def _place(lines: Lines, index: int) -> tuple[str, int] | None:
    return None if lines.starts is None else (lines.log, lines.starts[index])


class _Out:
    """The lines that leave one call, in order; their columns are gathered at the end."""

    __slots__ = ("_blocks", "_counts", "_elsewhere", "_kinds", "_marks", "_source", "blank", "joined", "rows", "texts")

    def __init__(self, source: Lines, *, counts: bool = True) -> None:
        self.texts: list[bytes] = []
        self.rows: list[int] = []  # which line of `source` each text begins with
        self.joined = 0
        self.blank = 0
        self._source = source
        self._counts = counts  # whether `source` arrived with this call: its counts leave with it
        self._elsewhere: dict[int, tuple[Lines, int]] = {}  # text → its line, where that came with an earlier call
        self._kinds: dict[int, str] = {}
        self._marks: dict[int, Mark] = {}
        self._blocks: list[list[tuple[str, int]]] = []

    def single(self, text: bytes, index: int) -> None:
        if self._source.marks and index in self._source.marks:
            self._marks[len(self.texts)] = self._source.marks[index]
        self.texts.append(text)
        self.rows.append(index)

    def foreign(self, text: bytes, origin: tuple[Lines, int], mark: Mark | None) -> None:
        row = len(self.texts)
        if mark is not None:
            self._marks[row] = mark
        lines, index = origin
        if lines is not self._source:
            self._elsewhere[row] = origin
            index = 0
        self.texts.append(text)
        self.rows.append(index)

    def block(self, block: blocks.Block, texts: list[bytes]) -> None:
        if len(texts) > 1 or block.split:
            self._kinds[len(self.texts)] = block.rule.kind
        self.joined += len(texts) - 1
        first = _place(*block.origin)
        if first is not None and block.places:
            self._blocks.append([first, *block.places])
        self.foreign(b"\n".join(texts) if len(texts) > 1 else texts[0], block.origin, block.mark)

    def finish(self) -> Lines:
        source, rows = self._source, self.rows
        streams = source.streams
        if not isinstance(streams, str):
            streams = [streams[row] for row in rows]
            for row, (lines, index) in self._elsewhere.items():
                streams[row] = lines.streams if isinstance(lines.streams, str) else lines.streams[index]
        lines = Lines(
            self.texts,
            streams=streams,
            stamps=self._gather(
                source.stamps, [(row, origin[0].stamps, origin[1]) for row, origin in self._elsewhere.items()]
            ),
            starts=self._gather(
                source.starts, [(row, origin[0].starts, origin[1]) for row, origin in self._elsewhere.items()]
            ),
            marks=self._marks,
            kinds=self._kinds,
            blocks=self._blocks,
            joined=self.joined,
            blank=self.blank,
        )
        if self._counts:
            lines.joined += source.joined
            lines.blank += source.blank
            lines.lost_bytes = source.lost_bytes
            lines.malformed = source.malformed
        return lines

    def _gather(self, column: list[int] | None, elsewhere: list[tuple[int, list[int] | None, int]]) -> list[int] | None:
        """Return a column of the texts; None where it is not known of each."""
        if column is None:
            return None
        gathered = [column[row] for row in self.rows]
        for row, other, index in elsewhere:
            if other is None:
                return None
            gathered[row] = other[index]
        return gathered
