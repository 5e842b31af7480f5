"""The one configuration: every option of every component, loaded once, wrong in no silent way.

Problem: four places spell the same options (`--set`, environment, env files, YAML), and a mistake in any of them shows
up weeks later, in production, as something that was not collected.
Promise: `load` returns one frozen, typed Config and where each value came from, or raises ConfigError with every
problem of every place at once, each with its origin and what to write instead. What `describe` prints loads as the
same Config.
Refused: a default in place of a wrong value, unknown names, showing secrets. Secret files are read, because only then
is it known that there is a secret; what a component opens itself (a schema, a certificate) is looked at when asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar import checkpoint, health, normalize, server, settings, sources, validation
from sidecar.errors import ConfigError, Problem
from sidecar.injector import settings as injector
from sidecar.loki import streams
from sidecar.metrics import durations
from sidecar.options import Duration, Secret, option
from sidecar.settings import checks, files, layers, reference
from sidecar.settings.layers import Given, Layer, Origin, Variables
from sidecar.sinks import loki, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NOWHERE = Path("/nonexistent")  # where no `.env` file of this machine is found
_FILE_BYTES = 1 << 20  # nothing that large is a configuration; whoever names a log file hears of it
_POD_VARIABLES = {
    "name": "POD_NAME",
    "namespace": "POD_NAMESPACE",
    "uid": "POD_UID",
    "node": "NODE_NAME",
    "container": "CONTAINER_NAME",
}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """Who we run beside, as the downward API tells; "" where it does not."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    node: str = ""
    container: str = ""


@dataclass(frozen=True, kw_only=True)
class Sinks:
    """The section `sinks`."""

    stdout: stdout.Config = field(default_factory=stdout.Config)
    loki: loki.Config = field(default_factory=loki.Config)


