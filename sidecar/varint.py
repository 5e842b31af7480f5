"""Numbers of variable length, as protobuf and snappy write them: seven bits a byte, the lowest first.

Written by hand in two places of the sidecar, because the protobuf package costs more memory than a sidecar may spend.
Small numbers, nearly all there are, take a look into a table.
"""

from __future__ import annotations

_ONE_BYTE = [bytes((number,)) for number in range(0x80)]


def encode(number: int) -> bytes:
    """Return the bytes of a number ≥ 0."""
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
