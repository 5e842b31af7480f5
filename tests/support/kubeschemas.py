"""Kubernetes' own schemas as kubeconform reads them, made from those of the package kubernetes-validate.

kubeconform reads YAML as kubectl does (`image: y` is a boolean there), which the Python validator does not; it would
fetch its schemas from the internet. Those of the package stand on one definitions file under an absolute path and name
themselves by addresses: both are rewritten, nothing else is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import programs

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFINITIONS = "_definitions.json"


def written(version: str, kinds: Iterable[tuple[str, str]], folder: Path) -> str:
    """Write the strict schemas of these (apiVersion, kind) into a folder; return the location to give to kubeconform.

    A kind that the version does not have gets no schema, which kubeconform then says.
    """
    package = pytest.importorskip("kubernetes_validate", reason="not installed: make e2e installs it")
    source = Path(package.__file__).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = folder / DEFINITIONS
    if not definitions.exists():
        whole = json.loads((source / DEFINITIONS).read_text())
        definitions.write_text(json.dumps(_rewritten(whole, definitions.as_uri())))
    for api, kind in kinds:
        group, _, release = api.rpartition("/")
        name = "-".join(part for part in (kind.lower(), group.split(".")[0], release) if part) + ".json"
        if (source / name).is_file():
            schema = json.loads((source / name).read_text())
            (folder / name).write_text(json.dumps(_rewritten(schema, definitions.as_uri())))
    return f"{folder}{os.sep}{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"


def _rewritten(node: Any, definitions: str) -> Any:
    if isinstance(node, list):
        return [_rewritten(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {}
    for key, value in node.items():
        if key == "$id" and isinstance(value, str):
            continue
        if key == "$ref" and isinstance(value, str):
            changed[key] = value.replace(f"/api/{DEFINITIONS}", definitions)
        else:
            changed[key] = _rewritten(value, definitions)
    return changed


def conform(version: str, stream: Path, location: str, skipped: Iterable[str] = ()) -> dict[str, Any]:
    """Return kubeconform's verdict on a YAML stream."""
    done = programs.run(
        "kubeconform",
        "-strict",
        *("-output", "json", "-verbose", "-summary"),
        *("-kubernetes-version", f"{version}.0"),
        *("-schema-location", location),
        *(("-skip", ",".join(skipped)) if skipped else ()),
        stream,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)