@dataclass(frozen=True, kw_only=True, repr=False)
class Config:
    """Everything that can be configured."""

    service_name: str = option(
        "",
        "Name of the followed service, for records that do not tell. "
        'Default: `OTEL_SERVICE_NAME`, else `CONTAINER_NAME`, else "unknown_service".',
    )
    environment: str = option(
        "",
        "Where this runs (`staging`, `production`); a label in Loki, and it names the env file `.env.<environment>`.",
    )
    source: sources.Config = field(default_factory=sources.Config)
    schema: validation.Config = field(default_factory=validation.Config)
    normalize: normalize.Config = field(default_factory=normalize.Config)
    metrics: durations.Config = field(default_factory=durations.Config)
    health: health.Config = field(default_factory=health.Config)
    http: server.Config = field(default_factory=server.Config)
    state: checkpoint.Config = field(default_factory=checkpoint.Config)
    sinks: Sinks = field(default_factory=Sinks)
    drain_seconds: Duration = option(
        Duration(10.0),
        "Longest time to deliver what is left at the end. Keep it below the pod's `terminationGracePeriodSeconds`.",
    )
    injector: injector.Config = field(default_factory=injector.Config)
    pod: Pod = field(default_factory=Pod)

    def __repr__(self) -> str:
        members = ", ".join(f"{member.name}={getattr(self, member.name)!r}" for member in fields(self))
        return settings.mask_credentials(f"Config({members})")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it came from."""

    config: Config
    origins: Mapping[str, str]  # option name → "sidecar.yaml line 4"; options at their default are not in it


def load(
    *,
    file: str | None = None,
    sets: Sequence[str] = (),
    env_files: Sequence[str] = (),
    environ: Mapping[str, str],
    cwd: Path,
    opening: bool = False,
) -> Loaded:
    """Load the configuration. Raises ConfigError with all problems at once.

    `opening`: those of the files that components will open too (schema, certificates), for whoever is about to.

    Precedence: `sets` > `environ` > `env_files` (the last wins) > `.env.<environment>` in `cwd` > `file`, else the file
    that SIDECAR_CONFIG names > defaults. Relative paths of these files, secrets included, start at `cwd`.
    """
    tree = settings.tree(Config)
    problems: list[Problem] = []

    env = [(name, _env_file(cwd, name, problems)) for name in env_files]
    environment = _visible(environ, env).get(f"{settings.PREFIX}ENVIRONMENT", "")
    if environment and "/" not in environment:
        implicit = f".env.{environment}"
        env.insert(0, (implicit, _env_file(cwd, implicit, problems, required=False)))
    visible = _visible(environ, env)

    stack: list[Layer] = []
    if name := file or visible.get(f"{settings.PREFIX}CONFIG"):
        stack.append(layers.yaml(_read(cwd, name, problems), name, tree))
    stack += [layers.environment(variables, tree, place) for place, variables in env]
    stack.append(layers.environment({key: (text, 0) for key, text in environ.items()}, tree))
    stack.append(layers.sets(sets, tree))

    given, values, invalid = _merge(stack, cwd, problems)
    origins = {name: one.origin for name, one in given.items()}
    names = _names(visible, problems)
    _fill_in(values, origins, names)
    pod = Pod(**{member: names[key] for member, key in _POD_VARIABLES.items()})
    config: Config = settings.build(Config, {**values, "pod": pod})

    def value(name: str) -> Any:  # noqa: ANN401  the option's kind tells
        return _value(config, name)

    def flaw(name: str, text: str) -> str:
        return _flaw(tree, name, text)

    found = [*checks.findings(value), *_label_findings(value), *injector.findings(value, flaw)]
    wrong = invalid.union(*(finding.names for finding in found))
    if _speaks_of_injection(given) and not _speaks_of_injection(wrong):
        found += _injected_findings(tree, config.injector)
    if opening:
        found += [*files.findings(value, cwd), *_schema_findings(config)]
    for finding in found:
        if invalid.isdisjoint(finding.names):
            named = finding.names[0]
            problems.append(given[named].problem(finding.text) if named in given else Problem(named, finding.text))
    if problems:
        raise ConfigError(problems)
    return Loaded(config, {name: str(origin) for name, origin in origins.items()})


def describe(loaded: Loaded) -> str:
    """Return the whole effective configuration as YAML, secrets masked, with the origin of what is not a default."""
    return reference.describe(settings.tree(Config), lambda name: _value(loaded.config, name), loaded.origins)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    return reference.json_schema(settings.tree(Config))


def markdown_table() -> str:
    """Return the table of all options for the README."""
    return reference.markdown_table(settings.tree(Config))


def _value(config: Config, name: str) -> Any:  # noqa: ANN401  the option's kind tells
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _merge(
    stack: Sequence[Layer], cwd: Path, problems: list[Problem]
) -> tuple[dict[str, Given], dict[str, Any], set[str]]:
    """Return what holds of each option, its value, and the names of those without a usable one.

    Values that are overridden must be right too: what overrides them may go away.
    """
    given: dict[str, Given] = {}
    values: dict[str, Any] = {}
    invalid: set[str] = set()
    for layer in stack:
        problems += layer.problems
        for name, one in layer.given.items():
            invalid.discard(name)
            try:
                values[name] = _read_value(one, cwd)
            except ValueError as error:
                problems.append(one.problem(str(error)))
                invalid.add(name)
        given |= layer.given
    for name, one in given.items():
        if one.option.kind.secret and name in values and (flaw := _secret_flaw(values[name])):
            problems.append(one.problem(flaw))
            invalid.add(name)
    return given, {name: value for name, value in values.items() if name not in invalid}, invalid


def _read_value(one: Given, cwd: Path) -> Any:  # noqa: ANN401  the option's kind tells
    return Secret(path=str(cwd / str(one.raw))) if one.from_file else settings.parse(one.option, one.raw)


def _label_findings(value: checks.Values) -> Iterator[checks.Finding]:
    """Return what is wrong with configured labels: what Loki takes, and what the sidecar sets itself."""
    for problem in streams.problems(value("sinks.loki.labels")):
        yield checks.Finding(("sinks.loki.labels",), problem)


def _schema_findings(config: Config) -> Iterator[checks.Finding]:
    if config.schema.path:
        try:
            validation.load(config.schema)
        except ConfigError as error:
            yield from (checks.Finding(("schema.path",), problem.text) for problem in error.problems)


def _speaks_of_injection(names: Iterable[str]) -> bool:
    """Say whether one of these options is the injector's. A sidecar has none, and pays nothing for what follows."""
    return any(name.startswith("injector.") for name in names)


