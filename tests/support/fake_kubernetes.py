"""The API server and the kubelet behind it, as far as one pod's log goes, small enough to start in a test.

It reproduces what a real one does: log files per container instance that rotate, `previous`, `sinceTime` cut to whole
seconds, times before each logical line and none before the rest of a partial one, an instance chosen by the pod's
state (a dead one's log again during back-off), tokens that are checked, and streams that end whenever they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import orjson
from aiohttp import web

CERTIFICATES = Path(__file__).parent / "certificates"
SECOND = 10**9


@dataclass
class Piece:
    """One line of the runtime's log file: `ends` is False for a partial."""

    ns: int
    content: bytes
    ends: bool


@dataclass
class Instance:
    number: int
    alive: bool = True
    finished: int = 0
    files: list[list[Piece]] = field(default_factory=lambda: [[]])  # the last one has not been rotated
    removed: bool = False

    @property
    def id(self) -> str:
        return f"containerd://{self.number:064x}"


@dataclass
class Fault:
    """What one request gets instead of an answer."""

    status: int
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def rfc3339(ns: int) -> str:
    moment = datetime.fromtimestamp(ns // SECOND, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % SECOND:09d}Z"


class FakeKubernetes:
    """Serves https://127.0.0.1:port for one pod with the container `app`; `account` is a service account's directory."""

    def __init__(self, directory: Path, *, clock_ns=time.time_ns) -> None:
        self.clock_ns = clock_ns
        self.account = directory / "account"
        self.account.mkdir(exist_ok=True)
        self.set_token("first")
        self.set_authority("authority.pem")
        self.instances = [Instance(0)]
        self.waiting = False  # between two instances: CrashLoopBackOff
        self.creating = False  # before the first one
        self.pods_forbidden = False
        self.logs_forbidden = False
        self.faults: list[Fault] = []  # for the next requests for a log
        self.pod_faults: list[Fault] = []  # for the next requests for the pod
        self.pod_requests = 0
        self.requests: list[dict[str, str]] = []
        self.complaint = b""
        self.reported: int | None = None  # the pod's status is so old that this instance runs
        self.reports: int | None = None  # so many more times
        self.blind_after: int | None = None  # follow up to here and stall, as before 1.29
        self._changed = asyncio.Event()
        self._cuts = 0
        self._aborts = 0
        self._closes = 0
        self._torn = b""
        self._port = 0

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/shop/pods/web-0", self._pod)
        app.router.add_get("/api/v1/namespaces/shop/pods/web-0/log", self._log)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        await self._listen(context)
        self._context = context
        return self

    async def _listen(self, context) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def __aexit__(self, *error: object) -> None:
        self.cut()
        await self._runner.cleanup()

    @property
    def environ(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self._port),
            "KUBERNETES_SERVICE_ACCOUNT_DIR": str(self.account),
            "POD_NAME": "web-0",
            "POD_NAMESPACE": "shop",
            "POD_UID": "6f1c",
        }

    # what happens to the pod

    @property
    def current(self) -> Instance:
        return self.instances[-1]

    def set_token(self, token: str, *, file: bool = True) -> None:
        """Accept this token and no other; with `file`, the kubelet has written it too."""
        self.token = token
        if file:
            (self.account / "token").write_text(token)

    def set_authority(self, *names: str) -> None:
        """Write the certificates of these files as those of the authorities to trust."""
        (self.account / "ca.crt").write_bytes(b"".join((CERTIFICATES / name).read_bytes() for name in names))

    def write(self, data: bytes, ns: int | None = None) -> None:
        """Log what the application writes: whole lines, and what is left as a partial."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.current.files[-1].append(Piece(ns or self.clock_ns(), line, ends=True))
        if rest:
            self.current.files[-1].append(Piece(ns or self.clock_ns(), rest, ends=False))
        self._notify()

    def rotate(self) -> None:
        """A follower reads the old file to its end and goes on in the new one; nobody else sees the old one again."""
        self.current.files.append([])
        self._notify()

    def die(self) -> None:
        self.current.alive = False
        self.current.finished = self.clock_ns() // SECOND
        self._notify()

    def back_off(self) -> None:
        self.die()
        self.waiting = True
        self._notify()

    def restart(self) -> None:
        if self.current.alive:
            self.die()
        self.waiting = False
        self.instances.append(Instance(len(self.instances)))
        self._notify()

    def cut(self) -> None:
        """End every stream cleanly, wherever it is: the kubelet's 4 hours are over, and the API server passes that on."""
        self._cuts += 1
        self._notify()

    def close(self, torn: bytes = b"") -> None:
        """Close every connection without the last chunk, behind the first bytes of one: the server's own deadline."""
        self._closes += 1
        self._torn = torn
        self._notify()

    def abort(self) -> None:
        """Break every connection without an end."""
        self._aborts += 1
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # the API

    def _refused(self, request: web.Request, *, forbidden: bool, resource: str) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        if forbidden:
            return _status(403, f'pods "web-0" is forbidden: cannot get resource "{resource}"')
        return None

    async def _pod(self, request: web.Request) -> web.Response:
        self.pod_requests += 1
        if refused := self._refused(request, forbidden=self.pods_forbidden, resource="pods"):
            return refused
        if self.pod_faults:
            fault = self.pod_faults.pop(0)
            return _status(fault.status, fault.message, fault.headers)
        mine: dict[str, object] = {"name": "app", "restartCount": self.current.number}
        if self.reported is not None:
            old = self.instances[self.reported]
            if self.reports is not None:
                self.reports -= 1
                self.reported = self.reported if self.reports else None
            mine |= {"restartCount": old.number, "state": {"running": {}}, "containerID": old.id}
            return web.json_response({"status": {"containerStatuses": [mine]}})
        before = self.instances[-2] if len(self.instances) > 1 else None
        if self.creating:
            mine["state"] = {"waiting": {"reason": "ContainerCreating"}}
        elif self.waiting:
            mine |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "containerID": self.current.id}
            before = self.current
        elif self.current.alive:
            mine |= {"state": {"running": {}}, "containerID": self.current.id}
        else:
            mine |= {"state": {"terminated": _terminated(self.current)}, "containerID": self.current.id}
        mine["lastState"] = {"terminated": _terminated(before)} if before else {}
        statuses = [] if self.creating else [mine]
        body = {"spec": {"containers": [{"name": "app"}]}, "status": {"containerStatuses": statuses}}
        return web.json_response(body)

    def _instance(self, query: dict[str, str]) -> Instance | web.Response:
        """Choose as the kubelet's validateContainerLogStatus does."""
        if query.get("container") != "app":
            return _status(400, f"container {query.get('container')} is not valid for pod web-0")
        if self.creating:
            return _status(400, 'container "app" in pod "web-0" is waiting to start: ContainerCreating')
        if query.get("previous") == "true":
            if self.waiting:
                return self.current
            if len(self.instances) < 2 or self.instances[-2].removed:
                return _status(400, 'previous terminated container "app" in pod "web-0" not found')
            return self.instances[-2]
        return self.current

    async def _log(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.query))
        if refused := self._refused(request, forbidden=self.logs_forbidden, resource="pods/log"):
            return refused
        if self.faults:
            fault = self.faults.pop(0)
            return _status(fault.status, fault.message, fault.headers)
        instance = self._instance(dict(request.query))
        if isinstance(instance, web.Response):
            return instance
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            await self._stream(request, response, instance)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, instance: Instance) -> None:
        cuts, aborts, closes = self._cuts, self._aborts, self._closes
        since = request.query.get("sinceTime")
        since_ns = int(datetime.fromisoformat(since).timestamp()) * SECOND if since else 0
        following = request.query.get("follow") == "true"
        begins = True  # a logical line begins here: a time stands before it
        if self.complaint:
            await response.write(self.complaint)
        number, place = len(instance.files) - 1, 0
        if "tailLines" in request.query:
            place = max(0, len(instance.files[-1]) - int(request.query["tailLines"]))
        while True:
            changed = self._changed
            if self._aborts != aborts:
                if request.transport is not None:  # else the client is gone
                    request.transport.abort()
                return
            if self._closes != closes:
                if request.transport is not None:
                    if self._torn:
                        request.transport.write(b"%x\r\n%s" % (len(self._torn) + 1, self._torn))
                    request.transport.close()
                return
            if self._cuts != cuts:
                return
            pieces = instance.files[number][place : self.blind_after if following else None]
            place += len(pieces)
            out = bytearray()
            for piece in pieces:
                if piece.ns < since_ns:
                    continue
                if begins:
                    out += rfc3339(piece.ns).encode() + b" "
                out += piece.content + (b"\n" if piece.ends else b"")
                begins = piece.ends
            if out:
                await response.write(bytes(out))
                continue
            if number < len(instance.files) - 1 and following:
                number, place = number + 1, 0
                continue
            if not following or not instance.alive:
                return
            await changed.wait()


def _terminated(instance: Instance) -> dict[str, object]:
    finished = rfc3339(instance.finished * SECOND)[:19] + "Z"
    return {"containerID": instance.id, "exitCode": 1, "finishedAt": finished}


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "message": message, "code": code}
    return web.Response(
        status=code, body=orjson.dumps(body), headers={"Content-Type": "application/json", **(headers or {})}
    )
