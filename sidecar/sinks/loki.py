"""Loki, over its push API. How pushes are written and answers read stands in `sidecar.loki`; here both meet.

Promise: one stream per request, in ascending order of time, encoded once. What Loki has proved to have stored is never
sent again; what it refused is sent in the form it would take where there is one (divided, in a stream of its own, with
shorter lines, fewer labels, no metadata), and refused record by record, in Loki's own words, where there is none.
Refused: gating on /ready (the push is the probe), any compression but gzip, and more than one stream in a request,
because a 204 would hide that one of them was rejected; and the header `X-Loki-Backfill-Shard`, by which newer servers
take what is older than a week: older ones ignore it, it adds labels that nobody asked for, and dead letters that
`sidecar replay` sends once the limit was raised lose nothing either.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sidecar.errors import SinkRefused, SinkRetry
from sidecar.loki import answers, client, encoder, partial, wire
from sidecar.loki.answers import Kind
from sidecar.loki.encoder import LokiPush
from sidecar.model import Push, Receipt
from sidecar.options import Duration, Secret, Size, option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model import Record
    from sidecar.telemetry import Telemetry

_PATH = "/loki/api/v1/push"
_CONTENT_TYPES = {"json": "application/json", "protobuf": "application/x-protobuf"}
_SKEW_RESOLUTION = 2.0  # seconds: a Date header is cut to whole ones
_SMALLEST_PUSH = 1024
_FUTILE_RECORDS = 8  # so many single records refused in a row: it is not one of them, it is all of them


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The section `sinks.loki.batch`."""

    max_bytes: Size = option(Size(256 << 10), "Push when this much is waiting.", minimum=1024, maximum=3 << 20)
    max_wait: Duration = option(Duration(1.0), "Push when the oldest record has waited this long.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `sinks.loki`."""

    url: str = option("", "Base URL; `/loki/api/v1/push` is added. Empty: no Loki.")
    tenant_id: str = option("", "Sent as `X-Scope-OrgID`.")
    username: str = option("", "Basic authentication.")
    password: Secret = option(Secret(), "Basic authentication.", secret=True)
    bearer_token: Secret = option(Secret(), "Bearer authentication.", secret=True)
    ca_file: str = option("", "PEM file of the authorities to trust instead of the system's.")
    cert_file: str = option("", "PEM file of the client certificate.")
    key_file: str = option("", "PEM file of the client certificate's key.")
    labels: dict[str, str] = option({}, "Labels added to every stream.")
    encoding: str = option("json", "How pushes are written.", choices=("json", "protobuf"))
    timeout: Duration = option(Duration(10.0), "Longest time one push may take.", minimum=0.1)
    batch: BatchConfig = field(default_factory=BatchConfig)
    when_full: str = option(
        "auto",
        "What to do when Loki does not take records fast enough. `auto`: `block` for file, cri, kubernetes and stdin "
        "from a regular file; for fifo, command and piped stdin `spool` with a state directory, else a memory queue "
        "of `spool_max_bytes` and then `drop`, counted. `block` is refused for fifo and command.",
        choices=("auto", "block", "spool", "drop"),
    )
    spool_max_bytes: Size = option(Size(64 << 20), "Bound of the spool, or of the memory queue without one.")


def push_url(base: str) -> str:
    """Return where to push, given a base URL (or the whole address, as other tools want it)."""
    base = base.rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


class Loki:
    """Pushes to one Loki."""

    name = "loki"

    def __init__(
        self,
        config: Config,
        *,
        telemetry: Telemetry,
        identity: Mapping[str, str] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        transport: client.Transport | None = None,
    ) -> None:
        """`identity`: the labels that are known, of namespace, pod, container and environment.

        `transport` takes the place of HTTP, where a Loki lives in the same process.
        """
        self._telemetry = telemetry
        self._now_ns = now_ns
        self._skew_ns = 0
        self._futile = 0  # single records refused in a row without any push stored
        self._encoder = encoder.Encoder(
            {**config.labels, **(identity or {})},
            sink=self.name,
            telemetry=telemetry,
            now_ns=self._server_now_ns,
            # A weight is the worst case, 224 bytes beside a line: twice as much keeps a batch in one push, not two.
            max_bytes=min(int(config.batch.max_bytes) * 2, wire.MAX_REQUEST_BYTES),
            encoding=config.encoding,
        )
        headers = {"Content-Type": _CONTENT_TYPES[config.encoding], "Content-Encoding": "gzip"}
        if config.tenant_id:
            headers["X-Scope-OrgID"] = config.tenant_id
        url = push_url(config.url)
        self._client: client.Transport = transport or client.Client(
            url,
            timeout=float(config.timeout),
            headers=headers,
            authorization=lambda: _authorization(config),
            certificates=client.Certificates(config.ca_file, config.cert_file, config.key_file)
            if url.startswith("https:")
            else None,
        )

    def settle(self, records: Sequence[Record]) -> list[int]:
        return self._encoder.settle(records)

    def snapshot(self, settled: int) -> Mapping[str, Any]:
        return self._encoder.snapshot(settled)

    def restore(self, saved: Mapping[str, Any]) -> None:
        self._encoder.restore(saved)

    def encode(self, records: Sequence[Record], times: Sequence[int]) -> list[Push]:
        return self._encoder.encode(records, times)

    def divide(self, push: Push) -> list[Push]:
        assert isinstance(push, LokiPush)
        return [*self._encoder.divide(push)]

    async def send(self, push: Push) -> Receipt:
        assert isinstance(push, LokiPush)
        response = await self._client.post(push.body)
        self._learn_skew(response.date)
        answer = answers.read(
            response.status,
            response.body,
            complete=response.complete,
            retry_after=response.retry_after,
            now=self._now_ns() / 1e9,
        )
        return self._conclude(push, answer, str(response.status))

    async def close(self) -> None:
        await self._client.close()

    def _server_now_ns(self) -> int:
        """Return the present, by the destination's clock where that is behind: it decides what is in the future."""
        return self._now_ns() + min(0, self._skew_ns)

    def _learn_skew(self, date: str) -> None:
        ahead = answers.skew(date, self._now_ns() / 1e9)
        if ahead is None:
            return
        ahead = 0.0 if -_SKEW_RESOLUTION < ahead < _SKEW_RESOLUTION else ahead
        self._skew_ns = int(ahead * 1e9)
        self._telemetry.sink_skew(self.name, ahead)

    def _conclude(self, push: LokiPush, answer: answers.Answer, status: str) -> Receipt:
        if answer.kind is Kind.STORED:
            self._futile = 0
            return Receipt(status)
        if answer.kind is Kind.RETRY:
            raise SinkRetry(
                answer.reason, answer.detail, status=status, after=answer.after, stream_only=answer.stream_only
            )
        if answer.kind is Kind.PARTLY:
            return self._sort_out(push, answer, status)
        if answer.kind is Kind.PLAIN and not push.plain:
            return self._without_metadata(push, answer, status)
        if answer.kind is Kind.RELABEL and not push.labels.reduced:
            self._telemetry.sink_degraded(self.name, "labels", f"sending fewer labels: {answer.detail}")
            return Receipt(status, again=[self._encoder.reduced(push)])
        return self._smaller(push, answer, status)

    def _smaller(self, push: LokiPush, answer: answers.Answer, status: str) -> Receipt:
        """Divide what Loki did not take as a whole until the record it does not take stands alone."""
        if answer.kind is Kind.DIVIDE:
            half = sum(wire.weights(push.records)) // 2
            self._encoder.max_bytes = max(_SMALLEST_PUSH, min(self._encoder.max_bytes, half))
        elif self._futile >= _FUTILE_RECORDS:
            raise SinkRefused(answer.reason, answer.detail, status=status)
        if halves := self._encoder.divide(push):
            return Receipt(status, again=halves)
        self._futile += 1
        raise SinkRefused(answer.reason, answer.detail, status=status)

    def _without_metadata(self, push: LokiPush, answer: answers.Answer, status: str) -> Receipt:
        self._encoder.plain = True
        self._telemetry.sink_degraded(self.name, "metadata", f"sending no structured metadata: {answer.detail}")
        self._telemetry.sink_adjusted(self.name, "metadata", len(push.records))
        plain = self._encoder.push(push.labels, push.records, push.times, plain=True)
        return Receipt(status, again=[plain])

    def _sort_out(self, push: LokiPush, answer: answers.Answer, status: str) -> Receipt:
        """Send again, in a form that Loki takes, what it did not store of a push that it took in part."""
        if any(missing.fault is answers.Fault.NO_METADATA for missing in answer.missing):
            return self._smaller(push, answer, status) if push.plain else self._without_metadata(push, answer, status)
        found = partial.sort_out(self._measure(push), answer.missing)
        if not found.everything() or (push.repeated and (found.unsure or found.too_new)):
            return self._smaller(push, answer, status)  # the answer does not fit what was sent
        self._futile = 0
        reason, gone = ("too_old", found.too_old) if found.too_old else ("too_far_behind", set[int]())
        again: list[LokiPush] = []
        if found.late and push.labels.replay:
            gone |= found.late
        elif found.late:
            again.append(self._encoder.replay(push, sorted(found.late)))
        if found.unsure:
            again.append(self._encoder.pick(push, sorted(found.unsure)))
            again[-1].repeated = True
        if found.long:
            self._encoder.max_line_bytes = min(self._encoder.max_line_bytes, found.max_line_bytes)
            again.append(self._encoder.pick(push, sorted(found.long)))
            self._encoder.count_long(again[-1])
        if found.fat:
            fat = self._encoder.pick(push, sorted(found.fat))
            again.append(self._encoder.push(fat.labels, fat.records, fat.times, plain=True))
        if found.too_new:
            again.append(self._brought_back(push, sorted(found.too_new)))
        return Receipt(status, [push.records[index] for index in sorted(gone)], reason, answer.detail, again)

    def _brought_back(self, push: LokiPush, indexes: Sequence[int]) -> LokiPush:
        """Return a push of records from the future, at the present of the destination."""
        self._telemetry.sink_adjusted(self.name, "future_time", len(indexes))
        now = self._server_now_ns()
        records = [push.records[index] for index in indexes]
        back = self._encoder.push(
            push.labels, records, [now + number for number in range(len(records))], plain=push.plain
        )
        back.repeated = True
        return back

    def _measure(self, push: LokiPush) -> list[partial.Sent]:
        """Return what was sent, entry by entry, as Loki counts it."""
        return [
            partial.Sent(
                index,
                int(stamp),
                len(line.encode()),
                len(pairs),
                sum(len(name) + len(value.encode()) for name, value in pairs.items()),
            )
            for index, (record, time) in enumerate(zip(push.records, push.times, strict=True))
            for stamp, line, pairs in self._encoder.entries(push.labels, [record], [time], plain=push.plain)
        ]


def _authorization(config: Config) -> str:
    if config.bearer_token:
        token = config.bearer_token.get()
        if not (token.isascii() and token.isprintable()):
            # Beyond ASCII or with a line break in the middle it is no header; the token itself is never told.
            source = f"the file {config.bearer_token.path}" if config.bearer_token.path else "its value"
            raise ValueError(f"sinks.loki.bearer_token: {source} is no token: expected one line of printable ASCII")
        return f"Bearer {token}"
    if config.username:
        return client.basic(config.username, config.password.get())
    return ""
