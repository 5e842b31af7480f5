"""Write what is generated from the declared options: the JSON Schema of the configuration and the README's table.

Run `python -m tools.generate` after changing an option; tests/unit/test_generate.py fails until it is done.
The table goes between `<!-- config:begin -->` and `<!-- config:end -->`, where a file has these markers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from sidecar import config

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Path("schemas/config.schema.json")
README = Path("README.md")
_TABLE = re.compile(r"(?<=<!-- config:begin -->\n).*?(?=<!-- config:end -->)", re.DOTALL)


def schema() -> str:
    """Return the text of schemas/config.schema.json."""
    return json.dumps(config.json_schema(), indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """Return the text with its table of options replaced; unchanged where it has no markers."""
    return _TABLE.sub(lambda _: f"\n{config.markdown_table()}\n", text)


def main() -> None:
    """Write the files."""
    (ROOT / SCHEMA).write_text(schema(), encoding="utf-8")
    if (ROOT / README).exists():
        text = (ROOT / README).read_text(encoding="utf-8")
        (ROOT / README).write_text(readme(text), encoding="utf-8")


if __name__ == "__main__":
    main()
