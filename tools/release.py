"""The last step of a release: give the digest that passed every gate its tags, and write down who did it.

Problem: CI actions push tags before the gates have spoken, overwrite them on a re-run, and leave no record of it.
Promise: `tag` asks the registry what stands, lets `tagplan` decide, writes what is missing, reads back that every tag
names the digest, and appends one audit record (schemas/audit-log.schema.json) whatever came of it, a refusal included.
`check` refuses a version tag that the package, the chart and the changelog do not agree with.
Refused: building, signing, deleting, and credentials: skopeo finds those where `docker login` left them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tools import tagplan
from tools.tagplan import Event, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
_SERVICE = "gin-sidecar-release"
_ACTIONS = {
    Event.RELEASE: "release",
    Event.PROMOTION: "promote",
    Event.DEFAULT_BRANCH: "snapshot",
    Event.BRANCH: "snapshot",
}
_SECONDS = 300  # for one call to the registry
# Exactly what registries answer, and nothing that any other failure could say: a tag taken for absent would be
# overwritten.
_NO_REPOSITORY = re.compile(r"name[ _]unknown|repository name not known|\b404 \(Not Found\)", re.IGNORECASE)
_NO_MANIFEST = re.compile(r"manifest[ _]unknown", re.IGNORECASE)


class RegistryError(Exception):
    """The registry did not do what was asked."""


class Registry(Protocol):
    """One repository of a registry."""

    def tags(self) -> list[str]:
        """Return the names of all tags; none where the repository does not exist yet."""

    def digest(self, tag: str) -> str:
        """Return the digest a tag stands on, "" where there is no such tag."""

    def write(self, digest: str, tag: str) -> None:
        """Let the tag name the digest, with every platform of it."""


@dataclass(frozen=True, slots=True)
class Skopeo:
    """A repository, through the skopeo command."""

    image: str
    plain_http: bool = False  # for a registry on this machine

    def tags(self) -> list[str]:
        done = self._run("list-tags", *self._tls(), f"docker://{self.image}")
        if done.returncode and _NO_REPOSITORY.search(done.stderr):
            return []
        return list(json.loads(_output(done))["Tags"])

    def digest(self, tag: str) -> str:
        done = self._run("inspect", "--raw", *self._tls(), f"docker://{self.image}:{tag}", text=False)
        if done.returncode and (_NO_MANIFEST.search(done.stderr) or _NO_REPOSITORY.search(done.stderr)):
            return ""
        # The digest of an index is that of its bytes; `inspect` itself would choose one platform of it.
        return f"sha256:{hashlib.sha256(_output(done)).hexdigest()}"

    def write(self, digest: str, tag: str) -> None:
        source, target = self._tls("src-"), self._tls("dest-")
        names = (f"docker://{self.image}@{digest}", f"docker://{self.image}:{tag}")
        _output(self._run("copy", "--all", "--preserve-digests", "--quiet", *source, *target, *names))

    def _tls(self, side: str = "") -> tuple[str, ...]:
        return (f"--{side}tls-verify=false",) if self.plain_http else ()

    def _run(self, *arguments: str, text: bool = True) -> subprocess.CompletedProcess[Any]:
        done = subprocess.run(["skopeo", *arguments], capture_output=True, check=False, timeout=_SECONDS)  # noqa: S603, S607  no shell
        out = done.stdout.decode() if text else done.stdout
        return subprocess.CompletedProcess(done.args, done.returncode, out, done.stderr.decode(errors="replace"))


def _output(done: subprocess.CompletedProcess[Any]) -> Any:  # noqa: ANN401  text or bytes, as asked for
    if done.returncode:
        raise RegistryError(f"skopeo {done.args[1]}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Request:
    """Who wants what tagged."""

    event: Event
    ref: str
    digest: str
    image: str
    actor: str
    commit: str = ""
    environment: str = ""
    run_url: str = ""


def tag(request: Request, registry: Registry, git_tags: Sequence[str] = ()) -> tuple[tagplan.Plan, dict[str, str]]:
    """Write the tags of the request. Return the plan, and the digest each moved tag stood on before.

    Raises Refusal before anything is written, RegistryError where the registry fails or another writer was faster.
    """
    names = registry.tags()
    asked = [*tagplan.candidates(request.event, request.ref, request.commit, environment=request.environment)]
    asked += [tagplan.LATEST] if request.event is Event.RELEASE else []
    asked += [request.ref] if request.event is Event.PROMOTION else []
    # Asked one by one and not only where the list has them: some registries list late.
    existing = {name: digest for name in asked if (digest := registry.digest(name))}
    plan = tagplan.plan(
        request.event,
        request.ref,
        request.digest,
        existing,
        commit=request.commit,
        environment=request.environment,
        versions=[*names, *git_tags],
    )
    for name in plan.write:
        registry.write(request.digest, name)
        if (now := registry.digest(name)) != request.digest:
            raise RegistryError(f"{name} was written and is {now or 'not there'}: does somebody else write tags?")
    return plan, {name: existing[name] for name in plan.move}


def audit_record(
    request: Request,
    outcome: str,
    *,
    now: datetime,
    tags: Sequence[str] = (),
    previous: Mapping[str, str] | None = None,
    error: str = "",
) -> dict[str, Any]:
    """Return the audit record: a structured log line of its own kind, so that our own sidecar can collect it."""
    action = _ACTIONS[request.event]
    # One release is one trace: every record of a CI run carries the id that its address gives.
    seed = hashlib.sha256(request.run_url.encode()).hexdigest() if request.run_url else secrets.token_hex(32)
    done = f"{action} of {request.ref}" + (f" to {request.environment}" if request.environment else "")
    record: dict[str, Any] = {
        "timestamp": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "info" if outcome == "success" else "error",
        "service_name": _SERVICE,
        "trace_id": seed[:32],
        "message": f"{done} by {request.actor}: {outcome}",
        "event": "audit",
        "action": action,
        "outcome": outcome,
        "actor": request.actor,
        "image": request.image,
        "digest": request.digest,
        "tags": list(tags),
        "ref": request.ref,
    }
    optional = {
        "commit": request.commit,
        "environment": request.environment,
        "run_url": request.run_url,
        "previous": dict(previous or {}),
        "error": error,
    }
    return record | {name: value for name, value in optional.items() if value}


def versions(root: Path = ROOT) -> dict[str, str]:
    """Return every place that names the version of the product, with the version it names."""

    def found(path: str, pattern: str) -> str:
        match = re.search(pattern, (root / path).read_text(encoding="utf-8"), re.MULTILINE)
        return match[1] if match else ""

    chart = "helm/gin-sidecar/Chart.yaml"
    return {
        "sidecar/__init__.py": found("sidecar/__init__.py", r'^__version__ = "([^"]+)"'),
        f"{chart} version": found(chart, r'^version: "?([^"\s]+)"?$'),
        f"{chart} appVersion": found(chart, r'^appVersion: "?([^"\s]+)"?$'),
    }


def check(ref: str, root: Path = ROOT) -> list[str]:
    """Return what stands in the way of releasing this git tag."""
    try:
        version = tagplan.parse_tag(ref)
    except Refusal as refusal:
        return [str(refusal)]
    wrong = [f"{place} says {said or 'nothing'}" for place, said in versions(root).items() if said != str(version)]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if version.stable and not re.search(rf"^## \[{re.escape(str(version))}\]", changelog, re.MULTILINE):
        wrong.append(f"CHANGELOG.md has no section [{version}]")
    return wrong


def manifest(image: str, registry: Registry) -> dict[str, dict[str, dict[str, str]]]:
    """Return every version and promotion with its digest, as helm/policies/main.rego compares images with."""
    tags = {name: registry.digest(name) for name in sorted(registry.tags()) if name.startswith("v")}
    return {"release": {image: tags}}


def notes(ref: str, root: Path = ROOT) -> str:
    """Return the changelog's section of a version; of a pre-release what is not released yet."""
    version = tagplan.parse_tag(ref)
    title = str(version) if version.stable else "Unreleased"
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## \[{re.escape(title)}\][^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section[1].strip() + "\n" if section else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 done, 1 refused or failed, 2 usage."""
    options = _parser().parse_args(arguments)
    match options.command:
        case "check":
            problems = check(options.ref)
            for problem in problems:
                print(f"release: {problem}", file=sys.stderr)  # noqa: T201  a command
            return 1 if problems else 0
        case "notes":
            print(notes(options.ref), end="")  # noqa: T201  a command
            return 0
        case "manifest":
            print(json.dumps(manifest(options.image, _repository(options)), indent=2))  # noqa: T201  a command
            return 0
        case "digest":
            digest = _repository(options).digest(options.tag)
            print(digest or f"release: there is no {options.tag}", file=sys.stdout if digest else sys.stderr)
            return 0 if digest else 1
    return _tag(options)


