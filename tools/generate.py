"""Write what is generated: the JSON Schema of the configuration, and the README's tables of options and metrics.

Run `make generate` after changing an option or a metric; tests/unit/test_generate.py fails until it is done.
A table goes between `<!-- config:begin -->` and `<!-- config:end -->` (`metrics` likewise), where the README has these.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import config, routes, telemetry
from sidecar.metrics import durations, exposition

if TYPE_CHECKING:
    from sidecar.prometheus import Metric

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = Path("schemas/config.schema.json")
README = Path("README.md")
_OPTIONS = re.compile(r"(?<=<!-- config:begin -->\n).*?(?=<!-- config:end -->)", re.DOTALL)
_METRICS = re.compile(r"(?<=<!-- metrics:begin -->\n).*?(?=<!-- metrics:end -->)", re.DOTALL)
_TYPE = re.compile(r"# HELP (?P<name>\S+) (?P<text>.*)\n# TYPE \S+ (?P<type>\S+)")
_HTTP_LABELS = {"http_requests_total": "method, path, status"}


def schema() -> str:
    """Return the text of schemas/config.schema.json."""
    return json.dumps(config.json_schema(), indent=2, ensure_ascii=False) + "\n"


def readme(text: str) -> str:
    """Return the text with its tables replaced; unchanged where it has no markers."""
    text = _OPTIONS.sub(lambda _: f"\n{config.markdown_table()}\n", text)
    return _METRICS.sub(lambda _: f"\n{metrics_table()}\n", text)


def metrics_table() -> str:
    """Return every metric with its type, labels and meaning, as a first scrape has them."""
    told = telemetry.Telemetry(sinks=["loki"])
    requests = durations.Requests(durations.Config(), routes.Table([]), told)
    families: dict[str, Metric] = {}
    for family in told.registry.collect():
        families[family.name + ("_total" if family.type == "counter" else "")] = family
    rows = []
    text = exposition.Renderer(told.registry, requests).render(exposition.TEXT, None, gzip=False).decode()
    for match in _TYPE.finditer(text):
        name = match["name"]
        labels = _HTTP_LABELS.get(name, "method, path")
        if name in families:
            labels = ", ".join(_labels(families[name]))
        rows.append(f"| `{name}` | {match['type']} | {labels} | {match['text']} |")
    return "\n".join(["| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |", *rows])


def _labels(family: Metric) -> list[str]:
    open_labels = {"sidecar_format_records": ["format"], "sidecar_schema_violations": ["field", "rule"]}
    open_labels["sidecar_sink_pushes"] = ["sink", "status"]
    return list(family.samples[0].labels) if family.samples else open_labels[family.name]


def main() -> None:
    """Write the files."""
    (ROOT / SCHEMA).write_text(schema(), encoding="utf-8")
    if (ROOT / README).exists():
        text = (ROOT / README).read_text(encoding="utf-8")
        (ROOT / README).write_text(readme(text), encoding="utf-8")


if __name__ == "__main__":
    main()
