"""A Loki small enough to start in a test and strict enough to be believed.

It enforces what a real one does with a push: which encodings it reads, what it validates and in which order, which
entries it keeps, what it answers, word for word; and it fails on demand: by status, late, never, in the middle.
One stream that was rejected and is followed by one that was taken gives 204 here too, because that is what happens.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

import orjson
from aiohttp import web

from sidecar.errors import SinkRetry
from sidecar.loki.client import Response
from tests.support import loki_wire
from tests.support.patience import PATIENCE
from tests.support.ports import Port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

SECOND = 10**9
HEAD_BLOCK_BYTES = 256 << 10


@dataclass
class Limits:
    """Loki's defaults; a test changes what it is about."""

    max_line_bytes: int = 262144
    max_age: float | None = 7 * 86400
    grace: float = 600
    window: float = 3600  # behind the newest entry of a stream
    max_label_names: int = 15
    max_label_name_bytes: int = 1024
    max_label_value_bytes: int = 2048
    allow_metadata: bool = True
    max_metadata_bytes: int = 64 << 10
    max_metadata_pairs: int = 128
    rate: float = 4 << 20
    burst: float = 6 << 20
    stream_rate: float = 3 << 20
    stream_burst: float = 15 << 20
    max_streams: int = 5000
    max_body_bytes: int = 100 << 20
    max_message_bytes: int = 4 << 20  # of the hop from distributor to ingester
    auth_enabled: bool = False
    blocked: bool = False


@dataclass
class Fault:
    """What goes wrong with one request. `store`: the request is processed all the same."""

    kind: str  # status, hang, reset, reset_mid_body, slow, drip, wrong_length
    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    store: bool = False


def status(code: int, body: str = "", **headers: str) -> Fault:
    return Fault("status", code, body, {name.replace("_", "-"): value for name, value in headers.items()})


def lost_answer() -> Fault:
    """The request is stored and its answer never arrives."""
    return Fault("reset", store=True)


