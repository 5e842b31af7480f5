"""Any value that a parser made can be written."""

from __future__ import annotations

import orjson
import pytest

from sidecar import jsontext


@pytest.mark.parametrize("value", [{}, [], {"a": [1, "ż\n", None, True, 1.5, {"b": {}}]}, [[], [[]], {}], "x"])
def test_a_value_of_any_depth_is_written_as_orjson_would(value):
    deep = value
    for _ in range(400):
        deep = {"k": [deep, 1]}

    text = jsontext.dumps(deep)

    assert jsontext.dumps(value) == orjson.dumps(value)
    assert text == b'{"k":[' * 400 + orjson.dumps(value) + b",1]}" * 400
