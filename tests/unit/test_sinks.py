"""The table of sinks and the folder say the same."""

from __future__ import annotations

from pathlib import Path

import sidecar.sinks
from sidecar.sinks import SINKS


def test_every_module_in_the_folder_is_in_the_table():
    folder = Path(sidecar.sinks.__file__).parent

    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == SINKS.keys()


def test_a_sink_is_named_as_in_the_table():
    assert {name: kind.name for name, kind in SINKS.items()} == {name: name for name in SINKS}
