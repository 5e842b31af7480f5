"""The table of sources, and what `create` says when it cannot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sidecar import sources, telemetry
from sidecar.errors import ConfigError

# Modules beside the sources that are nouns they share.
SHARED = {
    *("__init__", "filesystem", "generation", "globbed", "gzipped", "known", "lookout", "pipe", "podlog"),
    *("podresume", "polling", "resume", "siblings", "tail"),
    *("succession", "kubeapi", "kubeinstances", "kubepace", "kubestream"),
    *("seen", "stamped", "wake"),
}


def made(argv=(), **options):
    return sources.create(sources.Config(**options), telemetry.Telemetry(log=telemetry.Log(io.StringIO())), argv=argv)


def test_every_module_is_in_the_table():
    modules = {path.stem for path in Path(sources.__file__).parent.glob("*.py")}

    assert modules - SHARED == set(sources.SOURCES)


def test_each_kind_makes_its_source():
    for kind, options in {
        "file": {"path": "/var/log/app.log"},
        "cri": {"path": "/var/log/pods/a_b_c", "container": "app"},
        "command": {"argv": ["app"]},
    }.items():
        assert made(kind=kind, **options).describe()["source"] == kind


def test_a_kind_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        ConfigError, match=r'source\.kind: "pigeon" is not in this version.*command, cri, fifo, file, .*stdin'
    ):
        made(kind="pigeon")


def test_a_fifo_needs_a_path():
    with pytest.raises(ConfigError, match=r"source\.path: expected the path of the named pipe"):
        made(kind="fifo")


def test_kubernetes_needs_to_know_the_pod_and_the_container():
    """All that is missing is said at once."""
    with pytest.raises(ConfigError, match=r"(?s)POD_NAME: .*POD_NAMESPACE: .*source\.container: ") as raised:
        made(kind="kubernetes")

    assert len(raised.value.problems) == 3


def test_the_sidecars_own_container_is_refused():
    with pytest.raises(ConfigError, match=r"source\.container: expected another container"):
        made(kind="kubernetes", container="gin-sidecar")


def test_a_file_needs_a_path():
    with pytest.raises(ConfigError, match=r"source\.path: expected the path of a file"):
        made(kind="file")


@pytest.mark.parametrize("path", ["/var/log/*.log", "/var/log/app?.log", "/var/log/[ab].log"])
def test_a_glob_makes_a_source_that_follows_many_files(path):
    assert made(kind="file", path=path).describe()["files"] == []


def test_a_command_needs_a_command():
    with pytest.raises(ConfigError, match="COMMAND behind --"):
        made(kind="command")
