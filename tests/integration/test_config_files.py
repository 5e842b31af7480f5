"""Loading from real files: configuration, env files and secrets, whole, broken and changing."""

import os
import re
from pathlib import Path

import pytest

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.options import Secret

PASSWORD = "SIDECAR_SINKS_LOKI_PASSWORD_FILE"


@pytest.fixture
def load(tmp_path):
    def load(file=None, *, env_files=(), sets=(), **environ):
        return config.load(file=file, sets=sets, env_files=env_files, environ=environ, cwd=tmp_path)

    return load


@pytest.fixture
def problems(load):
    def problems(*args, **kwargs):
        with pytest.raises(ConfigError) as caught:
            load(*args, **kwargs)
        return [str(problem) for problem in caught.value.problems]

    return problems


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_every_place_overrides_the_weaker_ones(load, write):
    write("sidecar.yaml", "http: {port: 1}")
    write(".env.staging", "SIDECAR_HTTP_PORT=2")
    write("a.env", "SIDECAR_HTTP_PORT=3")
    write("b.env", "SIDECAR_HTTP_PORT=4")
    staging = {"SIDECAR_ENVIRONMENT": "staging"}
    both = ["a.env", "b.env"]

    loaded = [
        load("sidecar.yaml"),
        load("sidecar.yaml", **staging),
        load("sidecar.yaml", env_files=["a.env"], **staging),
        load("sidecar.yaml", env_files=both, **staging),
        load("sidecar.yaml", env_files=both, **staging, SIDECAR_HTTP_PORT="5"),
        load("sidecar.yaml", env_files=both, **staging, SIDECAR_HTTP_PORT="5", sets=["http.port=6"]),
    ]

    assert [one.config.http.port for one in loaded] == [1, 2, 3, 4, 5, 6]
    assert [one.origins["http.port"] for one in loaded] == [
        "sidecar.yaml line 1",
        ".env.staging line 1",
        "a.env line 1",
        "b.env line 1",
        "SIDECAR_HTTP_PORT",
        "--set",
    ]


def test_the_variable_names_the_file_unless_the_command_does(load, write):
    write("a.yaml", "http: {port: 1}")
    write("b.yaml", "http: {port: 2}")

    assert load(SIDECAR_CONFIG="a.yaml").config.http.port == 1
    assert load("b.yaml", SIDECAR_CONFIG="a.yaml").config.http.port == 2


def test_an_env_file_may_say_everything_the_environment_may(load, write):
    write("a.yaml", "http: {port: 1}")
    write("x.env", "SIDECAR_CONFIG=a.yaml\nOTEL_SERVICE_NAME=orders\nPOD_NAME=p\nSIDECAR_ENVIRONMENT=dev\nOTHER=1")
    write(".env.dev", "SIDECAR_DRAIN_SECONDS=1s")

    loaded = load(env_files=["x.env"]).config

    assert (loaded.http.port, loaded.service_name, loaded.pod.name, loaded.drain_seconds) == (1, "orders", "p", 1)


def test_there_need_not_be_an_env_file_of_the_environment(load):
    assert load(SIDECAR_ENVIRONMENT="staging").config.environment == "staging"


@pytest.mark.parametrize("environment", ["x" * 300, "a\0b"])
def test_an_environment_that_cannot_name_a_file_is_a_problem(problems, environment):
    assert "cannot read" in "\n".join(problems(SIDECAR_ENVIRONMENT=environment))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe\x00garbage", "f.yaml: not UTF-8 text (byte 1)"),
        (b"a: \x00", "f.yaml: not YAML: character '\\x00' (line 1)"),
        (bytes(range(1, 9)), "f.yaml: not YAML: character '\\x01' (line 1)"),
        (b"#" * (1 << 20) + b"\n", "f.yaml: larger than 1 MiB; is this a configuration?"),
        ("http:\n\tport: 1\n", "f.yaml: a tab cannot indent; use spaces (line 2)"),
        ("a: 1", "f.yaml: a: unknown option (line 1)"),
    ],
    ids=["not text", "nul", "control", "large", "tab", "unknown"],
)
def test_a_file_that_cannot_be_read_is_a_problem(problems, write, content, problem):
    write("f.yaml", content)

    assert problems("f.yaml") == [problem]


def test_a_byte_order_mark_and_carriage_returns_do_no_harm(load, write):
    write("f.yaml", b"\xef\xbb\xbfhttp:\r\n  port: 1\r\n")
    write("f.env", b"\xef\xbb\xbfSIDECAR_SERVICE_NAME=orders\r\n")

    loaded = load("f.yaml", env_files=["f.env"]).config

    assert (loaded.http.port, loaded.service_name) == (1, "orders")


def test_missing_files_are_problems_all_at_once(problems, tmp_path):
    (tmp_path / ".env.dev").mkdir()

    assert problems("f.yaml", env_files=["f.env"], SIDECAR_ENVIRONMENT="dev") == [
        "f.env: cannot read: No such file or directory",
        ".env.dev: cannot read: Is a directory",
        "f.yaml: cannot read: No such file or directory",
    ]


def test_a_secret_is_read_from_its_file_without_the_newline(load, write):
    write("secret", "hunter2\r\n")
    write("f.yaml", "sinks: {loki: {username: u, password_file: secret}}")

    for loaded in (
        load("f.yaml"),
        load(sets=["sinks.loki.username=u", "sinks.loki.password_file=secret"]),
        load(SIDECAR_SINKS_LOKI_USERNAME="u", **{PASSWORD: "secret"}),
    ):
        assert loaded.config.sinks.loki.password.get() == "hunter2"
        assert "hunter2" not in f"{loaded} {config.describe(loaded)}"


