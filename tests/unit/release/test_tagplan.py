"""R32, R33: which tags an image gets, for every event."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import tagplan
from tools.tagplan import Conflict, Event, Refusal, Version

OURS = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_push_to_the_default_branch_gets_both_commit_tags():
    plan = tagplan.plan(Event.DEFAULT_BRANCH, "main", OURS, {}, commit=COMMIT)

    assert plan.write == ("git-0123456789ab", "dev-0123456789ab")


def test_a_push_to_another_branch_gets_a_dev_tag_only():
    plan = tagplan.plan(Event.BRANCH, "feature/x", OURS, {}, commit=COMMIT)

    assert plan.write == ("dev-0123456789ab",)


def test_the_first_stable_release_gets_its_version_and_latest():
    assert tagplan.plan(Event.RELEASE, "v1.2.0", OURS, {}).write == ("v1.2.0", "latest")


def test_the_highest_stable_release_moves_latest_after_its_own_tag():
    plan = tagplan.plan(Event.RELEASE, "v1.2.0", OURS, {"v1.1.9": OTHER, "latest": OTHER})

    assert plan.write == ("v1.2.0", "latest")
    assert plan.move == ("latest",)


def test_a_backport_leaves_latest_where_it_is():
    plan = tagplan.plan(Event.RELEASE, "v1.1.10", OURS, {"v1.2.0": OTHER, "latest": OTHER})

    assert plan.write == ("v1.1.10",)


def test_a_version_that_only_git_knows_counts_for_what_is_highest():
    plan = tagplan.plan(Event.RELEASE, "v1.1.10", OURS, {}, versions=["v1.2.0", "not-a-version"])

    assert plan.write == ("v1.1.10",)


@pytest.mark.parametrize("tag", ["v2.0.0-rc.1", "v2.0.0-beta.1", "v2.0.0-0"])
def test_a_prerelease_gets_its_version_only(tag):
    assert tagplan.plan(Event.RELEASE, tag, OURS, {"v1.0.0": OTHER, "latest": OTHER}).write == (tag,)


def test_a_prerelease_or_a_promotion_does_not_hide_that_a_stable_version_is_highest():
    existing = {"v2.0.0-rc.1": OTHER, "v1.9.0-prod": OTHER, "git-0123456789ab": OTHER, "latest": OTHER}

    assert tagplan.plan(Event.RELEASE, "v1.9.1", OURS, existing).write == ("v1.9.1", "latest")


def test_releasing_the_same_digest_again_is_no_work():
    plan = tagplan.plan(Event.RELEASE, "v1.2.0", OURS, {"v1.2.0": OURS, "latest": OURS})

    assert plan.write == ()
    assert plan.keep == ("v1.2.0", "latest")


def test_a_run_that_died_before_latest_is_completed_by_the_next():
    plan = tagplan.plan(Event.RELEASE, "v1.2.0", OURS, {"v1.2.0": OURS, "v1.1.0": OTHER, "latest": OTHER})

    assert plan.write == ("latest",)


@pytest.mark.parametrize(
    ("event", "ref", "tag"),
    [
        (Event.RELEASE, "v1.2.0", "v1.2.0"),
        (Event.DEFAULT_BRANCH, "main", "git-0123456789ab"),
        (Event.BRANCH, "topic", "dev-0123456789ab"),
    ],
    ids=["release", "default-branch", "branch"],
)
def test_r33_a_tag_on_another_digest_is_never_overwritten(event, ref, tag):
    with pytest.raises(Conflict, match=f"written once: {tag} is {OTHER}"):
        tagplan.plan(event, ref, OURS, {tag: OTHER}, commit=COMMIT)


@pytest.mark.parametrize("environment", tagplan.ENVIRONMENTS)
def test_r33_a_promotion_is_another_name_for_the_same_digest(environment):
    plan = tagplan.plan(Event.PROMOTION, "v1.2.0", OURS, {"v1.2.0": OURS, "latest": OTHER}, environment=environment)

    assert plan.write == (f"v1.2.0-{environment}",)


def test_a_promotion_of_another_digest_than_the_released_one_conflicts():
    with pytest.raises(Conflict, match=f"v1.2.0 is {OTHER}"):
        tagplan.plan(Event.PROMOTION, "v1.2.0", OURS, {"v1.2.0": OTHER}, environment="prod")


def test_what_was_never_released_cannot_be_promoted():
    with pytest.raises(Refusal, match="nothing to promote"):
        tagplan.plan(Event.PROMOTION, "v1.2.0", OURS, {}, environment="prod")


@pytest.mark.parametrize(
    ("ref", "environment", "reason"),
    [
        ("v1.2.0", "moon", "not an environment"),
        ("v1.2.0", "", "not an environment"),
        ("v1.2.0-rc.1", "prod", "only stable"),
    ],
)
def test_a_promotion_elsewhere_or_of_a_prerelease_is_refused(ref, environment, reason):
    with pytest.raises(Refusal, match=reason):
        tagplan.plan(Event.PROMOTION, ref, OURS, {ref: OURS}, environment=environment)


@pytest.mark.parametrize(
    "tag",
    [
        "1.2.0",
        "V1.2.0",
        "v1.2",
        "v1.2.0.0",
        "v01.2.0",
        "v1.2.0-01",
        "v1.2.0-",
        "v1.2.0-rc..1",
        "v1.2.0+build.5",  # an image tag cannot hold a plus sign
        "v1.2.0-prod",
        "v1.2.0-staging",
        "v1.2.0-beta",
        "v1.2.0-rc.1.PROD",
        "v1.2.0\n",
        "v1.2.0 ",
        "latest",
        "vlatest",
        "",
        "v1.2.0-" + "a" * 120,
        "v1.2.0-rc.1;id",
        "v1.2.0-ä",
        "v١.٢.٠",
    ],
)
def test_r32_a_git_tag_that_is_not_v_and_a_version_is_refused(tag):
    with pytest.raises(Refusal):
        tagplan.plan(Event.RELEASE, tag, OURS, {})


@pytest.mark.parametrize("digest", ["", "sha256:abc", "a" * 64, OURS.upper(), OURS + "0", "sha512:" + "a" * 64])
def test_what_is_not_a_digest_is_refused(digest):
    with pytest.raises(Refusal, match="not a digest"):
        tagplan.plan(Event.RELEASE, "v1.2.0", digest, {})


@pytest.mark.parametrize("commit", ["", "main", "0123456", COMMIT.upper(), COMMIT + "0"])
def test_a_branch_needs_a_whole_commit_id(commit):
    with pytest.raises(Refusal, match="not a commit"):
        tagplan.plan(Event.DEFAULT_BRANCH, "main", OURS, {}, commit=commit)


def test_versions_are_ordered_as_semver_says():
    """The example of SemVer 2.0.0 section 11, and what people get wrong."""
    ordered = [
        "0.9.9",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.2",
        "1.0.10",
        "1.10.0",
        "2.0.0",
    ]
    versions = [tagplan.parse(text) for text in ordered]

    assert all(lower < higher for lower, higher in itertools.pairwise(versions))


_identifiers = st.one_of(st.integers(0, 99).map(str), st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True))
_versions = st.builds(
    Version,
    st.integers(0, 9),
    st.integers(0, 12),
    st.integers(0, 12),
    st.lists(_identifiers, max_size=3).map(tuple),
).filter(lambda version: not version.prerelease or version.prerelease[-1] not in tagplan._RESERVED)


@given(_versions)
def test_a_version_reads_as_it_is_written(version):
    assert tagplan.parse_tag(f"v{version}") == version


@given(st.permutations(["v0.9.0", "v1.0.0-rc.1", "v1.0.0", "v1.0.1", "v1.1.0-beta.1", "v1.1.0", "v2.0.0-alpha.1"]))
def test_in_whatever_order_versions_are_released_latest_is_the_highest_stable_so_far(order):
    registry: dict[str, str] = {}
    for place, tag in enumerate(order):
        digest = f"sha256:{place:064x}"
        plan = tagplan.plan(Event.RELEASE, tag, digest, registry)
        for name in plan.write:
            assert name == "latest" or name not in registry
            registry[name] = digest

        stable = [name for name in registry if name != "latest" and tagplan.parse_tag(name).stable]
        assert ("latest" in registry) == bool(stable)
        if stable:
            assert registry["latest"] == registry[max(stable, key=tagplan.parse_tag)]


@given(
    st.sampled_from(list(Event)),
    st.text(max_size=20),
    st.text(max_size=70),
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    st.text(max_size=45),
    st.text(max_size=8),
)
def test_any_input_is_planned_or_refused(event, ref, digest, existing, commit, environment):
    try:
        plan = tagplan.plan(event, ref, digest, existing, commit=commit, environment=environment)
    except Refusal:
        return
    assert set(plan.create).isdisjoint(existing)