def _repository(options: argparse.Namespace) -> Skopeo:
    return Skopeo(options.image, plain_http=options.plain_http)


def _tag(options: argparse.Namespace) -> int:
    request = Request(
        event=Event(options.event),
        ref=options.ref,
        digest=options.digest,
        image=options.image,
        actor=options.actor,
        commit=options.commit,
        environment=options.environment,
        run_url=options.run_url,
    )
    try:
        plan, previous = tag(request, _repository(options), options.git_tag)
        record = audit_record(request, "success", now=datetime.now(UTC), tags=plan.write, previous=previous)
    except Refusal as refusal:
        record = audit_record(request, "refused", now=datetime.now(UTC), error=str(refusal))
    except (RegistryError, subprocess.TimeoutExpired, OSError) as error:
        record = audit_record(request, "failed", now=datetime.now(UTC), error=str(error))
    line = json.dumps(record, ensure_ascii=False)
    print(line)  # noqa: T201  a command
    if options.audit:
        with options.audit.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return 0 if record["outcome"] == "success" else 1


def _digest(text: str) -> str:
    if not tagplan.DIGEST.fullmatch(text):
        raise argparse.ArgumentTypeError("expected sha256: and 64 hexadecimal digits")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="do package, chart and changelog agree with this git tag?")
    checking.add_argument("ref", help="a git tag such as v1.2.0")
    telling = commands.add_parser("notes", help="the changelog's section of a git tag")
    telling.add_argument("ref", help="a git tag such as v1.2.0")
    listing = commands.add_parser("manifest", help="every released tag with its digest, as JSON")
    asking = commands.add_parser("digest", help="the digest a tag stands on")
    asking.add_argument("--tag", required=True)
    tagging = commands.add_parser("tag", help="give a digest the tags of an event")
    tagging.add_argument("--event", required=True, choices=[event.value for event in Event])
    tagging.add_argument("--ref", required=True, help="the git tag or branch")
    tagging.add_argument("--digest", required=True, type=_digest, help="what passed the gates, sha256:...")
    for one in (listing, asking, tagging):
        one.add_argument("--image", required=True, help="the repository, such as ghcr.io/gin-sidecar/gin-sidecar")
        one.add_argument("--plain-http", action="store_true", help="for a registry on this machine")
    tagging.add_argument("--actor", required=True, help="who started this")
    tagging.add_argument("--commit", default="", help="the full commit id")
    tagging.add_argument("--environment", default="", choices=("", *tagplan.ENVIRONMENTS), help="of a promotion")
    tagging.add_argument("--run-url", default="", help="where to read how it went")
    tagging.add_argument("--git-tag", action="append", default=[], help="a tag of git that counts for `latest`")
    tagging.add_argument("--audit", type=Path, help="append the audit record to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