def _injected_findings(tree: settings.Tree, section: injector.Config) -> Iterator[checks.Finding]:
    """Return why sidecars with these settings would end at their start: they load them by this very module.

    What is set holds for every pod, whatever log mode it asks for, so it must be right in each of them.
    """
    from sidecar.injector import samples  # noqa: PLC0415  a sidecar never asks

    said = set()
    for environ in samples.environments(section):
        try:
            load(environ=environ, cwd=_NOWHERE)
        except ConfigError as error:
            said |= {(problem.origin.partition("=")[0], problem.text) for problem in error.problems}
    for origin, text in sorted(said):
        name = tree.variables.get(origin, origin)
        default = samples.DEFAULTS.get(name, "settings")
        words = f"{name}: {text}" if default == "settings" else text
        yield checks.Finding((f"injector.defaults.{default}",), words)


def _flaw(tree: settings.Tree, name: str, text: str) -> str:
    """Return why this text is no value of the option of that name; "" where it is one."""
    if name not in tree.options:
        return f"unknown option{settings.did_you_mean(name, tree.options)}"
    try:
        settings.parse(tree.options[name], layers.unfold(tree.options[name], text))
    except ValueError as error:
        return str(error)
    return ""


def _secret_flaw(secret: Secret) -> str:
    try:
        settings.text(secret.get())
    except OSError as error:
        return f"cannot read the secret: {error.strerror}"
    except UnicodeDecodeError:
        return "cannot read the secret: not UTF-8 text"
    except ValueError as error:
        return f"cannot read the secret: {error}"
    return ""


def _names(visible: Mapping[str, str], problems: list[Problem]) -> dict[str, str]:
    """Return the variables that are read under the names other programs gave them; "" where unset."""
    names = {}
    for key in ("OTEL_SERVICE_NAME", *_POD_VARIABLES.values()):
        try:
            names[key] = settings.text(visible.get(key, ""))
        except ValueError as error:
            names[key] = ""
            problems.append(Problem(key, str(error)))
    return names


def _fill_in(values: dict[str, Any], origins: dict[str, Origin], names: Mapping[str, str]) -> None:
    """Decide the two defaults that depend on something else."""
    if not values.get("service_name"):
        key = next((key for key in ("OTEL_SERVICE_NAME", "CONTAINER_NAME") if names[key]), None)
        values["service_name"] = names[key] if key else "unknown_service"
        origins.pop("service_name", None)
        if key:
            origins["service_name"] = Origin("", key)
    values.setdefault("sinks.stdout.enabled", not values.get("sinks.loki.url"))


def _visible(environ: Mapping[str, str], env: Sequence[tuple[str, Variables]]) -> dict[str, str]:
    """Return every variable, ours or not: the environment wins, then the last file."""
    merged = {key: text for _, variables in env for key, (text, _) in variables.items()}
    return merged | dict(environ)


def _env_file(cwd: Path, name: str, problems: list[Problem], *, required: bool = True) -> Variables:
    variables, flaws = layers.env_file(_read(cwd, name, problems, required=required), name)
    problems += flaws
    return variables


def _read(cwd: Path, name: str, problems: list[Problem], *, required: bool = True) -> str:
    """Return the text of a configuration file; nothing, and a problem, where there is none."""
    try:
        with (cwd / name).open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) <= _FILE_BYTES:
            return content.decode("utf-8-sig")
        flaw = f"larger than {_FILE_BYTES >> 20} MiB; is this a configuration?"
    except FileNotFoundError as error:
        if not required:
            return ""
        flaw = f"cannot read: {error.strerror}"
    except OSError as error:
        flaw = f"cannot read: {error.strerror}"
    except UnicodeDecodeError as error:
        flaw = f"not UTF-8 text (byte {error.start + 1})"
    except ValueError as error:  # a path that no system takes
        flaw = f"cannot read: {error}"
    problems.append(Origin(name, "").problem(flaw))
    return ""
