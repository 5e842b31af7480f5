"""One bounded GET of the application this sidecar belongs to: its health address, its metrics.

Problem: the application may hang, answer without end, answer garbage or not be there, and none of that may spread.
Promise: `get` ends within its timeout, holds at most `max_bytes` (decompressed), and says what went wrong in a word of
a closed set, fit for a label. Refused: redirects (one proves nothing about what was asked for, and may lead out of the
pod), proxies of the environment, cookies, and any text of the answer or the address in an error (they hold secrets).
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from sidecar import __version__
from sidecar.errors import SidecarError

if TYPE_CHECKING:
    from collections.abc import Mapping

REASONS = ("timeout", "connection", "redirect", "too_large", "encoding")

_HEADERS = {
    "User-Agent": f"gin-sidecar/{__version__}",
    # The application is a loopback away: compressing would cost both sides more than it saves. gzip is still read.
    "Accept-Encoding": "identity",
}
_GZIP = 16 + zlib.MAX_WBITS


class FetchError(SidecarError):
    """The application gave no usable answer. `reason` is one of REASONS; `detail` says it to people."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application said, redirects and failures of transport left out."""

    status: int
    content_type: str  # "" where there is none
    body: bytes


def address(text: str) -> URL:
    """Return the address to fetch. Raises ValueError where it is none."""
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError('expected an address such as "http://127.0.0.1:8080/health"')
    return url.with_fragment(None)


class Client:
    """Fetches one address. A fresh connection each time, as the kubelet's probes do: an old one proves nothing."""

    def __init__(self, url: str) -> None:
        self._url = address(url)
        self._session: aiohttp.ClientSession | None = None

    async def get(
        self,
        *,
        timeout: float,  # noqa: ASYNC109  the bound is part of what is asked for, and names itself in the error
        max_bytes: int,
        cut: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask once. A longer body is an error, or with `cut` ends at `max_bytes`. Raises FetchError."""
        try:
            async with asyncio.timeout(timeout):
                return await self._get(max_bytes, cut=cut, headers=headers or {})
        except TimeoutError:
            raise FetchError("timeout", f"no answer within {timeout:g} s") from None
        except aiohttp.ClientError as error:
            raise FetchError("connection", _describe(error)) from error
        except OSError as error:
            raise FetchError("connection", error.strerror or type(error).__name__) from error

    async def _get(self, max_bytes: int, *, cut: bool, headers: Mapping[str, str]) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, ssl=not _is_loopback(self._url)),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                headers=_HEADERS,
                auto_decompress=False,  # done below, with a bound on what comes out
            )
        async with self._session.get(self._url, allow_redirects=False, headers=headers) as response:
            if 300 <= response.status < 400:
                raise FetchError(
                    "redirect", f"answers {response.status}: redirects are not followed, give the final address"
                )
            body = await _read(response, max_bytes, cut=cut)
            return Answer(response.status, response.headers.get("Content-Type", ""), body)

    async def close(self) -> None:
        """Release everything. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _read(response: aiohttp.ClientResponse, max_bytes: int, *, cut: bool) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise FetchError("encoding", "answers in a content encoding that was not asked for")
    inflate = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
    body = bytearray()
    async for piece in response.content.iter_any():
        if inflate is None:
            body += piece
        else:
            try:
                # One byte beyond the bound tells "too large" from "just fits", and no bomb gets further than that.
                body += inflate.decompress(piece, max_bytes + 1 - len(body))
            except zlib.error as error:
                raise FetchError("encoding", "answers with damaged gzip") from error
        if len(body) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise FetchError("too_large", f"answers more than {max_bytes} bytes")
    if inflate is not None and not inflate.eof:
        raise FetchError("encoding", "answers with gzip that ends early")
    return bytes(body)


def _is_loopback(url: URL) -> bool:
    """Tell whether nobody can stand between: there certificates, which never name 127.0.0.1, are not checked.

    The kubelet's own probes check none at all.
    """
    host = url.host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _describe(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        # Where several addresses were tried, strerror lists them all; the number names the last one's cause.
        return os.strerror(error.errno).lower() if error.errno else "cannot connect"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError):
        return "closed the connection before the answer was complete"
    return "answers something that is not HTTP"
