"""Options of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003  read at run time

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failing law: timings never decide.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write what is said now into the golden files")
    parser.addoption("--no-skips", action="store_true", help="fail when a test is skipped that no reason allows")


def _allowed_skips(root: Path) -> list[tuple[str, str]]:
    rows = (root / "tests" / "allowed-skips.txt").read_text(encoding="utf-8").splitlines()
    pairs = [row.split("|", 1) for row in rows if "|" in row and not row.startswith("#")]
    return [(nodeid.strip(), reason.strip()) for nodeid, reason in pairs]


def pytest_sessionfinish(session, exitstatus):
    """A skipped test is a hole in the gate: it fails unless its reason is written down."""
    if not session.config.getoption("--no-skips"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker: the session that gathers all of them decides
        return
    allowed = _allowed_skips(session.config.rootpath)
    holes = []
    for report in reporter.stats.get("skipped", ()):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not any(report.nodeid.startswith(begin) and reason == why for begin, why in allowed):
            holes.append(f"{report.nodeid}: {reason}")
    if holes and exitstatus == 0:
        reporter.write_sep("=", "skipped, and tests/allowed-skips.txt does not say why", red=True)
        for hole in holes:
            reporter.write_line(hole)
        session.exitstatus = 1


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No test sees the configuration of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(("SIDECAR_", "OTEL_", "POD_", "NODE_NAME", "CONTAINER_NAME")):
            monkeypatch.delenv(name)
