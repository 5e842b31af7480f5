"""R28, R31: what can be said of the image by reading how it is made."""

from __future__ import annotations

import re

from tests.support import programs

TEXT = (programs.ROOT / "Dockerfile").read_text()
IGNORE = (programs.ROOT / ".dockerignore").read_text().split()


def _argument(name):
    (found,) = re.findall(rf"^ARG {name}=(\S+)$", TEXT, re.MULTILINE)
    return found


def test_r28_both_bases_are_pinned_by_digest_and_named_by_a_version():
    for name in ("PYTHON_IMAGE", "RUNTIME_IMAGE"):
        image = _argument(name)
        assert re.search(r"@sha256:[0-9a-f]{64}$", image)
        assert ":latest" not in image


def test_r31_both_stages_have_the_same_python_of_the_same_debian():
    """distroless names the release of Debian, whose Python is that of the tag of the first stage."""
    assert ":3.13-slim-trixie@" in _argument("PYTHON_IMAGE")
    assert "python3-debian13:nonroot@" in _argument("RUNTIME_IMAGE")


def test_r28_the_user_is_a_number_and_not_root():
    assert re.findall(r"^USER (\S+)$", TEXT, re.MULTILINE) == ["65532:65532"]


def test_r28_nothing_needs_a_shell_at_run_time_and_nothing_an_old_builder_cannot_read():
    for word in ("ENTRYPOINT", "CMD"):
        for rest in re.findall(rf"^\s*{word} (.*)$", TEXT, re.MULTILINE):
            assert rest.startswith("["), rest
    assert "<<" not in TEXT


def test_dependencies_are_installed_from_the_lock_before_the_source_arrives():
    assert TEXT.index("--require-hashes") < TEXT.index("COPY sidecar")
    for install in re.findall(r"pip install[^\n]*--target /app", TEXT):
        assert "--no-compile" in install, "pip writes the time of the build into .pyc files"


def test_r28_the_context_is_an_allow_list():
    assert IGNORE[0] == "*"
    assert "!sidecar" in IGNORE
    assert not [line for line in IGNORE[1:] if not line.startswith(("!", "**/"))]
