"""One HTTP request to a push API and what came back; connection, encryption and credentials.

Promise: at most `timeout` per request, bounded memory for the answer, no redirect followed (it would carry the
credentials to wherever it says), secrets and certificates taken from their files as these are now.
An answer that did not arrive whole is SinkRetry: nobody knows what became of the request.
"""

from __future__ import annotations

import base64
import io
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import aiohttp

from sidecar import __version__
from sidecar.errors import SinkRetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 60.0  # Loki closes idle connections after 120 s
_ANSWER_BYTES = 1 << 20  # an error body names the stream once for each second of refused entries, without a bound
_LARGE_BODY = 1 << 20  # aiohttp wants a file-like body from here on


@dataclass(slots=True, frozen=True)
class Response:
    """An answer."""

    status: int
    body: str  # at most 1 MiB of it
    date: str = ""
    retry_after: str = ""
    complete: bool = True  # the body is all there was


class Transport(Protocol):
    """Carries a request to the push API and its answer back."""

    async def post(self, body: bytes) -> Response:
        """Send one request. Raises SinkRetry."""

    async def close(self) -> None:
        """Release everything. Idempotent."""


class Client:
    """Sends requests to one address over few kept connections."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        headers: Mapping[str, str],
        authorization: Callable[[], str],
        certificates: Certificates | None = None,
    ) -> None:
        """`authorization` gives the header's value, "" for none, or raises OSError or ValueError."""
        self._url = url
        self._timeout = timeout
        self._headers = dict(headers)
        self._authorization = authorization
        self._certificates = certificates
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes) -> Response:
        """Send one request. Raises SinkRetry."""
        headers = dict(self._headers)
        try:
            if authorization := self._authorization():
                headers["Authorization"] = authorization
            context = self._certificates.get() if self._certificates is not None else True
        except (OSError, ValueError) as error:
            raise SinkRetry("credentials", f"cannot read a secret or certificate: {error}", status="error") from error
        data = body if len(body) < _LARGE_BODY else io.BytesIO(body)
        try:
            async with self._opened().post(
                self._url, data=data, headers=headers, ssl=context, allow_redirects=False
            ) as response:
                answer = bytearray()
                async for piece in response.content.iter_any():
                    answer += piece
                    if len(answer) >= _ANSWER_BYTES:
                        response.close()
                        break
                return Response(
                    response.status,
                    _without(authorization, answer[:_ANSWER_BYTES].decode(errors="replace")),
                    response.headers.get("Date", ""),
                    response.headers.get("Retry-After", ""),
                    complete=len(answer) < _ANSWER_BYTES,
                )
        except TimeoutError as error:
            raise SinkRetry("timeout", f"no answer within {self._timeout:g} s", status="timeout") from error
        except aiohttp.ClientConnectorError as error:
            problem = error.os_error.strerror or str(error.os_error)
            raise SinkRetry("connection", f"{error.host}:{error.port}: {problem}", status="error") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SinkRetry("connection", f"{type(error).__name__}: {error}", status="error") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:  # here, because a session belongs to the running loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=2, keepalive_timeout=_IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(_CONNECT_SECONDS, self._timeout)),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"gin-sidecar/{__version__}"},
            )
        return self._session


class Certificates:
    """Whom to trust and how to prove who we are; read again when one of the files has changed."""

    def __init__(self, ca_file: str = "", cert_file: str = "", key_file: str = "") -> None:
        self._ca_file = ca_file
        self._cert_file = cert_file
        self._key_file = key_file
        self._paths = [Path(name) for name in (ca_file, cert_file, key_file) if name]
        self._seen: list[tuple[int, int, int]] = []
        self._context: ssl.SSLContext | None = None

    def get(self) -> ssl.SSLContext:
        """Return the context now. Raises OSError (ssl.SSLError is one) while the files have never been usable."""
        try:
            seen = [(status.st_ino, status.st_mtime_ns, status.st_size) for status in map(Path.stat, self._paths)]
            if self._context is None or seen != self._seen:
                self._context, self._seen = self._load(), seen
        except OSError:
            if self._context is None:  # else a mount that is being replaced: the last ones stay in force
                raise
        return self._context

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca_file or None)
        if self._cert_file:
            context.load_cert_chain(self._cert_file, self._key_file or None)
        return context


def _without(authorization: str, text: str) -> str:
    """Return what was answered without our credentials: a gateway may echo a request, and answers are logged."""
    _, _, credentials = authorization.partition(" ")
    return text.replace(credentials, "…") if credentials else text


def basic(username: str, password: str) -> str:
    """Return the header of basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