@dataclass
class Request:
    """One request as it came, and what was answered."""

    headers: Mapping[str, str]
    body: bytes
    at: float
    status: int = 0
    answer: str = ""
    streams: list[tuple[dict[str, str], list[Entry]]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [entry.line for _, entries in self.streams for entry in entries]


@dataclass(frozen=True)
class Entry:
    ns: int
    line: str
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        return len(self.line.encode()) + sum(len(k.encode()) + len(v.encode()) for k, v in self.metadata)


@dataclass
class _Bucket:
    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, amount: float, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if amount > self.tokens:
            return False
        self.tokens -= amount
        return True


@dataclass
class _Stream:
    labels: dict[str, str]
    bucket: _Bucket
    entries: list[Entry] = field(default_factory=list)
    known: set[Entry] = field(default_factory=set)
    head: set[Entry] = field(default_factory=set)
    head_bytes: int = 0
    newest: int | None = None
    appended: int = 0
    last: Entry | None = None


class Direct:
    """A transport to a fake Loki in the same process, for tests in virtual time."""

    def __init__(self, loki: FakeLoki, *, timeout: float = 10.0, **headers: str) -> None:
        self.loki = loki
        self.timeout = timeout
        self.answer_bytes = 1 << 20
        self.headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", **headers}

    async def post(self, body: bytes) -> Response:
        if self.loki.down:
            raise SinkRetry("connection", "refused", status="error")
        seen, fault = await self.loki.handle(self.headers, body)
        if fault is not None and fault.kind == "hang":
            await asyncio.sleep(self.timeout)
            raise SinkRetry("timeout", status="timeout")
        if fault is not None and fault.kind in ("reset", "reset_mid_body"):
            raise SinkRetry("connection", "reset", status="error")
        headers = fault.headers if fault is not None else {}
        if fault is not None and fault.kind == "status":
            seen.status, seen.answer = fault.status, fault.body
        date = formatdate(self.loki.now_ns() / SECOND, usegmt=True)
        return Response(
            seen.status,
            seen.answer[: self.answer_bytes],
            headers.get("Date", date),
            headers.get("Retry-After", ""),
            complete=len(seen.answer) < self.answer_bytes,
        )

    async def close(self) -> None:
        pass


class Rejected(Exception):  # noqa: N818  an answer, not an error of this program
    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text
        super().__init__(text)


class FakeLoki:
    """Start with `async with FakeLoki() as loki`; `loki.url` is the base URL."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self.now_ns = now_ns
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] | None = None  # asked for each request that no script covers
        self.down = False  # for `Direct`; over HTTP, stop it
        self._script: deque[Fault | None] = deque()
        self._streams: dict[str, dict[str, _Stream]] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._host = host
        self._tls = tls
        self._port: Port | None = None
        self._runner: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self._arrived = asyncio.Condition()

    # life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()
        if self._port is not None:
            self._port.release()

    @property
    def url(self) -> str:
        assert self._port is not None
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port.number}"

    async def start(self) -> None:
        """Listen; after `stop` at the same port, with everything that was stored."""
        self._stopping = asyncio.Event()
        self._port = self._port or Port(self._host)
        app = web.Application(client_max_size=self.limits.max_body_bytes * 2)
        app.router.add_post("/loki/api/v1/push", self._push)
        app.router.add_get("/ready", self._ready)
        self._runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port.number, reuse_address=True, ssl_context=self._tls)
        await site.start()

    async def stop(self) -> None:
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # what a test asks

    def script(self, *faults: Fault | None) -> None:
        """Give these faults to the next requests, one each; None lets a request through."""
        self._script.extend(faults)

    def entries(self, tenant: str = "fake", **labels: str) -> list[Entry]:
        """Return what a log query finds: ascending in time, duplicates dropped."""
        found: list[Entry] = []
        for stream in self._matching(tenant, labels):
            found.extend(stream.entries)
        return sorted(found, key=lambda entry: entry.ns)

    def stream(self, labels: Mapping[str, str], tenant: str = "fake") -> list[Entry]:
        """Return the entries of the stream with exactly these labels, ascending in time."""
        (stream,) = (stream for stream in self._matching(tenant, labels) if stream.labels == labels)
        return sorted(stream.entries, key=lambda entry: entry.ns)

    def lines(self, tenant: str = "fake", **labels: str) -> list[str]:
        return [entry.line for entry in self.entries(tenant, **labels)]

    def count(self, tenant: str = "fake", **labels: str) -> int:
        """Return what a metric query counts: what was appended, duplicates beyond the head block included."""
        return sum(stream.appended for stream in self._matching(tenant, labels))

    def streams(self, tenant: str = "fake") -> list[dict[str, str]]:
        return [stream.labels for stream in self._streams.get(tenant, {}).values()]

    async def wait_for(self, enough: Callable[[], bool]) -> None:
        """Wait until a condition about what has arrived holds."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(enough)

    # what it does

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(status=503, text="Ingester not ready\n")

    async def _push(self, request: web.Request) -> web.StreamResponse:
        seen, fault = await self.handle(request.headers, await request.read())
        if fault is not None and fault.kind != "slow":
            return await self._fail(request, fault, seen)
        return self._answer(seen.status, seen.answer)

    async def handle(self, headers: Mapping[str, str], body: bytes) -> tuple[Request, Fault | None]:
        """Do what the push API does with a request, short of HTTP; a fault says how the answer goes wrong."""
        seen = Request(dict(headers), body, self.now_ns() / SECOND)
        self.requests.append(seen)
        try:
            seen.streams = self._read(headers, body)
            readable = True
        except Rejected as rejected:
            seen.status, seen.answer = rejected.code, rejected.text
            readable = False
        fault = self._script.popleft() if self._script else (self.fault(seen) if self.fault else None)
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        if readable and (fault is None or fault.store or fault.kind == "slow"):
            seen.status, seen.answer = self._process(headers, seen)
        async with self._arrived:
            self._arrived.notify_all()
        return seen, fault

    def _answer(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
        date = {"Date": formatdate(self.now_ns() / SECOND, usegmt=True), **(headers or {})}
        if not text:
            return web.Response(status=code, headers=date)
        return web.Response(status=code, text=text + "\n", headers=date)

    async def _fail(self, request: web.Request, fault: Fault, seen: Request) -> web.StreamResponse:
        if fault.kind == "status":
            seen.status, seen.answer = fault.status, fault.body
            return self._answer(fault.status, fault.body, fault.headers)
        if fault.kind == "hang":
            await self._stopping.wait()
        elif fault.kind == "reset_mid_body":
            response = web.StreamResponse(status=fault.status or 500, headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"half an ans")
        elif fault.kind == "drip":  # an answer that never stalls and never ends
            response = web.StreamResponse(status=fault.status or 200, headers={"Content-Length": "100000"})
            await response.prepare(request)
            with suppress(ConnectionError):
                while not self._stopping.is_set():
                    await response.write(b".")
                    await asyncio.sleep(0.01)
        elif fault.kind == "wrong_length" and request.transport is not None:  # more comes than was announced
            seen.status, seen.answer = fault.status or 503, "busy"
            request.transport.write(b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nbusy, and more" % seen.status)
            request.transport.close()
            return web.Response(status=500)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _read(self, headers: Mapping[str, str], body: bytes) -> list[tuple[dict[str, str], list[Entry]]]:
        """Read the body as section 1 of the push API says, or reject it whole."""
        media = headers.get("Content-Type", "")
        encoding = headers.get("Content-Encoding", "")
        if not re.fullmatch(r"\s*[\w.+-]+/[\w.+-]+\s*(;.*)?", media):
            raise Rejected(400, "mime: no media type")
        json = media.split(";")[0].strip().lower() == "application/json"
        if encoding not in ("", "gzip", "deflate", "snappy") or (json and encoding == "snappy"):
            raise Rejected(400, f'Content-Encoding "{encoding}" not supported')
        if len(body) > self.limits.max_body_bytes:
            raise Rejected(413, f"request body too large: {len(body)} bytes, limit: {self.limits.max_body_bytes} bytes")
        try:
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding == "deflate":
                body = zlib.decompress(body, wbits=-15)
        except (OSError, EOFError, zlib.error) as error:
            raise Rejected(400, "EOF") from error
        if json:
            return _read_json(body)
        try:
            return [
                (labels, [Entry(ns, line, _normalized(pairs)) for ns, line, pairs in entries])
                for labels, entries in loki_wire.read_protobuf(loki_wire.unsnap(body))
            ]
        except loki_wire.Corrupt as error:
            raise Rejected(400, str(error)) from error

    def _process(self, headers: Mapping[str, str], seen: Request) -> tuple[int, str]:
        limits = self.limits
        tenant = "fake"
        if limits.auth_enabled:
            tenant = headers.get("X-Scope-OrgID", "")
            if not tenant:
                return 401, "no org id"
            if "|" in tenant:
                return 400, "multiple org IDs present"
            if not re.fullmatch(r"[A-Za-z0-9!_.*'()-]{1,150}", tenant) or tenant in (".", ".."):
                return 400, f"tenant ID '{tenant}' contains unsupported character"
        if limits.blocked:
            return (
                260,
                f"ingestion blocked for user {tenant} until '2027-01-01 00:00:00 +0000 UTC' with status code '260'",
            )
        if not seen.streams:
            return 422, "error at least one valid stream is required for ingestion"
        now = self.now_ns()
        errors: list[str] = []
        valid: list[tuple[dict[str, str], list[Entry]]] = []
        for labels, entries in seen.streams:
            if problem := self._label_problem(labels):
                errors.extend([problem] * len(entries))
                continue
            kept = []
            for entry in entries:
                if problem := self._entry_problem(labels, entry, now):
                    errors.append(problem)
                else:
                    kept.append(entry)
            if kept:
                valid.append((labels, kept))
        lines = sum(len(entries) for _, entries in valid)
        size = sum(entry.size for _, entries in valid for entry in entries)
        bucket = self._buckets.setdefault(tenant, _Bucket(limits.rate, limits.burst, limits.burst, now / SECOND))
        bucket.rate, bucket.burst = limits.rate, limits.burst
        if not bucket.take(size, now / SECOND):
            return 429, (
                f"ingestion rate limit exceeded for user {tenant} (limit: {int(limits.rate)} bytes/sec) while attempting "
                f"to ingest '{lines}' lines totaling '{size}' bytes, reduce log volume or contact your Loki "
                "administrator to see if the limit can be increased"
            )
        message = sum(entry.size + 27 for _, entries in valid for entry in entries)
        if message > limits.max_message_bytes:
            return 500, (
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max "
                f"({message} vs. {limits.max_message_bytes})"
            )
        rejected: tuple[int, str] | None = None
        for labels, entries in valid:
            rejected = self._ingest(tenant, labels, entries, now)  # the next one's verdict replaces this one's
        if rejected is not None:
            return rejected
        if errors:
            return 400, _grouped(errors)
        return 204, ""

    def _label_problem(self, labels: dict[str, str]) -> str:
        name = _show(labels)
        counted = len(labels) - ("service_name" in labels)
        if counted > self.limits.max_label_names:
            return f"entry for stream '{name}' has {counted} label names; limit {self.limits.max_label_names}"
        for key, value in labels.items():
            if len(key.encode()) > self.limits.max_label_name_bytes:
                return f"stream '{name}' has label name too long: '{key}'"
            if len(value.encode()) > self.limits.max_label_value_bytes:
                return f"stream '{name}' has label value too long: '{value}'"
        return ""

    def _entry_problem(self, labels: dict[str, str], entry: Entry, now: int) -> str:
        limits, name = self.limits, _show(labels)
        if limits.max_age is not None and entry.ns < (oldest := now - int(limits.max_age * SECOND)):
            return (
                f"entry for stream '{name}' has timestamp too old: {_rfc3339(entry.ns)}, "
                f"oldest acceptable timestamp is: {_rfc3339(oldest)}"
            )
        if entry.ns > now + int(limits.grace * SECOND):
            return f"entry for stream '{name}' has timestamp too new: {_rfc3339(entry.ns)}"
        if (length := len(entry.line.encode())) > limits.max_line_bytes:
            return (
                f"max entry size '{limits.max_line_bytes}' bytes exceeded for stream '{name}' while adding an entry "
                f"with length '{length}' bytes"
            )
        if entry.metadata:
            if not limits.allow_metadata:
                return (
                    f"stream '{name}' includes structured metadata, but this feature is disallowed. Please see "
                    "`limits_config.allow_structured_metadata` or contact your Loki administrator to enable it."
                )
            size = entry.size - length
            if size > limits.max_metadata_bytes:
                return (
                    f"stream '{name}' has structured metadata too large: '{size}' bytes, limit: "
                    f"'{limits.max_metadata_bytes}' bytes. Please see `limits_config.max_structured_metadata_size` or "
                    "contact your Loki administrator to increase it."
                )
            if len(entry.metadata) > limits.max_metadata_pairs:
                return (
                    f"stream '{name}' has too many structured metadata labels: '{len(entry.metadata)}', limit: "
                    f"'{limits.max_metadata_pairs}'. Please see `limits_config.max_structured_metadata_entries_count` "
                    "or contact your Loki administrator to increase it."
                )
        return ""

    def _ingest(self, tenant: str, labels: dict[str, str], entries: list[Entry], now: int) -> tuple[int, str] | None:
        limits, name = self.limits, _show(labels)
        streams = self._streams.setdefault(tenant, {})
        stream = streams.get(name)
        if stream is None:
            if len(streams) >= limits.max_streams:
                return 429, (
                    f"maximum active stream limit exceeded when trying to create stream {name}, reduce the number of "
                    "active streams (reduce labels or reduce label values), or contact your Loki administrator to see "
                    f"if the limit can be increased, user: '{tenant}'"
                )
            bucket = _Bucket(limits.stream_rate, limits.stream_burst, limits.stream_burst, now / SECOND)
            stream = streams[name] = _Stream(labels, bucket)
        fresh = [entry for entry in entries if entry != stream.last]
        size = sum(entry.size for entry in fresh)
        if not stream.bucket.take(size, now / SECOND):
            shown = "".join(
                f"entry with timestamp {_go_time(entry.ns)} ignored, reason: 'Per stream rate limit exceeded (limit: "
                f"{limits.stream_rate / (1 << 20):g}MB/sec) while attempting to ingest for stream '{name}' totaling "
                f"{size}B, consider splitting a stream via additional labels or contact your Loki administrator to see "
                "if the limit can be increased',\n"
                for entry in fresh[:10]
            )
            return 429, (
                f"{shown}user '{tenant}', total ignored: {len(fresh)} out of {len(entries)} for stream: {name}"
            )
        late: list[tuple[Entry, int]] = []
        for entry in fresh:
            oldest = None if stream.newest is None else stream.newest - int(limits.window * SECOND)
            if oldest is not None and entry.ns < oldest:
                late.append((entry, oldest))
                continue
            stream.newest = entry.ns if stream.newest is None else max(stream.newest, entry.ns)
            self._append(stream, entry)
        if not late:
            return None
        shown = "".join(
            f"entry with timestamp {_go_time(entry.ns)} ignored, reason: 'entry too far behind, entry timestamp is: "
            f"{_rfc3339(entry.ns)}, oldest acceptable timestamp is: {_rfc3339(oldest)}',\n"
            for entry, oldest in late[:10]
        )
        return 400, f"{shown}user '{tenant}', total ignored: {len(late)} out of {len(entries)} for stream: {name}"

    def _append(self, stream: _Stream, entry: Entry) -> None:
        if entry in stream.head:
            return
        stream.last = entry
        stream.head.add(entry)
        stream.head_bytes += entry.size
        stream.appended += 1
        if entry not in stream.known:
            stream.known.add(entry)
            stream.entries.append(entry)
        if stream.head_bytes > HEAD_BLOCK_BYTES:
            stream.head, stream.head_bytes = set(), 0

    def _matching(self, tenant: str, labels: Mapping[str, str]) -> list[_Stream]:
        return [
            stream
            for stream in self._streams.get(tenant, {}).values()
            if all(stream.labels.get(name) == value for name, value in labels.items())
        ]


def _read_json(body: bytes) -> list[tuple[dict[str, str], list[Entry]]]:
    try:
        document = orjson.loads(body.decode(errors="replace"))
    except orjson.JSONDecodeError as error:
        raise Rejected(400, f"loghttp.PushRequest.Streams: {error}") from error
    if not isinstance(document, dict):
        raise Rejected(400, "loghttp.PushRequest: expect object")
    read = []
    for stream in document.get("streams") or []:
        labels = stream.get("stream") or {}
        if not all(isinstance(value, str) for value in labels.values()):
            raise Rejected(400, "loghttp.LabelSet: expect string")
        for name in labels:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
                raise Rejected(400, f"couldn't parse labels: 1:2: parse error: unexpected {name!r}")
        entries = [_read_value(value) for value in stream.get("values") or []]
        if entries:
            labels = labels or {"service_name": "unknown_service"}
            read.append(({name: text for name, text in labels.items() if text}, entries))
        elif labels or "stream" in stream:
            read.append((labels, []))
    return read


def _read_value(value: object) -> Entry:
    malformed = Rejected(400, "loghttp.Entry: unexpected value type")
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(part, str) for part in value[:2]):
        raise malformed
    if not re.fullmatch(r"-?\d{1,19}", value[0]) or not -(1 << 63) <= int(value[0]) < 1 << 63:
        raise malformed
    pairs: dict[str, str] = {}
    if len(value) > 2:
        if not isinstance(value[2], dict) or not all(isinstance(text, str) for text in value[2].values()):
            raise malformed
        pairs = value[2]
    return Entry(int(value[0]), value[1], _normalized(pairs.items()))


def _normalized(pairs: object) -> tuple[tuple[str, str], ...]:
    """Rename metadata keys as the distributor does; one that has nothing to keep fails the whole request."""
    made: dict[str, str] = {}
    for key, value in pairs:  # type: ignore[attr-defined]
        name = re.sub(r"[^A-Za-z0-9]+", "_", key)
        if not key:
            raise Rejected(500, "label name is empty")
        if not name.strip("_"):
            raise Rejected(500, f'normalization for label name "{key}" resulted in invalid name "_"')
        if name[0].isdigit():
            name = "key_" + name
        if value:
            made[name] = value
    return tuple(sorted(made.items()))


def _show(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name}={orjson.dumps(labels[name]).decode()}" for name in sorted(labels)) + "}"


def _grouped(errors: list[str]) -> str:
    """Join messages as the distributor does: equal ones counted, a single one bare."""
    counts: dict[str, int] = {}
    for error in errors:
        counts[error] = counts.get(error, 0) + 1
    if len(errors) == 1:
        return errors[0]
    return "; ".join(f"{count} errors like: {error}" for error, count in counts.items())


def _rfc3339(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _go_time(ns: int) -> str:
    seconds, rest = divmod(ns, SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
