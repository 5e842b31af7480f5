"""Options of the whole suite."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write what is said now into the golden files")


@pytest.fixture
def update_golden(request):
    return request.config.getoption("--update-golden")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    """No test sees the configuration of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(("SIDECAR_", "OTEL_", "POD_", "NODE_NAME", "CONTAINER_NAME")):
            monkeypatch.delenv(name)
