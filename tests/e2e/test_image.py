"""R28-R31: the image, really built from the unchanged Dockerfile, twice, and really run with nothing allowed.

And R33 against a real registry: what `python -m tools.release` does with the digests of that image.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sidecar.model import Outcome
from tests.support import images
from tests.support.patience import PATIENCE
from tests.support.ports import Port

# One process builds for all of them.
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("image")]

UNPACKED = 90 << 20
COMPRESSED = 40 << 20
LINE = (
    '{"level":"info","timestamp":"2026-08-25T10:00:00Z","service_name":"shop",'
    '"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","message":"request","method":"GET","route":"/orders/:id",'
    '"status":200,"duration_ms":12.5}'
)
GIN = '[GIN] 2026/08/25 - 10:00:01 | 500 |     1.25ms |       10.0.0.7 | POST     "/orders"'


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    images.require(*images.PROGRAMS)
    made = images.Store(tmp_path_factory.mktemp("images"))
    images.bases(made)
    return made


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return images.sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def image(store, tree):
    store.build(tree, "localhost/gin-sidecar:one")
    return "localhost/gin-sidecar:one"


@pytest.fixture(scope="session")
def bundle(store, image, tmp_path_factory):
    return store.export(image, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="session")
def config(bundle):
    layout = bundle.parent / "oci"
    manifest = _blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])
    return _blob(layout, manifest["config"]["digest"])["config"]


def _blob(layout, digest):
    return json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())


def test_r29_two_builds_of_the_same_sources_give_the_same_digest(store, tree, image):
    store.build(tree, "localhost/gin-sidecar:two")

    assert store.digest("localhost/gin-sidecar:two") == store.digest(image)


def test_r30_the_image_keeps_its_budgets(bundle):
    unpacked = sum(path.lstat().st_size for path in (bundle / "rootfs").rglob("*") if not path.is_dir())
    compressed = sum(path.stat().st_size for path in (bundle.parent / "oci/blobs").rglob("*") if path.is_file())

    print(f"unpacked {unpacked / 1e6:.1f} MB, compressed {compressed / 1e6:.1f} MB")
    assert unpacked <= UNPACKED
    assert compressed <= COMPRESSED


def test_r28_there_is_no_shell_no_pip_and_nothing_setuid(bundle):
    root = bundle / "rootfs"
    names = {path.name for path in root.rglob("*")}

    assert not names & {"sh", "bash", "dash", "busybox", "pip", "pip3", "setuptools", "wheel", "apt", "dpkg"}
    assert not [path for path in root.rglob("*") if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]


def test_the_user_owns_and_can_write_nothing_but_state_and_tmp(bundle):
    root = bundle / "rootfs"
    writable = set()
    for path in root.rglob("*"):
        status = path.lstat()
        if not path.is_symlink() and (status.st_uid == 65532 or status.st_mode & stat.S_IWOTH):
            writable.add(str(path.relative_to(root)))

    assert writable == {"state", "tmp"}


def test_r28_r31_the_image_says_what_it_is_and_runs_as_a_number(config):
    labels = config["Labels"]

    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/python3", "-m", "sidecar"]
    assert "9180" in str(config["ExposedPorts"])
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "0123abc"
    names = {name.removeprefix("org.opencontainers.image.") for name in labels if "opencontainers" in name}
    assert {"title", "description", "licenses", "source", "url", "version", "revision", "base.name"} <= names


def test_a_docker_image_keeps_its_health_check(store, tree):
    store.build(tree, "localhost/gin-sidecar:docker", form="docker")
    inspected = json.loads(store.buildah("inspect", "--type=image", "localhost/gin-sidecar:docker"))

    assert inspected["Docker"]["config"]["Healthcheck"]["Test"] == [
        *("CMD", "/usr/bin/python3", "-m", "sidecar", "healthcheck")
    ]


@pytest.fixture
def port():
    with Port() as held:
        yield held.number


def _harden(bundle: Path, environment: dict[str, str], state: Path) -> None:
    """Take everything from the container that Kubernetes' restricted level takes, and write access but to two places."""
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    process = spec["process"]
    process["terminal"] = False
    process["noNewPrivileges"] = True
    process["capabilities"] = {kind: [] for kind in process["capabilities"]}
    process["args"] = [*process["args"][:3], "run"]
    process["env"] += [f"{name}={value}" for name, value in environment.items()]
    spec["root"]["readonly"] = True
    kept = [mount for mount in spec["mounts"] if mount["destination"] in ("/proc", "/dev", "/dev/shm", "/dev/pts")]
    limits = ["nosuid", "nodev", "noexec"]
    spec["mounts"] = [
        *kept,
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [*limits, "mode=1777", "size=16m"]},
        {"destination": "/state", "type": "bind", "source": str(state), "options": ["bind", "rw", *limits]},
    ]
    spec["linux"]["namespaces"] = [
        namespace for namespace in spec["linux"]["namespaces"] if namespace["type"] not in ("network", "cgroup", "user")
    ]
    spec["linux"].pop("uidMappings", None)
    spec["linux"].pop("gidMappings", None)
    path.write_text(json.dumps(spec))


