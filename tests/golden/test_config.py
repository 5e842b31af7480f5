"""The words of `sidecar check`, for whole configurations.

A file of config/ holds what is said, in parts headed `=== NAME`: files by their name (`sidecar.yaml` is given by `-c`),
`=== environment`, `=== --set` and `=== --env-file` line by line, and after `=== says` what is printed.
"""

import re
from pathlib import Path

import pytest

from sidecar import config
from sidecar.errors import ConfigError

CASES = sorted((Path(__file__).parent / "config").glob("*.txt"))
_HEAD = re.compile(r"^=== (.+)\n", re.MULTILINE)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_configuration_is_told_in_these_words(case, tmp_path, update_golden):
    text = case.read_text(encoding="utf-8")
    _, *pieces = _HEAD.split(text)
    parts = dict(zip(pieces[::2], pieces[1::2], strict=True))

    said = _check(parts, tmp_path)

    if update_golden:
        case.write_text(text.partition("=== says\n")[0] + f"=== says\n{said}", encoding="utf-8")
    else:
        assert said == parts["says"]


def _check(parts, directory):
    special = {"environment", "--set", "--env-file", "says"}
    for name in parts.keys() - special:
        (directory / name).write_text(parts[name], encoding="utf-8")
    environment, sets, env_files = (parts.get(name, "").splitlines() for name in ("environment", "--set", "--env-file"))
    try:
        loaded = config.load(
            file="sidecar.yaml" if "sidecar.yaml" in parts else None,
            sets=sets,
            env_files=env_files,
            environ=dict(line.split("=", 1) for line in environment),
            cwd=directory,
        )
    except ConfigError as error:
        return f"{error}\n"
    return config.describe(loaded).replace(str(directory), "/etc/sidecar")
