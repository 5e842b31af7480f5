"""`sidecar inject`: the same decision as the webhook's, for the workloads of a YAML stream.

Promise: one decision function with the webhook, so that a Deployment injected here equals its pods injected there. What
is not injected stays as it is, byte by byte; what is malformed is said with its line, and nothing is written. The
permissions that reading over the API server needs are written behind the workloads.
Refused: asking a cluster. What a namespace says is known only where it is part of the stream.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.errors import ConfigError, Problem
from sidecar.injector import names, patch, settings, workloads, yamlstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.injector.settings import Config
    from sidecar.settings import yamltree

EXIT_WOULD_CHANGE = 3
_DEFAULT = "default"  # the namespace of what names none, where nobody says otherwise


@dataclass(frozen=True, slots=True)
class Asked:
    """How the command was called."""

    files: tuple[str, ...] = ("-",)
    namespace: str = ""  # of what names none; "" where nobody says
    everything: bool = False
    check: bool = False
    output: str = "yaml"


@dataclass(frozen=True, slots=True)
class Change:
    """One workload that gets the sidecar."""

    name: str  # "Deployment/shop"
    patch: list[dict[str, Any]]  # of the whole document
    namespace: str  # as the workload says; "" where it says none
    service_account: str
    mode: str
    place: str  # "stdin line 12": the document's first line


@dataclass(frozen=True, slots=True)
class Result:
    """What becomes of streams."""

    text: str
    changes: list[Change]
    permissions: list[dict[str, Any]]  # what the changes need and the streams do not have
    warnings: list[str]


def run(asked: Asked, config: Config) -> int:
    """Inject, write, and return the exit code."""
    streams, problems = [], []
    for file in asked.files:
        name = "stdin" if file == "-" else file
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        stream, found = yamlstream.decode(data, name)
        streams.append((name, stream))
        problems += found
    if problems:
        raise ConfigError(problems)
    result = inject(streams, config, asked)
    for warning in result.warnings:
        print(f"sidecar: {warning}", file=sys.stderr)  # noqa: T201  a command's own words
    if asked.check:
        for change in result.changes:
            print(f"sidecar: {change.name} would change", file=sys.stderr)  # noqa: T201
        return EXIT_WOULD_CHANGE if result.changes else 0
    sys.stdout.buffer.write((_patches(result) if asked.output == "patch" else result.text).encode())
    sys.stdout.buffer.flush()
    return 0


def _patches(result: Result) -> str:
    """Return one line of JSON per workload, which says whose patch it is, and per permission, which is new."""
    lines: list[dict[str, Any]] = [
        {"document": one.place, "workload": one.name, "namespace": one.namespace, "patch": one.patch}
        for one in result.changes
    ]
    lines += [{"create": permission} for permission in result.permissions]
    return "".join(f"{json.dumps(line, separators=(',', ':'), ensure_ascii=False)}\n" for line in lines)


def inject(streams: Sequence[tuple[str, str]], config: Config, asked: Asked) -> Result:
    """Return streams, each with its name, as one, with the sidecar in its workloads.

    Raises ConfigError with everything that is malformed.
    """
    documents = [(name, document) for name, stream in streams for document in yamlstream.split(stream)]
    read = [yamlstream.read(document, name) for name, document in documents]
    problems = [problem for _, found in read for problem in found]
    roots = [root for root, _ in read]
    injector = _Injector(config, asked, {} if problems else dict(_namespaces(roots)))
    texts = []
    for (name, document), root in zip(documents, roots, strict=True):
        interesting = not problems and any(_is_workload(item) for item in _items(root))
        texts.append(injector.document(document, name) if interesting else document.text)
    if problems or injector.problems:
        raise ConfigError([*problems, *injector.problems])
    present = {_identity(item) for root in roots for item in _items(root)}
    missing = [
        one
        for one in permissions(injector.changes, asked.namespace)
        if (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) not in present
    ]
    warnings = injector.warnings
    if not asked.namespace and any("namespace" not in one["metadata"] for one in missing):
        text = 'say -n NAMESPACE: a RoleBinding names the namespace of its service account, which is now "default"'
        warnings = [*warnings, text]
    return Result(yamlstream.joined(texts, missing), injector.changes, missing, warnings)


def permissions(changes: list[Change], otherwise: str = "") -> Iterator[dict[str, Any]]:
    """Return what lets sidecars of mode `api` read logs: `get` of `pods/log` and nothing else, per service account.

    What a workload leaves to whoever applies it, its namespace, they leave too; `otherwise` is what that will be.
    """
    accounts = sorted({(change.namespace, change.service_account) for change in changes if change.mode == "api"})
    yield from (role(namespace) for namespace in sorted({namespace for namespace, _ in accounts}))
    yield from (binding(namespace, account, otherwise or _DEFAULT) for namespace, account in accounts)


def role(namespace: str) -> dict[str, Any]:
    """Return the Role of sidecars that read over the API server."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(names.ROLE, namespace),
        "rules": [{"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}],
    }


def binding(namespace: str, service_account: str, otherwise: str = "") -> dict[str, Any]:
    """Return what gives that Role to one service account; one object each, so that none overwrites another's."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(f"{names.ROLE}-{service_account}", namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": names.ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace or otherwise}],
    }


def _metadata(name: str, namespace: str) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    return {"name": name, **where, "labels": {"app.kubernetes.io/name": "gin-sidecar"}}


class _Injector:
    """Goes through the documents with workloads and keeps what there is to say about them."""

    def __init__(self, config: Config, asked: Asked, namespaces: dict[str, dict[str, str]]) -> None:
        self._config = config
        self._asked = asked
        self._namespaces = namespaces
        self.changes: list[Change] = []
        self.warnings: list[str] = []
        self.problems: list[Problem] = []

    def document(self, document: yamlstream.Document, stream: str) -> str:
        """Return the text of a document, changed where one of its workloads is."""
        place = f"{stream} line {document.line}"
        try:
            editable = yamlstream.Editable(document)
        except yamlstream.TooLarge:
            self.problems.append(Problem(place, "too large with its aliases written out"))
            return document.text
        root = editable.value
        items = root.get("items") if _is_list(root.get("kind")) else None
        todo = [(f"/items/{at}", one) for at, one in enumerate(items)] if isinstance(items, list) else [("", root)]
        changed = False
        for prefix, manifest in todo:
            if isinstance(manifest, dict) and (change := self._workload(manifest, prefix, place)):
                editable.add(change.patch)
                self.changes.append(change)
                changed = True
        return editable.text() if changed else document.text

    def _workload(self, manifest: dict[str, Any], prefix: str, place: str) -> Change | None:
        path = workloads.template_path(manifest)
        if path is None:
            return None
        said = manifest.get("metadata")
        metadata: dict[str, Any] = said if isinstance(said, dict) else {}
        name = f"{manifest['kind']}/{metadata.get('name') or metadata.get('generateName') or '?'}"
        pod: Any = manifest
        for part in path:
            pod = pod.get(part) if isinstance(pod, dict) else None
        said = metadata.get("namespace")
        own = said if isinstance(said, str) else ""
        namespace = own or self._asked.namespace or _DEFAULT
        labels = self._namespaces.get(namespace, {})
        selected = self._asked.everything or labels.get(names.INJECT) == "true"
        decision = patch.plan(
            pod,
            self._config,
            namespace=namespace,
            auto="api" if labels.get(names.POD_SECURITY) in names.NO_HOST_PATH else "cri",
            selected=selected,
            workload=_owner(manifest, metadata) if path else None,
        )
        if decision.reason == "malformed_pod":
            if selected or _mentions(pod):
                self.problems += [Problem(f"{place}: {name}", warning) for warning in decision.warnings]
            return None
        self.warnings += [f"{name}: {warning.removeprefix('gin-sidecar: ')}" for warning in decision.warnings]
        if path:
            self.warnings += [f"{name}: {warning}" for warning in _misplaced(metadata, pod, path)]
        if decision.reason == "already_injected" and (image := _other_image(pod, settings.image(self._config))):
            text = f"already injected, with {image}; it stays: take the sidecar out, or inject the original"
            self.warnings.append(f"{name}: {text}")
        if not decision.injected:
            return None
        at = prefix + "".join(f"/{part}" for part in path)
        operations = [{**operation, "path": at + operation["path"]} for operation in decision.patch]
        account = pod["spec"].get("serviceAccountName") or pod["spec"].get("serviceAccount") or "default"
        return Change(name, operations, own, str(account), decision.mode, place)


def configured(config: Config, *, image: str, log_mode: str) -> Config:
    """Return the settings with what the command line says. Raises ConfigError."""
    if image:
        if any(character.isspace() for character in image):
            raise ConfigError([Problem("--image", 'expected an image such as "registry.example/gin-sidecar:v1.2.0"')])
        config = replace(config, image=image)
    return replace(config, defaults=replace(config.defaults, log_mode=log_mode)) if log_mode else config


def _misplaced(metadata: dict[str, Any], pod: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Return what is said on a workload itself, where nobody reads it, and not on its pods."""
    template = pod.get("metadata") or {}
    for member, what in (("labels", "label"), ("annotations", "annotation")):
        said, read = metadata.get(member), template.get(member) or {}
        for key in said if isinstance(said, dict) else ():
            ours = key == names.INJECT if member == "labels" else str(key).startswith(f"{names.DOMAIN}/")
            if ours and key not in read:
                yield f"{what} {key} belongs on the pods: move it to {'.'.join(path)}.metadata.{member}"


def _other_image(pod: dict[str, Any], image: str) -> str:
    """Return the image of the sidecar that a pod has; "" where it is the one that it would get."""
    every = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
    present = next((str(one.get("image")) for one in every if one["name"] == names.CONTAINER), image)
    return "" if present == image else present


def _owner(manifest: dict[str, Any], metadata: dict[str, Any]) -> workloads.Workload:
    name = metadata.get("name") or (metadata.get("generateName") or "").removesuffix("-")
    return workloads.Workload(manifest["kind"], name if isinstance(name, str) else "")


def _mentions(pod: Any) -> bool:  # noqa: ANN401  whatever JSON holds
    """Say whether a pod that is not made as one has our label all the same."""
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return isinstance(labels, dict) and names.INJECT in labels


def _is_list(kind: object) -> bool:
    return isinstance(kind, str) and kind.endswith("List")


def _items(root: yamltree.Node) -> list[dict[str, yamltree.Node]]:
    """Return the objects of a document: itself, or the items of a List."""
    if not isinstance(root.value, dict):
        return []
    kind, items = root.value.get("kind"), root.value.get("items")
    if kind is not None and _is_list(kind.value) and items is not None and isinstance(items.value, list):
        return [item.value for item in items.value if isinstance(item.value, dict)]
    return [root.value]


def _text(item: dict[str, yamltree.Node], *path: str) -> str:
    node: Any = item
    for part in path:
        member = node.get(part) if isinstance(node, dict) else None
        node = member.value if member is not None else None
    return node if isinstance(node, str) else ""


def _is_workload(item: dict[str, yamltree.Node]) -> bool:
    version, kind = _text(item, "apiVersion"), _text(item, "kind")
    return workloads.template_path({"apiVersion": version, "kind": kind}) is not None


def _identity(item: dict[str, yamltree.Node]) -> tuple[str, str, str]:
    return _text(item, "kind"), _text(item, "metadata", "namespace"), _text(item, "metadata", "name")


def _namespaces(roots: list[yamltree.Node]) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the labels of the namespaces that are part of the stream."""
    for root in roots:
        for item in _items(root):
            if _text(item, "kind") == "Namespace" and _text(item, "apiVersion") == "v1":
                known = (names.INJECT, names.POD_SECURITY)
                yield _text(item, "metadata", "name"), {n: _text(item, "metadata", "labels", n) for n in known}
