"""The Gin services that end-to-end tests follow, built once per session."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.patience import as_long_as_it_takes

SOURCES = Path(__file__).parent / "ginapp"


def build(binary: Path) -> None:
    """Build ginapp. Raises FileNotFoundError without Go, CalledProcessError when it does not build."""
    go = shutil.which("go", path=None) or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise FileNotFoundError("go")
    as_long_as_it_takes()
    # -trimpath: stacks name files relative to their module, the same on every machine.
    subprocess.run(
        [go, "build", "-trimpath", "-o", str(binary), "."], cwd=SOURCES, check=True, capture_output=True, text=True
    )


@pytest.fixture(scope="session")
def ginapp(pytestconfig: pytest.Config) -> Path:
    """Return the built ginapp. Go's own cache makes the second session's build quick."""
    binary = pytestconfig.cache.mkdir("ginapp") / "ginapp"
    try:
        build(binary)
    except FileNotFoundError:
        pytest.skip("Go is not installed: the services of the end-to-end tests cannot be built")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"ginapp does not build:\n{error.stderr}", pytrace=False)
    return binary
