"""Ask the Rego policies about an object, in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = programs.ROOT / "helm" / "policies"


def load(
    data: Mapping[str, Any] | None = None,
    *,
    modules: Mapping[str, str] | None = None,
    query: str = "data.main.deny",
) -> Callable[[Any], list[Any]]:
    """Return a function from an object to what is denied of it."""
    regopy = pytest.importorskip("regopy", reason="not installed: make e2e installs it")
    rego = regopy.Interpreter()
    for name, text in (modules or {path.name: path.read_text() for path in FOLDER.glob("*.rego")}).items():
        rego.add_module(name, text)
    rego.add_data_json(json.dumps(data or {}))

    def ask(one: Any) -> list[Any]:
        rego.set_input_term(json.dumps(one))
        said = json.loads(str(rego.query(f"found = {query}")))
        return list(said["bindings"]["found"])

    return ask