def test_r16_r29_it_does_its_job_with_nothing_allowed(bundle, port, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65532, 65532)
    environment = {
        "SIDECAR_HTTP_HOST": "127.0.0.1",
        "SIDECAR_HTTP_PORT": str(port),
        "SIDECAR_STATE_DIR": "/state",
        "SIDECAR_SOURCE_AT_END": "serve",
        "SIDECAR_SINKS_STDOUT_ENABLED": "true",
    }
    _harden(bundle, environment, state)
    name = f"gin-sidecar-{os.getpid()}"
    runc = ["runc", "--root", str(tmp_path / "runc")]
    with subprocess.Popen(
        [*runc, "run", "--bundle", str(bundle), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as container:
        try:
            container.stdin.write(f"{LINE}\n{GIN}\n")
            container.stdin.close()
            records = [container.stdout.readline() for _ in range(2)]
            if not all(records):
                pytest.fail(container.stderr.read())
            pid = json.loads(images.run(*runc, "state", name))["pid"]
            status = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
            )
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez") as answer:
                alive = answer.status
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                metrics = answer.read().decode()
        finally:
            subprocess.run([*runc, "kill", name, "TERM"], check=False, capture_output=True)
            try:
                container.wait(PATIENCE)
            finally:
                subprocess.run([*runc, "delete", "--force", name], check=False, capture_output=True)

    assert records[0] == f"{LINE}\n"
    assert json.loads(records[1])["status"] == 500
    assert alive == 200
    assert f'sidecar_records_total{{outcome="{Outcome.VALID}"}} 1.0' in metrics
    assert 'http_requests_total{method="POST",path="/orders",status="500"} 1' in metrics
    assert 'revision="0123abc"' in metrics
    assert container.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM), container.returncode
    assert container.returncode == 0
    assert status["Uid"].split() == ["65532"] * 4
    assert status["Gid"].split() == ["65532"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert (state / "checkpoint.json").exists()


# what the release does with it


@pytest.fixture
def registry(port, tmp_path):
    """A registry of our own on this machine, empty."""
    if shutil.which("docker-registry") is None:
        pytest.skip("not installed: docker-registry (Debian package of the same name)")
    config = tmp_path / "registry.yml"
    storage = f"storage:\n  filesystem:\n    rootdirectory: {tmp_path}/registry\n"
    config.write_text(f"version: 0.1\nlog:\n  level: error\n{storage}http:\n  addr: 127.0.0.1:{port}\n")
    with subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            _answers(port, server)
            yield f"127.0.0.1:{port}/gin-sidecar/gin-sidecar"
        finally:
            server.terminate()


def _answers(port, server):
    """Wait until something listens: the kernel retries SYN for us only once it does, so we ask until it is there."""
    give_up_at = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        os.sched_yield()
    pytest.fail("the registry does not start")


def _push(store, image, repository):
    """Push by digest only: no tag stands before the gates have spoken."""
    layout = f"oci:{store.directory}/{image.rpartition(':')[2]}:image"
    store.buildah("push", "--quiet", image, layout)
    manifest = subprocess.run(["skopeo", "inspect", "--raw", layout], capture_output=True, check=True).stdout
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    images.run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", layout, f"docker://{repository}@{digest}")
    return digest


def _tag(repository, event, ref, digest, *more):
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "tools.release",
                "tag",
                "--plain-http",
                "--image",
                repository,
                "--actor",
                "octocat",
            ),
            *("--event", event, "--ref", ref, "--digest", digest, *more),
        ],
        cwd=images.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def _asked(repository, *arguments):
    return images.run(
        *(sys.executable, "-m", "tools.release", *arguments, "--plain-http", "--image", repository), cwd=images.ROOT
    )


def test_r33_a_release_tags_what_was_pushed_by_digest_once_and_never_again(store, image, tree, registry, tmp_path):
    changed = shutil.copytree(tree, tmp_path / "changed")
    (changed / "README.md").write_text("Another build.\n")
    store.build(changed, "localhost/gin-sidecar:other")
    ours, other = _push(store, image, registry), _push(store, "localhost/gin-sidecar:other", registry)
    assert ours != other

    first = _tag(registry, "release", "v1.2.0", ours)
    again = _tag(registry, "release", "v1.2.0", ours)
    overwriting = _tag(registry, "release", "v1.2.0", other)
    backport = _tag(registry, "release", "v1.1.9", other)
    promoted = _tag(registry, "promotion", "v1.2.0", ours, "--environment", "prod")
    wrong = _tag(registry, "promotion", "v1.2.0", other, "--environment", "staging")

    assert json.loads(first.stdout)["tags"] == ["v1.2.0", "latest"], first.stderr
    assert json.loads(again.stdout)["tags"] == []
    assert json.loads(backport.stdout)["tags"] == ["v1.1.9"]
    assert json.loads(promoted.stdout)["tags"] == ["v1.2.0-prod"]
    assert [one.returncode for one in (first, again, backport, promoted)] == [0] * 4
    assert [json.loads(one.stdout)["outcome"] for one in (overwriting, wrong)] == ["refused"] * 2
    assert overwriting.returncode == wrong.returncode == 1
    listed = json.loads(images.run("skopeo", "list-tags", "--tls-verify=false", f"docker://{registry}"))
    recorded = json.loads(_asked(registry, "manifest"))["release"][registry]
    assert recorded == {"v1.1.9": other, "v1.2.0": ours, "v1.2.0-prod": ours}
    assert _asked(registry, "digest", "--tag", "latest") == ours
    assert sorted(listed["Tags"]) == ["latest", "v1.1.9", "v1.2.0", "v1.2.0-prod"]
