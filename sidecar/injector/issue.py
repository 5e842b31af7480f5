"""Give the webhook a certificate and the API server its authority: the chart's job and cron job.

Problem: certificates made while a chart is rendered change with every render, and those of a one-time job run out.
Promise: run as often as you like. A certificate with more than a third of its time left, for the same name, stays; else
a new one is made, and no call of the API server fails for it: the old authority stays trusted beside the new one until
the next renewal, and it is trusted before the certificate is shown. The Secret decides: the webhook's `caBundle` is
made to be what it says.
Refused: any permission beyond one Secret and one webhook configuration; telling what it wrote.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import ssl
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import SidecarError
from sidecar.injector import names, template, x509
from sidecar.telemetry import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

RENEW_AFTER = f"{names.DOMAIN}/renew-after"
HOST = f"{names.DOMAIN}/host"
_END = "-----END CERTIFICATE-----\n"
_SECONDS = 30.0  # for one call to the API server
_OK, _CREATED, _NOT_FOUND = 200, 201, 404


class ApiError(SidecarError):
    """The API server did not do what was asked."""


class Api(Protocol):
    """What is asked of the API server."""

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:  # noqa: ANN401  JSON
        """Return the status and the object of one request."""


@dataclass(frozen=True, slots=True)
class Server:
    """The API server as a pod reaches it, with the token of its service account."""

    host: str
    port: int
    folder: Path = field(default=Path(template.SERVICE_ACCOUNT))

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:  # noqa: ANN401  JSON
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=_SECONDS, context=context)
        token = (self.folder / "token").read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Content-Type": kind}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What there shall be."""

    namespace: str
    service: str
    secret: str
    webhook: str
    days: int

    @property
    def host(self) -> str:
        return f"{self.service}.{self.namespace}.svc"

    @property
    def secrets_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    @property
    def webhook_path(self) -> str:
        return f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{self.webhook}"


def run(wanted: Wanted, api: Api, now: datetime) -> bool:
    """Make both objects what they shall be; return whether there is a new certificate. Raises ApiError."""
    status, secret = api.call("GET", f"{wanted.secrets_path}/{wanted.secret}")
    if status not in (_OK, _NOT_FOUND):
        raise ApiError(f"cannot read the Secret {wanted.secret}: {_reason(status, secret)}")
    present = secret if status == _OK else None
    if present is not None and _lasts(present, wanted, now):
        _trust(wanted, api, _bundle(present))
        return False
    issued = x509.issue((wanted.host, f"{wanted.host}.cluster.local"), wanted.days, now)
    # Of what was trusted only the newest: one more authority than there are certificates in use.
    previous, end, _ = (_bundle(present) if present else "").partition(_END)
    bundle = issued.authority + previous + end
    renewed = _secret(wanted, issued, bundle, now)
    if present is None:
        _expect(api.call("POST", wanted.secrets_path, renewed), f"cannot make the Secret {wanted.secret}")
        _trust(wanted, api, bundle)
    else:
        _trust(wanted, api, bundle)  # before the certificate is shown
        # With the version that was read: two jobs at once must not each trust their own.
        renewed["metadata"]["resourceVersion"] = present["metadata"].get("resourceVersion", "")
        path = f"{wanted.secrets_path}/{wanted.secret}"
        _expect(api.call("PUT", path, renewed), f"cannot write the Secret {wanted.secret}")
    return True


def _lasts(secret: dict[str, Any], wanted: Wanted, now: datetime) -> bool:
    annotations = secret["metadata"].get("annotations") or {}
    try:
        renew_after = datetime.fromisoformat(annotations.get(RENEW_AFTER, ""))
    except ValueError:
        return False
    complete = {"tls.crt", "tls.key", "ca.crt"} <= (secret.get("data") or {}).keys()
    return complete and annotations.get(HOST) == wanted.host and renew_after.tzinfo is not None and now < renew_after


def _bundle(secret: dict[str, Any]) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get("ca.crt", "")).decode("ascii")
    except ValueError:
        return ""


def _secret(wanted: Wanted, issued: x509.Issued, bundle: str, now: datetime) -> dict[str, Any]:
    renew_after = issued.not_after - (issued.not_after - now) / 3
    texts = {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": bundle}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": wanted.secret,
            "namespace": wanted.namespace,
            "labels": {"app.kubernetes.io/name": "gin-sidecar", "app.kubernetes.io/managed-by": "gin-sidecar"},
            "annotations": {RENEW_AFTER: renew_after.isoformat(timespec="seconds"), HOST: wanted.host},
        },
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()},
    }


def _trust(wanted: Wanted, api: Api, bundle: str) -> None:
    """Write the bundle into every entry of the webhook configuration that has another one."""
    status, found = api.call("GET", wanted.webhook_path)
    if status != _OK:
        raise ApiError(f"cannot read the webhook configuration {wanted.webhook}: {_reason(status, found)}")
    encoded = base64.b64encode(bundle.encode()).decode()
    patch = []
    for place, one in enumerate(found.get("webhooks") or ()):
        if one["clientConfig"].get("caBundle") != encoded:
            # Entries are found by place: whoever reorders them meanwhile makes this fail, and the next try succeed.
            patch.append({"op": "test", "path": f"/webhooks/{place}/name", "value": one["name"]})
            patch.append({"op": "add", "path": f"/webhooks/{place}/clientConfig/caBundle", "value": encoded})
    if patch:
        answer = api.call("PATCH", wanted.webhook_path, patch, "application/json-patch+json")
        _expect(answer, f"cannot write the webhook configuration {wanted.webhook}")


def _expect(answer: tuple[int, Any], problem: str) -> None:
    if answer[0] not in (_OK, _CREATED):
        raise ApiError(f"{problem}: {_reason(*answer)}")


def _reason(status: int, answer: Any) -> str:  # noqa: ANN401  JSON
    message = answer.get("message", "") if isinstance(answer, dict) else ""
    return f"{status} {message}".strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once, in the cluster. 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.injector.issue", description="Issue the certificate.")
    for name in ("namespace", "service", "secret", "webhook"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--days", type=int, default=90)
    options = parser.parse_args(arguments)
    log = Log()
    api = Server(os.environ.get("KUBERNETES_SERVICE_HOST", ""), int(os.environ.get("KUBERNETES_SERVICE_PORT", "443")))
    wanted = Wanted(options.namespace, options.service, options.secret, options.webhook, options.days)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        renewed = run(wanted, api, now)
    except (ApiError, OSError) as error:
        log.error("certificate_not_issued", str(error))
        return 1
    said = (
        f"a new certificate, for {timedelta(days=wanted.days).days} days" if renewed else "the certificate still lasts"
    )
    log.info("certificate_issued" if renewed else "certificate_kept", said, host=wanted.host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
