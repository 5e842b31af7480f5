"""`sidecar validate`: judge log lines against the schema, for a CI job.

The lines take the same way as in `run` (framing, multi-line assembly, normalization), so a pipeline that passes here
passes there. Gigabytes are read in pieces of 1 MiB; what is kept is a count per field and rule, and a few line numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import orjson

from sidecar import console, framing, jsontext, multiline, normalize, validation
from sidecar.model import Lines, Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PIECE = 1 << 20
_MAX_LINE = 1 << 20
_SHOWN_LINES = 5


@dataclass(slots=True)
class Finding:
    """One way to break the schema: how often, and the first lines that do."""

    count: int = 0
    lines: list[str] = field(default_factory=list)
    example: str = ""


@dataclass(slots=True)
class Report:
    """What validation found in all files."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    lines: int = 0
    blank: int = 0
    joined: int = 0

    def passes(self, *, strict: bool) -> bool:
        """Say whether every record is acceptable."""
        bad = self.outcomes[Outcome.INVALID] + (self.outcomes[Outcome.NORMALIZED] if strict else 0)
        return not bad

    def json(self) -> bytes:
        return orjson.dumps(
            {
                "lines": self.lines,
                "records": self.outcomes.total(),
                "blank": self.blank,
                "joined": self.joined,
                "outcomes": {outcome.value: self.outcomes[outcome] for outcome in Outcome},
                "violations": [
                    {"field": name, "rule": rule, "count": each.count, "lines": each.lines, "example": each.example}
                    for (name, rule), each in self._worst_first()
                ],
            }
        )

    def text(self, paint: console.Paint) -> Iterator[str]:
        """Yield the report for people, line by line."""
        total = self.outcomes.total()
        yield paint("bold", f"{self.lines} lines, {total} records")
        for outcome in Outcome:
            count = self.outcomes[outcome]
            share = f"{100 * count / total:5.1f} %" if total else ""
            yield f"  {paint(console.OUTCOME_COLOURS[outcome], outcome.ljust(10))} {count:>10}  {share}"
        if self.findings:
            yield ""
            yield paint("bold", "violations of the lines as written")
        for (name, rule), each in self._worst_first():
            where = ", ".join(each.lines) + (", …" if each.count > len(each.lines) else "")
            yield f"  {paint('yellow', _name(name, rule)):<40} {each.count:>8}  at {where}"
            if each.example:
                yield paint("dim", f"      {each.example}")

    def _worst_first(self) -> list[tuple[tuple[str, str], Finding]]:
        return sorted(self.findings.items(), key=lambda item: (-item[1].count, item[0]))


class Linter:
    """Judges files one after the other."""

    def __init__(self, schema: validation.Schema, normalizer: normalize.Normalizer) -> None:
        self._schema = schema
        self._normalizer = normalizer
        self.report = Report()

    def read(self, file: BinaryIO, name: str, progress: console.Progress, done: int) -> int:
        """Judge one file and return how many bytes have been read in all."""
        framer = framing.Framer(max_line_bytes=_MAX_LINE)
        assembler = multiline.Assembler(idle=1.0)
        offset = number = 0
        while piece := file.read(_PIECE):
            lines = framer.feed(piece, offset)
            offset += len(piece)
            number = self._judge(lines, assembler, name, number)
            progress.show(done + offset, f"· {self.report.outcomes[Outcome.INVALID]} invalid")
        number = self._judge(framer.flush(), assembler, name, number)
        self._count(assembler.flush(), name)
        return done + offset

    def _judge(self, lines: Lines, assembler: multiline.Assembler, name: str, number: int) -> int:
        physical = lines.physical
        # The assembler hands `starts` on: here they are line numbers.
        lines.starts = list(range(number + 1, number + 1 + len(lines.texts)))
        lines.streams = ""
        self._count(assembler.feed(lines, 0.0), name)
        return number + physical

    def _count(self, lines: Lines, name: str) -> None:
        report = self.report
        report.lines += lines.physical
        report.blank += lines.blank
        report.joined += lines.joined
        result = self._normalizer.normalize(lines)
        report.outcomes.update(result.outcomes)
        fresh = [key for key, count in result.violations.items() if self._finding(key, count)]
        if fresh:
            self._locate(fresh, lines, result.records, name)

    def _finding(self, key: tuple[str, str], count: int) -> bool:
        """Count a violation; True while the first lines that have it are still wanted."""
        finding = self.report.findings.setdefault(key, Finding())
        finding.count += count
        return len(finding.lines) < _SHOWN_LINES

    def _locate(self, wanted: list[tuple[str, str]], lines: Lines, records: Iterable[Record], name: str) -> None:
        """Find the first lines of a batch that break these rules; only batches with news come here."""
        for index, (text, record) in enumerate(zip(lines.texts, records, strict=True)):
            if record.outcome is Outcome.VALID or not wanted:
                continue
            value = jsontext.parse(jsontext.unsigned(text))
            broken = validation.NOT_AN_OBJECT if value is None else self._schema.violations(value)
            for key in set(broken).intersection(wanted):
                finding = self.report.findings[key]
                number = lines.starts[index] if lines.starts else 0
                finding.lines.append(f"{name}:{number}" if name else str(number))
                if not finding.example:
                    finding.example = self._words(key, value)
                if len(finding.lines) >= _SHOWN_LINES:
                    wanted.remove(key)

    def _words(self, key: tuple[str, str], value: object) -> str:
        if value is None:
            return "the line is not a JSON object"
        return next((console.printable(words, 160) for each, words in self._schema.explain(value) if each == key), "")


def run(files: list[str], schema: str, *, as_json: bool, strict: bool) -> int:
    """Validate files, or stdin without any. Raises ConfigError, OSError."""
    loaded = validation.load(validation.Config(path=schema))
    normalizer = normalize.Normalizer(normalize.Config(), loaded, service_name="unknown_service")
    linter = Linter(loaded, normalizer)
    total = sum(_size(name) for name in files)
    progress = console.Progress(sys.stderr, "B", total)
    if not files:
        linter.read(sys.stdin.buffer, "", progress, 0)
    done = 0
    for name in files:
        with open(name, "rb") as file:  # noqa: PTH123  a FIFO or /dev/stdin is as good as a file
            done = linter.read(file, name if len(files) > 1 else "", progress, done)
    progress.clear()
    if as_json:
        sys.stdout.write(linter.report.json().decode() + "\n")
    else:
        paint = console.Paint(sys.stdout)
        sys.stdout.writelines(line + "\n" for line in linter.report.text(paint))
    return 0 if linter.report.passes(strict=strict) else 1


def _name(field: str, rule: str) -> str:
    return f"{field or '(line)'}: {rule}"


def _size(name: str) -> int:
    path = Path(name)
    return path.stat().st_size if path.is_file() else 0
