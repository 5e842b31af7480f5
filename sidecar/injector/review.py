"""AdmissionReview in, AdmissionReview out: bytes to a decision, and the decision to bytes and one audit line.

Promise: whatever review this is, the answer allows the pod, carries the request's uid and the review's own apiVersion,
and has a patch only where there is something to change. The same request gets the same answer, dry run or not; nothing
is asked of anybody. Refused: to answer what is no review (the caller says 400), and to repeat any part of a pod in the
audit line but names: environment variables hold secrets.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from sidecar.injector import patch, settings

if TYPE_CHECKING:
    from sidecar.injector.patch import Decision
    from sidecar.injector.settings import Config

WARNING_CHARACTERS = 120  # the API server may cut longer ones
_NAME_CHARACTERS = 256  # of what the audit line repeats


class NotAReview(ValueError):  # noqa: N818  says what it is
    """The body is no AdmissionReview; the text says why."""


@dataclass(frozen=True, slots=True)
class Review:
    """A request for a decision."""

    api_version: str
    uid: str
    request: dict[str, Any]

    @property
    def namespace(self) -> str:
        """Return the namespace; a pod often has none of its own yet."""
        return text(self.request.get("namespace"))


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes to send, and the patch in them ("" where there is none)."""

    body: bytes
    patch: bytes


def parse(body: bytes) -> Review:
    """Return the review. Raises NotAReview."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotAReview(f"not JSON: {error.msg} at byte {error.pos}") from error
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise NotAReview("expected an object of kind AdmissionReview")
    version, request = document.get("apiVersion"), document.get("request")
    if not isinstance(version, str) or not version.startswith("admission.k8s.io/"):
        raise NotAReview('expected apiVersion "admission.k8s.io/v1"')
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise NotAReview("expected a request with a uid")
    return Review(version, request["uid"], request)


def decide(review: Review, config: Config, auto: str) -> Decision:
    """Decide about the object of a review. The API server's selectors have seen to it that its namespace opted in."""
    request = review.request
    kind = request.get("kind")
    resource = {"group": "", "version": "v1", "kind": "Pod"}
    if not isinstance(kind, dict) or {key: kind.get(key) for key in resource} != resource or request.get("subResource"):
        return patch.skipped("not_a_pod")
    if request.get("operation", "CREATE") != "CREATE":
        return patch.skipped("not_created")
    return patch.plan(request.get("object"), config, namespace=review.namespace, auto=auto, selected=True)


def answer(review: Review, decision: Decision) -> Answer:
    """Return the review's answer, which always allows."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": True}
    operations = orjson.dumps(decision.patch) if decision.patch else b""
    if operations:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(operations).decode("ascii")}
    if decision.warnings:
        response["warnings"] = [_short(warning) for warning in decision.warnings]
    said = {"decision": "injected" if decision.injected else "skipped", "reason": decision.reason}
    if decision.mode:
        said["mode"] = decision.mode
    response["auditAnnotations"] = said
    document = {"apiVersion": review.api_version, "kind": "AdmissionReview", "response": response}
    return Answer(orjson.dumps(document), operations)


def audit(review: Review, decision: Decision, given: Answer, config: Config, seconds: float) -> dict[str, object]:
    """Return the fields of the audit line: who asked for what, and what was decided. Names only, never content."""
    request = review.request
    user, metadata = request.get("userInfo"), _mapping(request.get("object")).get("metadata")
    return {
        "uid": text(review.uid),
        "namespace": review.namespace,
        "name": text(_mapping(metadata).get("name")),
        "generateName": text(_mapping(metadata).get("generateName")),
        "owner_kind": text(decision.workload.kind),
        "owner_name": text(decision.workload.name),
        "user": text(_mapping(user).get("username")),
        "operation": text(request.get("operation")),
        "dryRun": request.get("dryRun") is True,
        "decision": "injected" if decision.injected else "skipped",
        "reason": decision.reason,
        "mode": decision.mode,
        "container": decision.container,
        "native": decision.native,
        "image": settings.image(config) if decision.injected else "",
        "patch_sha256": hashlib.sha256(given.patch).hexdigest() if given.patch else "",
        "patch_bytes": len(given.patch),
        "duration_ms": round(seconds * 1000, 3),
    }


def text(value: object) -> str:
    """Return a name as far as it is one."""
    return value[:_NAME_CHARACTERS] if isinstance(value, str) else ""


def _short(warning: str) -> str:
    return warning if len(warning) <= WARNING_CHARACTERS else f"{warning[: WARNING_CHARACTERS - 1]}…"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
