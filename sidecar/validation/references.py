"""The references of a JSON Schema (`$ref` and its kin), all resolved when the schema is loaded.

Problem: jsonschema resolves a reference at the first line that needs it, and would fetch a remote one over the network.
Promise: a reference that leads nowhere is named before the first line is read; what a schema may refer to is itself,
its own parts, and the meta-schemas that jsonschema carries.
Refused: to fetch anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from referencing import exceptions, jsonschema

if TYPE_CHECKING:
    from referencing import Registry, Resource
    from referencing._core import Resolver

_KEYWORDS = ("$ref", "$dynamicRef", "$recursiveRef")


def registry() -> Registry[Any]:
    """Return what references may lead to outside of their own document."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # noqa: PLC0415  reads a dozen files

    known: Registry[Any] = REGISTRY
    return known


def broken(document: object) -> str | None:
    """Say which reference of a schema document leads nowhere, or None."""
    dialect = str(document.get("$schema", "")) if isinstance(document, dict) else ""
    specification = jsonschema.specification_with(dialect, default=jsonschema.DRAFT202012)
    root: Resource[Any] = specification.create_resource(document)
    waiting: list[tuple[Any, Resolver[Any]]] = [(document, registry().resolver_with_root(root))]
    seen: set[int] = set()
    while waiting:
        node, resolver = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        for keyword in _KEYWORDS:
            reference = node.get(keyword)
            if not isinstance(reference, str):
                continue
            try:
                target = resolver.lookup(reference)
            except (exceptions.Unresolvable, ValueError):
                return (
                    f"has a {keyword} that leads nowhere: {reference!r}; expected a place in this document, "
                    "such as '#/$defs/name' (nothing is fetched)"
                )
            waiting.append((target.contents, target.resolver))
        parts = specification.create_resource(node).subresources()
        waiting += [(part.contents, resolver.in_subresource(part)) for part in parts]
    return None
