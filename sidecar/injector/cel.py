"""Values and trees of the template, written in CEL, the language of admission policies.

Kubernetes wants the values of a map and the items of a list to be of one type; `dyn` makes them so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sidecar.injector.template import Choice, Rest, Var, When

if TYPE_CHECKING:
    from collections.abc import Iterator


def write(node: Any) -> str:  # noqa: ANN401  JSON, or a tree of the template
    """Write a value or a tree of the template as CEL.

    Members of a mapping that are there on a condition are left out: CEL has no way to say them in one literal, so the
    policy adds them by operations of their own.
    """
    match node:
        case Var(name):
            return f"variables.{name}"
        case Choice(flag, yes, no):
            return f"(variables.{flag} ? {write(yes)} : {write(no)})"
        case dict():
            pairs = (f"{write(key)}: dyn({write(value)})" for key, value in node.items() if not isinstance(value, When))
            return "{" + ", ".join(pairs) + "}"
        case list():
            return " + ".join(_segments(node)) or "[]"
        case _:
            return json.dumps(node)


def _segments(items: list[Any]) -> Iterator[str]:
    """Return the lists that together are the list."""
    plain: list[str] = []
    for item in [*items, None]:
        if item is not None and not isinstance(item, When | Rest):
            plain.append(write(item))
            continue
        if plain:
            yield f"[{', '.join(plain)}]"
            plain = []
        match item:
            case When(flag, value):
                yield f"(variables.{flag} ? [{write(value)}] : [])"
            case Rest(name):
                yield f"variables.{name}"
