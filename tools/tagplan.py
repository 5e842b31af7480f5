"""Which tags an image gets for which event, decided from text alone, so that no registry or clock can be in the way.

Problem: a release is many small decisions (is this SemVer, is this the highest, may this tag move), and each of them
taken by a CI action's default has leaked an alpha to `latest` somewhere.
Promise: `plan` is a pure function of the event and of what the registry holds. Every tag but `latest` is written once:
the same digest again is no work, another digest is a `Conflict` and nothing at all is tagged. `latest` follows the
highest stable version and never a backport, a pre-release or a branch. A promotion gives the digest that the version
already has another name; nothing is built for it.
Refused: floating tags (`1`, `1.2`), environment suffixes as versions, versions without `v`, guesses about any of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LATEST = "latest"
# Where a release may be promoted to. As the last part of an image tag these words mean a place, never a version: a git
# tag `v1.2.0-beta` would be both, so it is refused; `v1.2.0-beta.1` is a version.
ENVIRONMENTS = ("dev", "beta", "qa", "staging", "prod")
_RESERVED = frozenset({*ENVIRONMENTS, "test", "stage", "preprod", "production", "live"})

SHA_DIGITS = 12  # of a commit in a tag: enough for any repository, short enough to read

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
# Build metadata (`+…`) is SemVer and cannot stand in an image tag, so it cannot be released.
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_TAG_CHARACTERS = 128  # what registries take


class Refusal(Exception):  # noqa: N818  an answer, as SinkRefused is
    """The event must not be released."""


class Conflict(Refusal):
    """A tag that may never move stands on another digest."""


class Event(Enum):
    """What happened."""

    BRANCH = "branch"  # a push to a branch that is not the default one
    DEFAULT_BRANCH = "default-branch"
    RELEASE = "release"  # a push of a git tag
    PROMOTION = "promotion"  # an operator wants a released version in an environment


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version, ordered by the precedence of SemVer 2.0.0 section 11."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @property
    def stable(self) -> bool:
        return not self.prerelease

    def __str__(self) -> str:
        core = f"{self.major}.{self.minor}.{self.patch}"
        return f"{core}-{'.'.join(self.prerelease)}" if self.prerelease else core

    def _key(self) -> tuple[int, int, int, bool, list[tuple[bool, int, str]]]:
        # Numbers are lower than words, and fewer identifiers are lower than more; no pre-release at all is highest.
        parts = [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in self.prerelease]
        return self.major, self.minor, self.patch, self.stable, parts

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the tags of one repository for one digest."""

    digest: str
    create: tuple[str, ...]  # not there yet
    keep: tuple[str, ...]  # there already, on this digest
    move: tuple[str, ...]  # there on another digest, and allowed to move: `latest` only

    @property
    def write(self) -> tuple[str, ...]:
        """The tags to write, in this order: `latest` last, so that it never names what its version does not."""
        return (*self.create, *self.move)


def parse(text: str) -> Version:
    """Return the version that `1.2.0` or `1.2.0-rc.1` writes. Raises Refusal."""
    match = _VERSION.fullmatch(text)
    if match is None:
        raise Refusal(f'"{text}" is not a version: expected MAJOR.MINOR.PATCH[-PRERELEASE] as SemVer 2.0.0 writes it')
    return Version(int(match[1]), int(match[2]), int(match[3]), tuple(match[4].split(".")) if match[4] else ())


def parse_tag(tag: str) -> Version:
    """Return the version of a git tag such as `v1.2.0`. Raises Refusal."""
    if not tag.startswith("v"):
        raise Refusal(f'"{tag}" is not a release tag: expected v and a version, such as v1.2.0')
    version = parse(tag[1:])
    if version.prerelease and version.prerelease[-1].lower() in _RESERVED:
        raise Refusal(
            f'"{tag}" ends in the name of an environment: that is for image tags, by promotion; '
            "number a pre-release, such as v1.2.0-beta.1"
        )
    if len(tag) + 1 + max(map(len, ENVIRONMENTS)) > _TAG_CHARACTERS:
        raise Refusal(f'"{tag}" is too long for an image tag')
    return version


def candidates(event: Event, ref: str, commit: str = "", *, environment: str = "") -> tuple[str, ...]:
    """Return the immutable tags that the event asks for, whatever the registry holds. Raises Refusal."""
    match event:
        case Event.RELEASE:
            return (f"v{parse_tag(ref)}",)
        case Event.PROMOTION:
            if environment not in ENVIRONMENTS:
                raise Refusal(f'"{environment}" is not an environment: expected one of {", ".join(ENVIRONMENTS)}')
            version = parse_tag(ref)
            if not version.stable:
                raise Refusal(f"{ref} is a pre-release: only stable versions are promoted")
            return (f"v{version}-{environment}",)
        case Event.BRANCH | Event.DEFAULT_BRANCH:
            if not _COMMIT.fullmatch(commit):
                raise Refusal(f'"{commit}" is not a commit: expected its full hexadecimal id')
            short = commit[:SHA_DIGITS]
            return (f"git-{short}", f"dev-{short}") if event is Event.DEFAULT_BRANCH else (f"dev-{short}",)


def is_highest_stable(version: Version, tags: Iterable[str]) -> bool:
    """Tell whether no stable version among the tags is higher. Other tags are not versions and do not count."""
    return version.stable and all(other <= version for tag in tags if (other := _stable(tag)) is not None)


def _stable(tag: str) -> Version | None:
    try:
        version = parse_tag(tag)
    except Refusal:
        return None
    return version if version.stable else None


def plan(
    event: Event,
    ref: str,
    digest: str,
    existing: Mapping[str, str],
    *,
    commit: str = "",
    environment: str = "",
    versions: Iterable[str] = (),
) -> Plan:
    """Return what to tag. Raises Refusal, a Conflict where a tag would have to be overwritten.

    `existing` are the repository's tags with their digests; `versions` are further tags (of git) that count for what
    is highest, so that a release whose image is still being built is not forgotten. A promotion must name the digest
    that the registry has for its version: it is a second name, not a second chance.
    """
    if not DIGEST.fullmatch(digest):
        raise Refusal(f'"{digest}" is not a digest: expected sha256: and 64 hexadecimal digits')
    wanted = candidates(event, ref, commit, environment=environment)
    if event is Event.PROMOTION:
        released = f"v{parse_tag(ref)}"
        if released not in existing:
            raise Refusal(f"{released} has not been released: there is nothing to promote")
        if existing[released] != digest:
            raise Conflict(f"{released} is {existing[released]}, not {digest}")
    conflicts = [tag for tag in wanted if existing.get(tag, digest) != digest]
    if conflicts:
        lines = (f"{tag} is {existing[tag]}" for tag in conflicts)
        raise Conflict(f"tags are written once: {'; '.join(lines)}; not {digest}")
    create = [tag for tag in wanted if tag not in existing]
    keep = [tag for tag in wanted if tag in existing]
    move: list[str] = []
    if event is Event.RELEASE and is_highest_stable(parse_tag(ref), [*existing, *versions]):
        standing = existing.get(LATEST)
        (create if standing is None else keep if standing == digest else move).append(LATEST)
    return Plan(digest, tuple(create), tuple(keep), tuple(move))