def test_the_file_of_a_secret_is_shown(load, write):
    path = write("secret", "hunter2")

    text = config.describe(load(SIDECAR_SINKS_LOKI_USERNAME="u", **{PASSWORD: str(path)}))

    assert re.search(rf"    password_file: \S*{re.escape(path.name)}\S*  # {PASSWORD}\n", text)


def test_a_stronger_place_may_give_the_secret_itself(load):
    loaded = load(SIDECAR_SINKS_LOKI_USERNAME="u", **{PASSWORD: "missing"}, sets=["sinks.loki.password=p"])

    assert loaded.config.sinks.loki.password.get() == "p"


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (None, "cannot read the secret: No such file or directory"),
        (b"", "cannot read the secret: the file is empty"),
        (b"\n", "cannot read the secret: the file is empty"),
        (b"\xff", "cannot read the secret: not UTF-8 text"),
        (b"a\nb\n", "cannot read the secret: expected text without control characters, found '\\n' at character 2"),
        (b"a" * 65537, "cannot read the secret: longer than 64 KiB"),
    ],
)
def test_an_unusable_secret_is_a_problem_that_does_not_show_it(problems, write, content, flaw):
    if content is not None:
        write("secret", content)

    assert problems(SIDECAR_SINKS_LOKI_USERNAME="u", **{PASSWORD: "secret"}) == [f'{PASSWORD}="secret": {flaw}']


def test_a_secret_is_no_pipe(problems, tmp_path):
    """Opening a named pipe waits for its writer, perhaps for ever."""
    os.mkfifo(tmp_path / "secret")

    (problem,) = problems(SIDECAR_SINKS_LOKI_USERNAME="u", **{PASSWORD: "secret"})

    assert problem.endswith("not a regular file")


def test_a_secret_follows_its_file(write):
    path = write("secret", "old\n")
    secret = Secret(path=str(path))
    assert secret.get() == "old"

    path.write_text("renewed\n")

    assert secret.get() == "renewed"


def test_a_secret_follows_a_mount_that_is_swapped(tmp_path):
    """Kubernetes swaps a symbolic link to a directory; both files may have one size and one time."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text(f"{name}\n")
        os.utime(tmp_path / name / "secret", ns=(0, 0))
    (tmp_path / "data").symlink_to("one")
    secret = Secret(path=str(tmp_path / "data" / "secret"))
    assert secret.get() == "one"

    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")

    assert secret.get() == "two"


def test_the_last_secret_read_stays_in_force_while_its_file_cannot_be_read(write):
    path = write("secret", "old")
    secret = Secret(path=str(path))
    assert secret.get() == "old"

    path.write_text("")
    assert secret.get() == "old"
    path.unlink()
    assert secret.get() == "old"
    path.write_text("new one")
    assert secret.get() == "new one"


def test_a_secret_that_was_never_readable_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Secret(path=str(tmp_path / "missing")).get()


CERTIFICATES = Path(__file__).parent.parent / "support" / "certificates"


def test_everything_wrong_is_said_at_once_what_is_in_files_included(tmp_path, monkeypatch):
    (tmp_path / "broken.json").write_text('{"type": 1}')
    (tmp_path / "no.pem").write_text("nothing")
    sets = ["http.port=abc", "schema.path=broken.json", "sinks.loki.ca_file=none.pem"]
    pair = ["sinks.loki.cert_file=no.pem", "sinks.loki.key_file=no.pem"]
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as caught:
        config.load(sets=[*sets, *pair], environ={}, cwd=tmp_path, opening=True)

    said = sorted(map(str, caught.value.problems))
    assert [one.partition("=")[0].removeprefix("--set ") for one in said] == [
        "http.port",
        "schema.path",
        "sinks.loki.ca_file",
        "sinks.loki.cert_file",
    ]
    assert "No such file" in said[2]
    assert "expected PEM files of a certificate and its key" in said[3]


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ({"ca_file": "authority.pem", "cert_file": "client.pem", "key_file": "client.key"}, None),
        ({"ca_file": "client.key"}, "a PEM file of certificates"),
        ({"cert_file": "client.pem", "key_file": "client.pem"}, "a certificate and its key"),
        ({"cert_file": "client.pem", "key_file": "."}, "not a regular file"),
    ],
    ids=str,
)
def test_certificates_are_looked_at_before_a_sink_retries_for_ever(sets, says):
    """As a missing password file is."""
    said = [f"sinks.loki.{name}={file}" for name, file in sets.items()]

    if says is None:
        config.load(sets=said, environ={}, cwd=CERTIFICATES, opening=True)
        return
    with pytest.raises(ConfigError) as caught:
        config.load(sets=said, environ={}, cwd=CERTIFICATES, opening=True)
    [problem] = caught.value.problems
    assert says in str(problem)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("http.port: 5\n", "http: {port: …}"),
        ("sinks.loki.url: x\n", "sinks: {loki: {url: …}}"),
        ("sinks: {loki.url: x}\n", "loki: {url: …}"),
        ("sinks.loki: {url: x}\n", "sinks: {loki: …}"),
    ],
)
def test_a_name_with_dots_is_told_to_be_nested(problems, write, text, says):
    write("sidecar.yaml", text)

    [problem] = problems("sidecar.yaml")

    assert f"write {says}" in problem
