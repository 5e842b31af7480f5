"""Audit records: who did what to which image, as `tools.release` writes them (schemas/audit-log.schema.json)."""

from __future__ import annotations

from sidecar.formats.format import Format, has

AUDIT = Format(name="audit", when=has("action", "actor", "digest", "outcome", "trace_id"))
