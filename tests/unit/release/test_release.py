"""R33, R34: the last step of a release writes each tag once, reads it back, and says who did it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import jsonschema
import pytest

from sidecar import validation
from tools import release, tagplan
from tools.release import ROOT, RegistryError, Request

OURS = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NOW = datetime(2026, 11, 25, 3, 4, 5, 678000, tzinfo=UTC)
REQUEST = Request(
    event=tagplan.Event.RELEASE,
    ref="v1.2.0",
    digest=OURS,
    image="ghcr.io/gin-sidecar/gin-sidecar",
    actor="octocat",
    commit="0123456789abcdef0123456789abcdef01234567",
    run_url="https://github.com/gin-sidecar/gin-sidecar/actions/runs/1",
)
PROMOTION = replace(REQUEST, event=tagplan.Event.PROMOTION, environment="prod")
AUDIT = json.loads((ROOT / "schemas/audit-log.schema.json").read_text())
STRUCTURED = json.loads((ROOT / "schemas/structured-log.schema.json").read_text())


@dataclass
class Registry:
    """A repository in memory."""

    standing: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    overwritten_by: str = ""  # another writer, who comes right after us

    def tags(self):
        return list(self.standing)

    def digest(self, tag):
        return self.standing.get(tag, "")

    def write(self, digest, tag):
        self.log.append(tag)
        self.standing[tag] = self.overwritten_by or digest


def test_a_release_writes_its_version_first_and_latest_last():
    registry = Registry({"v1.1.0": OTHER, "latest": OTHER})

    plan, previous = release.tag(REQUEST, registry)

    assert registry.log == ["v1.2.0", "latest"] == list(plan.write)
    assert registry.standing == {"v1.1.0": OTHER, "v1.2.0": OURS, "latest": OURS}
    assert previous == {"latest": OTHER}


def test_r33_nothing_is_written_where_one_tag_would_be_overwritten():
    registry = Registry({"v1.2.0": OTHER})

    with pytest.raises(tagplan.Conflict):
        release.tag(REQUEST, registry)

    assert registry.log == []


def test_a_second_run_of_the_same_release_writes_nothing():
    registry = Registry()
    release.tag(REQUEST, registry)
    registry.log.clear()

    plan, _ = release.tag(REQUEST, registry)

    assert registry.log == []
    assert plan.keep == ("v1.2.0", "latest")


def test_latest_stays_where_git_has_a_higher_version_that_is_still_being_built():
    registry = Registry()

    release.tag(REQUEST, registry, git_tags=["v1.2.0", "v1.3.0"])

    assert registry.log == ["v1.2.0"]


def test_another_writer_of_the_same_tag_is_noticed():
    with pytest.raises(RegistryError, match="somebody else"):
        release.tag(REQUEST, Registry(overwritten_by=OTHER))


def test_a_promotion_names_the_released_digest():
    registry = Registry({"v1.2.0": OURS, "latest": OTHER})

    release.tag(PROMOTION, registry)

    assert registry.standing == {"v1.2.0": OURS, "latest": OTHER, "v1.2.0-prod": OURS}


@pytest.mark.parametrize(
    "record",
    [
        release.audit_record(REQUEST, "success", now=NOW, tags=["v1.2.0", "latest"], previous={"latest": OTHER}),
        release.audit_record(replace(REQUEST, run_url="", commit=""), "success", now=NOW),
        release.audit_record(REQUEST, "refused", now=NOW, error="tags are written once"),
        release.audit_record(PROMOTION, "success", now=NOW, tags=["v1.2.0-prod"]),
        release.audit_record(PROMOTION, "failed", now=NOW, error="skopeo copy: 503"),
    ],
    ids=["release", "by-hand", "refused", "promotion", "failed"],
)
def test_an_audit_record_satisfies_the_schema_of_audit_records_and_that_of_all_logs(record):
    for schema in (AUDIT, STRUCTURED):
        jsonschema.validate(record, schema, jsonschema.Draft202012Validator)


def test_the_sidecar_takes_an_audit_record_as_valid_as_written():
    record = release.audit_record(REQUEST, "success", now=NOW, tags=["v1.2.0"])

    assert validation.load(validation.Config()).explain(record) == []


def test_the_audit_schema_can_be_the_schema_of_a_sidecar(tmp_path):
    path = tmp_path / "audit-log.schema.json"
    path.write_text(json.dumps(AUDIT))
    schema = validation.load(validation.Config(path=str(path)))

    record = release.audit_record(REQUEST, "success", now=NOW, tags=["v1.2.0"])

    assert schema.explain(record) == []
    assert schema.explain({**record, "digest": "latest"}) != []


def test_who_when_which_digest_and_what_was_done_are_all_there():
    record = release.audit_record(REQUEST, "success", now=NOW, tags=["v1.2.0"])

    assert record["actor"] == "octocat"
    assert record["timestamp"] == "2026-11-25T03:04:05.678Z"
    assert record["digest"] == OURS
    assert record["action"] == "release"


def test_all_records_of_one_run_share_a_trace_id_and_other_runs_have_another():
    one = release.audit_record(REQUEST, "success", now=NOW)["trace_id"]

    assert release.audit_record(PROMOTION, "success", now=NOW)["trace_id"] == one
    assert release.audit_record(replace(REQUEST, run_url="https://elsewhere/2"), "success", now=NOW)["trace_id"] != one


def test_what_audit_records_share_with_all_logs_is_declared_alike():
    shared = AUDIT["properties"].keys() & STRUCTURED["properties"].keys()

    assert {name: AUDIT["properties"][name] for name in shared} == {
        name: STRUCTURED["properties"][name] for name in shared
    }
    assert set(STRUCTURED["required"]) <= set(AUDIT["required"])


def test_the_schema_knows_every_environment_and_every_action():
    properties = AUDIT["properties"]

    assert properties["environment"]["enum"] == [*tagplan.ENVIRONMENTS]
    assert {*release._ACTIONS.values()} <= {*properties["action"]["enum"]}


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"outcome": "refused"}, "required"),  # without telling why
        ({"error": "but it worked"}, "not"),
        ({"action": "promote"}, "required"),  # without telling where to
        ({"digest": "v1.2.0"}, "pattern"),
        ({"actor": ""}, "minLength"),
        ({"tags": ["a b"]}, "pattern"),
        ({"previous": {"latest": "old"}}, "pattern"),
    ],
)
def test_a_record_that_hides_something_violates_the_schema(change, keyword):
    record = release.audit_record(REQUEST, "success", now=NOW, tags=["v1.2.0"]) | change

    errors = [error.validator for error in jsonschema.Draft202012Validator(AUDIT).iter_errors(record)]

    assert errors == [keyword]


@pytest.fixture
def tree(tmp_path):
    """A source tree whose three places agree on 1.2.0."""
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "helm/gin-sidecar").mkdir(parents=True)
    (tmp_path / "sidecar/__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "helm/gin-sidecar/Chart.yaml").write_text('name: gin-sidecar\nversion: 1.2.0\nappVersion: "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-11-25\n")
    return tmp_path


def test_a_tag_that_everything_agrees_with_may_be_released(tree):
    assert release.check("v1.2.0", tree) == []


def test_r32_each_place_that_disagrees_is_named(tree):
    assert [problem.split(" says")[0] for problem in release.check("v1.3.0-rc.1", tree)] == [
        "sidecar/__init__.py",
        "helm/gin-sidecar/Chart.yaml version",
        "helm/gin-sidecar/Chart.yaml appVersion",
    ]


def test_a_release_without_a_changelog_section_is_refused(tree):
    (tree / "CHANGELOG.md").write_text("## [Unreleased]\n")

    assert release.check("v1.2.0", tree) == ["CHANGELOG.md has no section [1.2.0]"]


def test_r32_a_git_tag_with_an_environment_is_refused(tree):
    assert "environment" in release.check("v1.2.0-prod", tree)[0]


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tree):
    (tree / "CHANGELOG.md").write_text(
        "## [Unreleased]\n\nNext.\n\n## [1.2.0] - 2026-11-25\n\nThis.\n\n## [1.1.0]\n\nOld.\n"
    )

    assert release.notes("v1.2.0", tree) == "This.\n"
    assert release.notes("v1.1.0", tree) == "Old.\n"
    assert release.notes("v1.3.0-rc.1", tree) == "Next.\n"


def test_the_release_manifest_holds_versions_and_promotions_and_nothing_that_moves():
    registry = Registry({"v1.2.0": OURS, "v1.2.0-prod": OURS, "latest": OURS, "git-0123456789ab": OTHER})

    assert release.manifest("ghcr.io/x/y", registry) == {
        "release": {"ghcr.io/x/y": {"v1.2.0": OURS, "v1.2.0-prod": OURS}}
    }


def test_r32_package_and_chart_name_one_version():
    said = release.versions()

    assert len(set(said.values())) == 1, said
    assert all(said.values()), said
