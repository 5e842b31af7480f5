"""What an answer of Loki lets us conclude, given that the request carried one stream in ascending order of time.

The status alone does not tell: a 400 usually means that most entries are stored, some 429 and 500 will never pass,
and 260 is a refusal in the range of success. The body tells, and its grammar stands here.
Promise: every answer has exactly one meaning, the default arms included; what Loki has proved to have stored is never
sent again, and what it has not is never taken for stored. Refused: guessing which entries a body means where it only
counts them and several sets would do; then they are all sent again, and Loki drops what it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

_SHOWN = 500  # characters of a body that go into a log line


class Kind(StrEnum):
    """What to do about a push."""

    STORED = "stored"
    RETRY = "retry"  # nothing, or nobody knows what, is stored: the same bytes again
    DIVIDE = "divide"  # nothing is stored, and as large as this it never will be
    BISECT = "bisect"  # nothing is stored, and these bytes never will be: something in them is not as Loki likes it
    RELABEL = "relabel"  # nothing of the stream is stored because of its labels
    PLAIN = "plain"  # nothing is stored because of the structured metadata
    PARTLY = "partly"  # stored, except what the faults say


class Fault(StrEnum):
    """Why Loki did not store some entries of a push."""

    TOO_OLD = "too_old"
    TOO_FAR_BEHIND = "too_far_behind"
    TOO_NEW = "too_new"
    LONG_LINE = "line_too_long"
    METADATA = "metadata"
    METADATA_PAIRS = "metadata_pairs"
    NO_METADATA = "no_metadata"


@dataclass(slots=True, frozen=True)
class Missing:
    """Entries that were not stored for one reason."""

    fault: Fault
    count: int | None  # how many; None where the body does not say
    limit: int = 0  # TOO_OLD, TOO_FAR_BEHIND: oldest acceptable time, whole seconds; else the limit itself
    arrived: int | None = None  # of how many; what is missing from them was refused before, for being too old


@dataclass(slots=True, frozen=True)
class Answer:
    """The meaning of one answer."""

    kind: Kind
    reason: str = ""  # of a retry or a refusal: a word of the closed sets of `telemetry`
    detail: str = ""
    after: float | None = None  # pause the destination asks for, seconds
    stream_only: bool = False
    missing: tuple[Missing, ...] = ()


def read(status: int, body: str, *, complete: bool = True, retry_after: str = "", now: float = 0.0) -> Answer:
    """Return the meaning of an answer.

    `complete`: the body was not cut; `now` (epoch seconds) is for a Retry-After that is a date.
    """
    detail = f"{status} {' '.join(body.split())}"[:_SHOWN].rstrip()
    text = body.lower()
    after = _pause(retry_after, now)
    if text.startswith("ingestion blocked for user"):  # the operator chooses the status, 260 by default
        return Answer(Kind.RETRY, "blocked", detail, after)
    if status in (200, 204):
        return Answer(Kind.STORED)
    if status == 260:
        return Answer(Kind.RETRY, "blocked", detail, after)
    if status < 300:
        return Answer(Kind.RETRY, "unknown", detail, after)
    if status < 400:
        return Answer(Kind.RETRY, "redirect", detail, after)
    if status >= 500:
        return _server_error(text, detail, after)
    if status == 429:
        return _rate_limit(text, detail, after)
    if status == 400:
        return _bad_request(text, detail, complete=complete)
    if status in (401, 403, 407):
        return Answer(Kind.RETRY, "credentials", detail, after)
    if status in (404, 405):
        return Answer(Kind.RETRY, "not_found", detail, after)
    if status in (408, 425):
        return Answer(Kind.RETRY, "timeout", detail, after)
    if status == 413:
        return Answer(Kind.DIVIDE, "too_large", detail)
    return Answer(Kind.BISECT, "malformed" if status == 422 else "rejected", detail)


def skew(date: str, now: float) -> float | None:
    """Return how far the clock behind a Date header is ahead of ours, in seconds; None where it does not tell."""
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except (TypeError, ValueError):
        return None


def _pause(retry_after: str, now: float) -> float | None:
    if not retry_after:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    ahead = skew(retry_after, now)
    return None if ahead is None else max(0.0, ahead)


def _server_error(text: str, detail: str, after: float | None) -> Answer:
    if "label name is empty" in text or "normalization for label name" in text:
        return Answer(Kind.PLAIN, "metadata", detail)
    if "larger than max" in text and ("resourceexhausted" in text or "received message" in text):
        return Answer(Kind.DIVIDE, "too_large", detail)
    return Answer(Kind.RETRY, "server_error", detail, after)


_RATE = re.compile(r"limit: (\d+) bytes/sec\).*totaling '(\d+)' bytes", re.DOTALL)


def _rate_limit(text: str, detail: str, after: float | None) -> Answer:
    if "per stream rate limit" in text:
        return Answer(Kind.RETRY, "stream_rate_limited", detail, after, stream_only=True)
    if "active stream limit" in text:
        return Answer(Kind.RETRY, "stream_limited", detail, after, stream_only=True)
    rate = _RATE.search(text)
    if rate and int(rate[2]) > int(rate[1]):
        # More than a second's worth at once may be more than the burst, which nothing ever lets pass.
        return Answer(Kind.DIVIDE, "too_large", detail)
    return Answer(Kind.RETRY, "rate_limited", detail, after)


_TENANT = ("org id", "tenant id")
_LABELS = (
    "error parsing labels",
    "couldn't parse labels",
    "label names; limit",
    "label name too long",
    "label value too long",
    "duplicate label name",
    "missing required labels",
    "at least one label pair",
)
_GROUP = re.compile(r"(?:^|; )(\d+) errors? like: ")
_IGNORED = re.compile(r"total ignored: (\d+) out of (\d+)")
_OLDEST = re.compile(r"oldest acceptable timestamp is: ([0-9TtZz:+.-]+)")
_MAX_LINE = re.compile(r"max entry size '(\d+)'")
_LIMIT = re.compile(r"limit: '(\d+)'")


def _bad_request(text: str, detail: str, *, complete: bool) -> Answer:
    if "total ignored: " in text:
        missing = _ingester(text)
        return Answer(Kind.PARTLY, missing.fault, detail, missing=(missing,)) if missing else _malformed(detail)
    groups = _groups(text)
    if not complete and len(groups) > 1:
        groups.pop()  # cut in the middle
    found = [_distributor(count, message) for count, message in groups]
    known = [missing for missing in found if missing is not None]
    if known and len(known) == len(found):
        return Answer(Kind.PARTLY, known[0].fault, detail, missing=_merged(known, counted=complete))
    if any(phrase in text for phrase in _LABELS):
        return Answer(Kind.RELABEL, "labels", detail)
    if any(phrase in text for phrase in _TENANT):
        return Answer(Kind.RETRY, "credentials", detail)
    return _malformed(detail)


def _malformed(detail: str) -> Answer:
    return Answer(Kind.BISECT, "malformed", detail)


def _groups(text: str) -> list[tuple[int, str]]:
    """Return the messages of a distributor's body with how many entries each stands for."""
    parts = _GROUP.split(text)
    if len(parts) == 1:
        return [(1, text)]
    return [(int(count), message) for count, message in zip(parts[1::2], parts[2::2], strict=True)]


