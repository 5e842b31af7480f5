"""Numbers of variable length."""

from __future__ import annotations

import pytest

from sidecar import varint
from tests.support import loki_wire


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16383, 16384, 2**31, 2**63 - 1, 2**64 - 1])
def test_they_read_back(number):
    written = varint.encode(number)

    assert loki_wire.varint(written, 0) == (number, len(written))


@pytest.mark.parametrize(("number", "size"), [(0x7F, 1), (0x80, 2), (0x3FFF, 2), (0x4000, 3)])
def test_they_take_no_more_bytes_than_they_need(number, size):
    assert len(varint.encode(number)) == size
