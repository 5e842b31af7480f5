"""The application's own metrics beside ours, as one text 0.0.4 page: `/metrics/merged`.

Problem: a pod has one scrape target, so annotating the sidecar's port hides the application's metrics; and one line
that Prometheus cannot parse, or a family told twice, costs the whole scrape.
Promise: our families are always there, whatever the application does, within the scraper's time. Of the application's
page every line is checked, and a family that is ours is left out and named; OpenMetrics is turned back into text. What
went wrong is counted by reason. Refused: exemplars, native histograms and OpenMetrics here (`/metrics` has them), and
believing what the application says about its own format.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import TYPE_CHECKING

from sidecar import fetch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from sidecar.telemetry import Telemetry

MAX_SECONDS = 5.0
MARGIN_SECONDS = 0.5  # of the scraper's patience, left for rendering and the way back
MAX_BYTES = 10 << 20
_SLICE_BYTES = 8 << 10  # filtered between two yields to the loop: 1 ms where lines are shortest
_LONGEST_LINE = 64 << 10

_OPENMETRICS = "application/openmetrics-text"
_ACCEPT = "text/plain;version=0.0.4;q=1,text/plain;q=0.9"
_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*+"
# Possessive throughout: a hostile line costs one pass. NUL ends Prometheus's reading of a page: no line may hold one.
# An exemplar (group-less, last) is recognized and left out: 0.0.4 has none, and Prometheus refuses a page with one.
_LABEL_NAME = "[a-zA-Z_][a-zA-Z0-9_]*+"
_LABEL_VALUE = r'[ \t]*+=[ \t]*+"[^"\\\x00]*+(?:\\[^\x00][^"\\\x00]*+)*+"[ \t]*+'
_SAMPLE = re.compile(
    rf"({_NAME})"
    rf"[ \t]*+(\{{[ \t]*+(?:{_LABEL_NAME}{_LABEL_VALUE}(?:,[ \t]*+|(?=\}})))*+\}})?+[ \t]*+(?<=[ \t}}])"
    r"([+-]?(?:(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|(?i:inf(?:inity)?))|(?i:nan))"
    r"(?:[ \t]++(-?[0-9]{1,19}+(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?))?+"
    r"[ \t]*+(?:(?<=[ \t])#[ \t]*+\{[^\x00]*+)?+"
)
_LABEL = re.compile(f"({_LABEL_NAME}){_LABEL_VALUE}")
_SAMPLE_SUFFIX = re.compile("_(?:total|bucket|sum|count|created|info)$")
_BAD_BYTES = re.compile("[^\n]*[\udc80-\udcff][^\n]*")
_META = re.compile(rf"#[ \t]*+(HELP|TYPE)[ \t]++({_NAME})(?:[ \t]++([^\x00]*+))?+")
_OWN_TYPE = re.compile(rb"^# TYPE ([^ ]++) ([a-z]++)$", re.MULTILINE)
_OPENMETRICS_TYPE = re.compile(rb"^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*+) (counter|info)\r?$", re.MULTILINE)
_TIMESTAMP_LIMIT = 1 << 63

_SUFFIXES = {
    "summary": ("", "_sum", "_count", "_created"),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}
_TYPES = ("counter", "gauge", "summary", "histogram", "untyped")
_OPENMETRICS_SUFFIXES = {"counter": "_total", "info": "_info"}
_OPENMETRICS_TYPES = {"unknown": "untyped", "info": "gauge", "stateset": "gauge", "gaugehistogram": "untyped"}


def deadline(scrape_timeout: str | None) -> float:
    """Return the seconds the application gets, from what the scraper says it will wait."""
    try:
        patience = float(scrape_timeout or "nan")
    except ValueError:
        patience = math.nan
    if not 0 < patience < math.inf:
        return MAX_SECONDS
    # A scraper with less than a second still gets our half of the page in time.
    return min(MAX_SECONDS, max(patience - MARGIN_SECONDS, patience / 2))


def owned(ours: bytes) -> set[str]:
    """Return every name of a sample or family that belongs to the families of our own page."""
    names: set[str] = set()
    for family, kind in _OWN_TYPE.findall(ours):
        name = family.decode()
        if kind == b"counter":
            base = name.removesuffix("_total")
            names.update((base, f"{base}_total", f"{base}_created"))
        else:
            names.update(name + suffix for suffix in _SUFFIXES.get(kind.decode(), ("",)))
    return names


def renamed(page: bytes) -> dict[str, str]:
    """Return the families of an OpenMetrics page that the text format names otherwise: as their samples are."""
    return {
        family.decode(): family.decode() + _OPENMETRICS_SUFFIXES[kind.decode()]
        for family, kind in _OPENMETRICS_TYPE.findall(page)
    }


class Filter:
    """Takes the application's lines and keeps those that may stand beside ours. Pure."""

    def __init__(
        self,
        mine: Collection[str],
        *,
        wanted: Collection[str] | None = None,
        openmetrics: bool = False,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """Leave out the names that are `mine`; `wanted`, where given, are the names of families or samples to keep."""
        self.malformed = 0
        self._mine = mine
        self._wanted = wanted
        self._verdicts: dict[str, bool] = {}  # name of a sample → whether it is kept
        self._openmetrics = openmetrics
        self._renamed = renamed or {}
        self._told: set[tuple[str, str]] = set()
        self._collided: set[str] = set()  # names of samples and families that are ours, and were asked for

    def keep(self, raw: bytes) -> str:
        """Return what is kept of some whole lines, each with its newline."""
        kept: list[str] = []
        for line in _decode(raw):
            text = line.strip(" \t\r")
            if not text:
                continue
            made = self._line(text)
            if made is None:
                self.malformed += 1
            elif made:
                kept.append(made)
        kept.append("")
        return "\n".join(kept)

    def _line(self, line: str) -> str | None:
        """Return the line, "" where it is left out, None where it is malformed."""
        if len(line) > _LONGEST_LINE:
            return None
        return self._meta(line) if line[0] == "#" else self._sample(line)

    def _sample(self, line: str) -> str | None:
        match = _SAMPLE.fullmatch(line)
        if match is None:
            return None
        name, labels, value, stamp = match.groups()
        kept = self._verdicts.get(name)
        if kept is None:
            kept = self._verdicts[name] = self._is_free(name) and self._is_wanted(name)
        if not kept:
            return ""
        if math.isinf(float(value)) and "n" not in value.lower():  # 1e999, which Go refuses to parse
            return None
        if labels and ("," in labels or "__name__" in labels) and not _distinct(labels):
            return None
        if stamp is None:
            return line[: match.end(3)]
        milliseconds = _milliseconds(stamp, openmetrics=self._openmetrics)
        return None if milliseconds is None else f"{name}{labels or ''} {value} {milliseconds}"

    def _meta(self, line: str) -> str | None:
        # Any comment besides HELP and TYPE, # EOF and # UNIT among them, is left out.
        match = _META.fullmatch(line)
        if match is None:
            return ""
        what, name, text = match.groups(default="")
        if what == "TYPE":
            text = _OPENMETRICS_TYPES.get(text, text) if self._openmetrics else text
            if text not in _TYPES:
                return None
        name = self._renamed.get(name, name)
        if not self._is_free(name) or (what, name) in self._told or not self._is_wanted(name, family=True):
            return ""
        self._told.add((what, name))
        return f"# {what} {name} {text}"

    def collisions(self) -> list[str]:
        """Return the families that were left out because we have one of that name."""
        return sorted(name for name in self._collided if _family(name) not in self._collided - {name})

    def _is_free(self, name: str) -> bool:
        """Say whether no family of ours has the name."""
        if name not in self._mine:
            return True
        self._collided.add(name)
        return False

    def _is_wanted(self, name: str, *, family: bool = False) -> bool:
        if self._wanted is None or name in self._wanted or _family(name) in self._wanted:
            return True
        return family and any(_family(wanted) == name for wanted in self._wanted)


def _distinct(labels: str) -> bool:
    """Tell whether no label is given twice; the name of the sample is one."""
    names = [*_LABEL.findall(labels), "__name__"]
    return len(names) == len(set(names))


def _family(sample: str) -> str:
    return _SAMPLE_SUFFIX.sub("", sample)


def _decode(raw: bytes) -> list[str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        # Prometheus refuses a page that is not UTF-8. A line with such a byte becomes one that matches nothing.
        text = _BAD_BYTES.sub("\x00", raw.decode("utf-8", "surrogateescape"))
    return text.split("\n")


def _milliseconds(stamp: str, *, openmetrics: bool) -> int | None:
    if not openmetrics and not stamp.removeprefix("-").isdigit():
        return None
    value = float(stamp) * 1000 if openmetrics else int(stamp)
    return round(value) if -_TIMESTAMP_LIMIT < value < _TIMESTAMP_LIMIT else None


class Merger:
    """Fetches the application's page and joins it with ours."""

    def __init__(self, url: str, telemetry: Telemetry) -> None:
        """Take the address; empty: there is only our own page. Raises ValueError when it is no address."""
        self._client = fetch.Client(url) if url else None
        self._telemetry = telemetry
        # One page of 10 MiB at a time: several scrapers at once must not multiply our memory. Who waits for a turn
        # waits within its own deadline.
        self._turn = asyncio.Semaphore(1)

    async def page(
        self, render: Callable[[], Awaitable[bytes]], *, seconds: float, wanted: Collection[str] | None = None
    ) -> bytes:
        """Return our page, rendered last so that it tells of this very fetch, and what is kept of the application's."""
        if self._client is None:
            return await render()
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        try:
            async with asyncio.timeout_at(until):
                await self._turn.acquire()
        except TimeoutError:
            self._telemetry.merge_failed("timeout", "the pages before this one took all the time there was")
            return await render()
        try:
            answer = await self._ask(self._client, max(0.001, until - clock()))
            ours = await render()
            return ours if answer is None else await self._join(ours, answer, wanted, until)
        finally:
            self._turn.release()

    async def _ask(self, client: fetch.Client, seconds: float) -> fetch.Answer | None:
        try:
            answer = await client.get(timeout=seconds, max_bytes=MAX_BYTES, headers={"Accept": _ACCEPT})
        except fetch.FetchError as error:
            self._telemetry.merge_failed(error.reason, error.detail)
            return None
        if answer.status != 200:
            self._telemetry.merge_failed("status", f"answers {answer.status}")
            return None
        if _media(answer) not in ("", "text/plain", _OPENMETRICS):
            self._telemetry.merge_failed("format", "answers something that is not text metrics")
            return None
        return answer

    async def _join(self, ours: bytes, answer: fetch.Answer, wanted: Collection[str] | None, until: float) -> bytes:
        openmetrics = _media(answer) == _OPENMETRICS
        sieve = Filter(
            owned(ours),
            wanted=wanted,
            openmetrics=openmetrics,
            renamed=renamed(answer.body) if openmetrics else None,
        )
        body, kept, start = answer.body, [], 0
        while start < len(body):
            end = body.find(b"\n", start + _SLICE_BYTES) + 1 or len(body)
            kept.append(sieve.keep(body[start:end]).encode())
            start = end
            await asyncio.sleep(0)
            if asyncio.get_running_loop().time() > until:
                self._telemetry.merge_failed("timeout", "its page is too long to be checked in the scraper's time")
                return ours
        if sieve.malformed:
            self._telemetry.merge_failed("malformed", f"{sieve.malformed} lines are not metrics and are left out")
        if collisions := sieve.collisions():
            names = ", ".join(collisions)
            self._telemetry.merge_failed(
                "collision",
                f"these families are the sidecar's own, the application's of the same name are left out: {names}",
            )
        return b"".join((ours, *kept))

    async def close(self) -> None:
        """Release everything. Idempotent."""
        if self._client is not None:
            await self._client.close()


def _media(answer: fetch.Answer) -> str:
    return answer.content_type.partition(";")[0].strip().lower()
