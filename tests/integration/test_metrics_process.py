"""What the metrics layer costs and needs as a process of its own: each test runs a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20


def run(program: str, **environment: str) -> dict:
    """Run a program in a fresh interpreter and return the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


RESIDENT = """
import gc, json, sys
def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
"""

ATTACK = (
    RESIDENT
    + """
from sidecar import routes, telemetry
from sidecar.metrics import durations, exposition
from sidecar.model import RequestGroup

talk = telemetry.Telemetry(log=telemetry.Log(open("/dev/null", "w")))
requests = durations.Requests(durations.Config(), routes.Table(), talk)
renderer = exposition.Renderer(talk.registry, requests)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "BREW")

def attack(first, count):
    for start in range(first, first + count, 1000):
        groups = {}
        for number in range(start, start + 1000):
            status = (200, 404, 500)[number % 3]
            path = f"/scan/{number}x/{number * 7919 % 1000003}y?q={number}"
            groups[METHODS[number % 6], "", path, status] = RequestGroup([1.0 + number % 50], [f"{number:032x}"])
        requests.observe(groups)

attack(0, 20_000)  # the cap is full, every cache has been full once
renderer.render(exposition.TEXT)
before = resident()
attack(20_000, 100_000)
renderer.render(exposition.TEXT)
grown = resident() - before
sets = requests.all()
print(json.dumps({
    "grown": grown,
    "sets": len(sets),
    "paths": len({one.path for one in sets}),
    "observed": sum(one.count for one in sets),
    "counted": sum(sum(one.statuses.values()) for one in sets),
    "overflow": talk.registry.get_sample_value("sidecar_label_overflow_total", {"label": "path"}),
}))
"""
)


def test_rule_22_a_scan_of_100_000_paths_costs_a_bounded_number_of_label_sets_and_no_memory() -> None:
    told = run(ATTACK)

    assert told["sets"] <= 400 + 20
    assert told["paths"] <= 300 + 2
    assert told["observed"] == told["counted"] == 120_000
    assert told["overflow"] > 70_000
    assert told["grown"] < 5 * MIB


FOOTPRINT = (
    RESIDENT
    + """
import prometheus_client, prometheus_client.openmetrics.exposition, orjson, asyncio, zlib
before = resident()
from sidecar import routes
from sidecar.metrics import durations, exposition
grown = resident() - before
from sidecar import telemetry
talk = telemetry.Telemetry()
requests = durations.Requests(durations.Config(), routes.Table(), talk)
for form in (exposition.TEXT, exposition.PROTOBUF, exposition.negotiate("application/openmetrics-text")):
    exposition.render(form, talk.registry, requests)
print(json.dumps({"grown": grown, "modules": sorted(sys.modules)}))
"""
)


def test_rule_32_the_layer_is_small_and_loads_neither_numpy_nor_protobuf() -> None:
    told = run(FOOTPRINT)

    assert told["grown"] < 3 * MIB
    assert not {name.partition(".")[0] for name in told["modules"]} & {"numpy", "google", "pydantic", "cramjam", "isal"}


MULTIPROCESS = """
import json, os
from sidecar import telemetry, routes
from sidecar.metrics import exposition, durations
talk = telemetry.Telemetry()
talk.lines_read(3)
requests = durations.Requests(durations.Config(), routes.Table(), talk)
page = exposition.render(exposition.TEXT, talk.registry, requests).decode()
print(json.dumps({
    "line": "sidecar_lines_read_total 3.0" in page,
    "kept": [os.environ.get(name) for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")],
}))
"""


def test_rule_19_a_multi_process_directory_in_the_environment_changes_nothing(tmp_path: Path) -> None:
    """Neither the metrics nor the environment, which the followed command inherits."""
    missing, present = str(tmp_path / "missing"), str(tmp_path)

    told = run(MULTIPROCESS, PROMETHEUS_MULTIPROC_DIR=missing, prometheus_multiproc_dir=present)

    assert told == {"line": True, "kept": [missing, present]}
    assert list(tmp_path.iterdir()) == []
