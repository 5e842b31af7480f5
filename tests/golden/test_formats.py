"""Every format has a golden file of lines that real programs printed, with the records they become."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from sidecar import formats
from tests.support import golden

FILES = sorted((Path(__file__).parent / "formats").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_lines_become_the_expected_records(path, update_golden):
    golden.check(path, update=update_golden)


@pytest.mark.parametrize("name", formats.NAMES)
def test_every_format_has_a_golden_file_that_shows_it(name):
    path = Path(__file__).parent / "formats" / f"{name}.txt"

    shown = [orjson.loads(row[2:])["format"] for row in path.read_bytes().split(b"\n") if row.startswith(b"= ")]

    assert name in shown


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_normalizing_a_record_again_changes_nothing(path):
    texts = golden.read(path)
    first = golden.normalizer().normalize(golden.assemble(texts)).records

    for record in first:
        again = golden.normalizer().normalize(golden.assemble([record.line])).records

        assert [each.line for each in again] == [record.line]
        assert again[0].level == record.level
