"""What no other format claims: our own canonical records, JSON of any shape, and text."""

from __future__ import annotations

from sidecar.formats.format import Dialect, Fields, Format, anyhow
from sidecar.units import Unit


def text(line: str) -> Fields:
    """Take a line as its own message."""
    return {"message": line.rstrip("\r\n")}


CANONICAL = Format(
    name="canonical",
    when=lambda keys: keys >= {"timestamp", "level", "servicename"},
    precision=4,
    integer=Unit.UNKNOWN,
)
JSON = Format(name="json", when=anyhow, precision=3)
TEXT = Dialect(parse=text, formats=(Format(name="text"),))
