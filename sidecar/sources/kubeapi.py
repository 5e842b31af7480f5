"""The Kubernetes API as one pod sees it: its own status, and the log of one of its containers.

Promise: the service account's token and the authority's certificate are read again for every request, because both
rotate under us; every request is bounded until its answer begins; whatever goes wrong is one ApiError that says in
plain words what to do. Refused: anything but two GETs, redirects, and a proxy from the environment.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from sidecar import __version__, times
from sidecar.errors import SidecarError, SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_STATUS_BYTES = 4 << 20
_LONGEST_PAUSE = 60.0
_NOT_THERE_YET = ("waiting to start", "ContainerCreating", "PodInitializing", "is not available")


class ApiError(SidecarError):
    """The API did not give what was asked for.

    `reason`: forbidden, unauthorized, missing, waiting, busy, unreachable.
    """

    def __init__(self, reason: str, detail: str, *, after: float | None = None) -> None:
        self.reason = reason
        self.after = after
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Run:
    """One instance of the container, which may be over."""

    id: str
    restarts: int
    running: bool
    previous: bool = False  # reached only by `previous=true`
    finished: int = 0  # epoch seconds, 0 where unknown


class Stream:
    """An open log."""

    def __init__(self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self._session = session
        self._response = response

    async def read(self) -> bytes:
        """Return what has come, b"" at the end. Raises ApiError. Cancelling loses nothing."""
        import aiohttp  # noqa: PLC0415  17 MiB that only this source needs

        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError("unreachable", f"the log stream broke: {type(error).__name__}") from error

    async def close(self) -> None:
        self._response.close()
        await self._session.close()


class Api:
    """Asks for one pod."""

    def __init__(self, environ: Mapping[str, str], namespace: str, pod: str, *, account: str = ACCOUNT) -> None:
        """Raises SourceError outside a cluster."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise SourceError("KUBERNETES_SERVICE_HOST is not set: source.kind kubernetes works inside a pod only")
        host = f"[{host}]" if ":" in host else host
        self.namespace = namespace
        self._pod = f"https://{host}:{port}/api/v1/namespaces/{namespace}/pods/{pod}"
        self._account = Path(account)
        self._authority: tuple[bytes, ssl.SSLContext] | None = None

    async def runs(self, container: str) -> list[Run]:
        """Return the instances of a container that can be asked for, oldest first. Raises ApiError."""
        stream = await self._get("", {}, "pods")
        body = bytearray()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while data := await stream.read():
                    body += data
                    if len(body) > _STATUS_BYTES:
                        raise ApiError("unreachable", "the pod's status is larger than 4 MiB")
        except TimeoutError:
            raise ApiError("unreachable", "the pod's status did not come to its end") from None
        finally:
            await stream.close()
        try:
            return _runs(orjson.loads(body), container)
        except (ValueError, TypeError, AttributeError) as error:
            raise ApiError("unreachable", "the answer is not a pod") from error

    async def log(
        self, container: str, *, follow: bool, previous: bool, since: int | None = None, tail: int | None = None
    ) -> Stream:
        """Open the log of an instance, from a second since the epoch or by its last lines. Raises ApiError."""
        query = {"container": container, "timestamps": "true"}
        if follow:
            query["follow"] = "true"
        if previous:
            query["previous"] = "true"
        if since is not None:
            query["sinceTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        if tail is not None:
            query["tailLines"] = str(tail)
        return await self._get("/log", query, "pods/log")

    async def _get(self, path: str, query: Mapping[str, str], resource: str) -> Stream:
        import aiohttp  # noqa: PLC0415  see above

        try:
            token = (self._account / "token").read_text(encoding="ascii").strip()
            context = self._context()
        except (OSError, ValueError) as error:
            detail = f"cannot use the service account's token and ca.crt in {self._account}: {error}"
            raise ApiError("unauthorized", detail) from error
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": f"gin-sidecar/{__version__}",
                "Accept-Encoding": "identity",
            },
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await session.get(self._pod + path, params=query, allow_redirects=False)
                if response.status != 200:
                    raise self._refusal(response, await _message(response), resource)  # noqa: TRY301  closed below
        except TimeoutError:
            await session.close()
            raise ApiError("unreachable", f"no answer within {_ANSWER_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            await session.close()
            raise ApiError("unreachable", f"cannot reach the API server: {type(error).__name__}") from error
        except BaseException:
            await session.close()
            raise
        return Stream(session, response)

    def _context(self) -> ssl.SSLContext:
        content = (self._account / "ca.crt").read_bytes()
        if self._authority is None or self._authority[0] != content:
            self._authority = (content, ssl.create_default_context(cadata=content.decode("ascii")))
        return self._authority[1]

    def _refusal(self, response: aiohttp.ClientResponse, message: str, resource: str) -> ApiError:
        status = response.status
        after = _pause(response.headers.get("Retry-After", ""))
        said = f"{status}: {message}" if message else str(status)
        if status == 401:
            return ApiError("unauthorized", f"the API does not accept the service account's token ({said})")
        if status == 403:
            return ApiError(
                "forbidden",
                f'the service account may not get "{resource}" in namespace "{self.namespace}": bind it to a Role '
                f'with apiGroups [""], resources [pods, pods/log], verbs [get] ({said})',
            )
        if status == 400 and any(words in message for words in _NOT_THERE_YET):
            return ApiError("waiting", message)
        if status in (404, 410) or (status == 400 and "not found" in message):
            return ApiError("missing", said, after=after)
        if status == 429 or status >= 500:
            return ApiError("busy", f"the API answers {said}", after=after)
        return ApiError("unreachable", f"the API answers {said}", after=after)


async def _message(response: aiohttp.ClientResponse) -> str:
    body = await response.content.read(1 << 16)
    try:
        return str(orjson.loads(body).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return body[:300].decode(errors="replace").strip()


def _pause(text: str) -> float | None:
    """Return the seconds of a Retry-After; None where there is none."""
    if text.isascii() and text.isdecimal():
        return min(float(text), _LONGEST_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
    return min(max(0.0, moment - time.time()), _LONGEST_PAUSE)


def _runs(pod: Any, container: str) -> list[Run]:  # noqa: ANN401  JSON
    status = pod.get("status") or {}
    kinds = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    everyone = [one for kind in kinds for one in status.get(kind) or []]
    mine = next((one for one in everyone if one.get("name") == container), None)
    if mine is None:
        kinds = ("containers", "initContainers", "ephemeralContainers")
        names = [one["name"] for kind in kinds for one in (pod.get("spec") or {}).get(kind) or []]
        if names and container not in names:
            raise ApiError("missing", f"the pod has no container {container}: it has {', '.join(names)}")
        return []
    restarts = int(mine.get("restartCount") or 0)
    runs = []
    state = mine.get("state") or {}
    over = state.get("terminated")
    current = str(mine.get("containerID") or (over or {}).get("containerID") or "")
    active = "running" in state or over is not None
    last = (mine.get("lastState") or {}).get("terminated")
    if last and last.get("containerID"):
        runs.append(
            Run(
                str(last["containerID"]),
                restarts - 1 if active and restarts else restarts,
                running=False,
                previous=True,
                finished=_seconds(last.get("finishedAt")),
            )
        )
    if active and current:
        finished = _seconds(over.get("finishedAt")) if over else 0
        runs.append(Run(current, restarts, running=over is None, finished=finished))
    return runs


def _seconds(text: object) -> int:
    stamp = times.rfc3339(text) if isinstance(text, str) else None
    return stamp.ns // times.SECOND if stamp else 0