def _merged(found: list[Missing], *, counted: bool) -> tuple[Missing, ...]:
    """Add up what differs only in the time or length of an entry, which the messages name too."""
    merged: dict[Fault, Missing] = {}
    for missing in found:
        before = merged.get(missing.fault)
        count = (missing.count or 0) + (before.count or 0 if before else 0)
        merged[missing.fault] = replace(before or missing, count=count)
    return tuple(missing if counted else replace(missing, count=None) for missing in merged.values())


def _distributor(count: int, text: str) -> Missing | None:
    if "has timestamp too old" in text:
        oldest = _oldest(text)
        return None if oldest is None else Missing(Fault.TOO_OLD, count, oldest)
    if "has timestamp too new" in text:
        return Missing(Fault.TOO_NEW, count)
    if found := _MAX_LINE.search(text):
        return Missing(Fault.LONG_LINE, count, int(found[1]))
    if "includes structured metadata" in text:
        return Missing(Fault.NO_METADATA, count)
    if "structured metadata too large" in text or "too many structured metadata labels" in text:
        fault = Fault.METADATA_PAIRS if "too many" in text else Fault.METADATA
        limit = _LIMIT.search(text)
        return Missing(fault, count, int(limit[1]) if limit else 0)
    return None


def _ingester(text: str) -> Missing | None:
    """Read the body of an ingester, which lists some entries and counts all."""
    oldest = _oldest(text)
    if "too far behind" not in text or oldest is None:
        return None
    ignored = _IGNORED.findall(text)
    count, arrived = map(int, ignored[-1])  # a label may contain the same words; the real ones come last
    return Missing(Fault.TOO_FAR_BEHIND, count, oldest, arrived)


def _oldest(text: str) -> int | None:
    """Return the oldest acceptable time, cut to whole seconds as Loki does."""
    times = _OLDEST.findall(text)
    if not times:
        return None
    try:
        parsed = datetime.fromisoformat(times[-1].rstrip(".,:").upper())
    except ValueError:
        return None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
