"""`sidecar explain`: for each line, what `run` makes of it and why.

Shows the line, the recognized format, the outcome with its reasons in jsonschema's words, the record, and what it adds
to which metric; the same code path as `run`, one line at a time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

import orjson

from sidecar import console, framing, jsontext, multiline, normalize, routes, telemetry, validation
from sidecar.metrics import durations
from sidecar.model import Lines, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from sidecar.config import Config
    from sidecar.model import Record, RequestKey
    from sidecar.normalize import Normalized

_LINE, _LINES, _VALUE, _WORDS = 2000, 12, 300, 200  # characters and lines that a terminal has room for
_PIECE = 64 << 10


class Explainer:
    """Explains lines to a stream."""

    def __init__(self, config: Config, out: TextIO) -> None:
        self._schema = validation.load(config.schema)
        self._normalizer = normalize.Normalizer(config.normalize, self._schema, service_name=config.service_name)
        self._max_line_bytes = config.source.max_line_bytes
        self._routes = routes.Table(config.metrics.routes)
        self._requests = durations.Requests(config.metrics, self._routes, telemetry.Telemetry())
        self._out = out
        self._paint = console.Paint(out)
        self._whole = not out.isatty()  # a file or a program takes everything
        self._number = 0

    def read(self, file: BinaryIO) -> None:
        """Explain every line of a file."""
        framer = framing.Framer(max_line_bytes=self._max_line_bytes)
        assembler = multiline.Assembler(idle=1.0)
        offset = 0
        # read1: a person who types or tails wants the answer before a whole piece is full
        while piece := file.read1(_PIECE) if hasattr(file, "read1") else file.read(_PIECE):
            self._each(assembler.feed(_numbered(framer.feed(piece, offset)), 0.0))
            offset += len(piece)
        self._each(assembler.feed(_numbered(framer.flush()), 0.0))
        self._each(assembler.flush())

    def _each(self, lines: Lines) -> None:
        for index, text in enumerate(lines.texts):
            one = Lines([text], stamps=[lines.stamps[index]] if lines.stamps is not None else None)
            if index in lines.kinds:
                one.kinds[0] = lines.kinds[index]
            if index in lines.marks:
                one.marks[0] = lines.marks[index]
            self._number += 1
            self._out.writelines(row + "\n" for row in self._rows(text, self._normalizer.normalize(one)))
            self._out.flush()

    def _rows(self, text: bytes, result: Normalized) -> Iterator[str]:
        paint = self._paint
        record = result.records[0]
        for method, template in result.routes:
            self._requests.learn(method, template)
        head = f"─── {self._number} "
        yield paint("dim", head + "─" * max(0, 78 - len(head)))
        physical = text.decode("utf-8", "replace").split("\n")
        shown = physical if self._whole else physical[:_LINES]
        yield from (self._printable(one.rstrip("\r"), _LINE) for one in shown)
        if hidden := len(physical) - len(shown):
            yield paint("dim", f"… {hidden} more lines of this record")
        yield f"  {paint('dim', 'format ')} {paint('bold', record.format)}"
        yield f"  {paint('dim', 'outcome')} {paint(console.OUTCOME_COLOURS[record.outcome], record.outcome)}"
        yield from self._reasons(text, record)
        yield f"  {paint('dim', 'record ')} {self._record(record)}"
        yield from self._metrics(result)
        yield ""

    def _reasons(self, text: bytes, record: Record) -> Iterator[str]:
        value = jsontext.parse(jsontext.unsigned(text))
        if record.outcome is Outcome.VALID:
            return
        if value is None:
            yield f"    {self._paint('dim', 'as written: not a JSON object')}"
        else:
            for (field, rule), words in self._schema.explain(value):
                yield "    " + self._paint("dim", f"as written: {self._words(field, rule, words)}")
        if record.outcome is Outcome.INVALID:
            for (field, rule), words in self._schema.explain(jsontext.parse(record.line)):
                yield "    " + self._paint("yellow", f"remains:    {self._words(field, rule, words)}")

    def _record(self, record: Record) -> str:
        """Show the record on one line, its canonical keys easy to find."""
        value = jsontext.parse(record.line) or {}
        parts = []
        for key, inner in value.items():
            shown = jsontext.dumps(inner).decode()
            if len(shown) > _VALUE and not self._whole:
                shown = shown[:_VALUE] + "…"
            if key == "level":
                shown = self._paint(console.LEVEL_COLOURS.get(record.level, "dim"), shown)
            parts.append(self._paint("blue", orjson.dumps(key).decode()) + ":" + shown)
        return "{" + ",".join(parts) + "}"

    def _metrics(self, result: Normalized) -> Iterator[str]:
        paint = self._paint
        for key, group in result.requests.items():
            method, path = self._label(key)
            labels = f'{{method="{method}",path="{path}"'
            code = f'status="{key[3]}"'
            requests = len(group.durations) + group.unmeasured + sum(weight for *_, weight in group.weighted)
            if requests > 0:
                yield f"  {paint('dim', 'metrics')} http_requests_total{labels},{code}}} +{requests}"
            weighted = [(ms, f" × {weight}") for ms, _, weight in group.weighted]
            for duration, times in [(ms, "") for ms in group.durations] + weighted:
                if reason := self._requests.refusal(key[3], duration):
                    yield f"  {paint('dim', '       ')} duration not observed: {reason.replace('_', ' ')}"
                    continue
                yield f"  {paint('dim', '       ')} http_request_duration_ms{labels}}} observe {duration:g}{times}"
        if result.deduplicated:
            yield f"  {paint('dim', 'metrics')} none: another line of the same request has been counted"
        for reason in result.rejected:
            yield f"  {paint('dim', '       ')} duration not observed: {reason.replace('_', ' ')}"

    def _words(self, field: str, rule: str, words: str) -> str:
        return f"{field or '(line)'}: {rule}: {self._printable(words, _WORDS)}"

    def _printable(self, text: str, longest: int) -> str:
        return console.printable(text, len(text) if self._whole else longest)

    def _label(self, key: RequestKey) -> tuple[str, str]:
        method, route, path, status = key
        label = self._routes.label(method, route, path, status)
        return label[0], label[1]


def _numbered(lines: Lines) -> Lines:
    lines.starts = list(range(len(lines.texts)))
    lines.streams = ""
    return lines


def run(files: list[str], config: Config) -> int:
    """Explain files, or stdin without any. Raises ConfigError, OSError."""
    explainer = Explainer(config, sys.stdout)
    if not files:
        explainer.read(sys.stdin.buffer)
    for name in files:
        with open(name, "rb") as file:  # noqa: PTH123  a FIFO or /dev/stdin is as good as a file
            explainer.read(file)
    return 0
