"""Find the programs of other projects that tests run. Where one is absent the test is skipped, and says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = {
    "helm": "go install helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "actionlint": "go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "promtool": "the Debian package prometheus",
}


@cache
def _places() -> str:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    try:
        path = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        path = str(Path.home() / "go")
    return os.pathsep.join([os.environ.get("PATH", ""), str(Path(path) / "bin"), str(Path(sys.executable).parent)])


def find(name: str) -> str:
    """Return the path of a program, looked for on PATH, among Go's and in our environment."""
    found = shutil.which(name, path=_places())
    if found is None:
        pytest.skip(f"{name} is not installed: {INSTALL.get(name, 'make e2e installs it')}")
    return found


def run(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it ended."""
    command = [find(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def passes(name: str, *arguments: object, cwd: Path = ROOT) -> str:
    """Run a program that must succeed, and return what it printed."""
    done = run(name, *arguments, cwd=cwd)
    assert done.returncode == 0, f"{name} {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout
