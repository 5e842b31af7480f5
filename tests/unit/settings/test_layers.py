"""Each place of the configuration becomes one layer: the same texts under the same names, or problems with an origin."""

import pytest

from sidecar import config, settings
from sidecar.settings import layers

TREE = settings.tree(config.Config)


def raw(layer):
    assert [str(problem) for problem in layer.problems] == []
    return {name: given.raw for name, given in layer.given.items()}


def problems(layer):
    return [str(problem) for problem in layer.problems]


def environment(**variables):
    return layers.environment({name: (text, 0) for name, text in variables.items()}, TREE)


def test_names_in_the_environment_are_the_path_in_capitals():
    layer = environment(SIDECAR_SINKS_LOKI_URL="http://loki", SIDECAR_DRAIN_SECONDS="5s", PATH="/bin")

    assert raw(layer) == {"sinks.loki.url": "http://loki", "drain_seconds": "5s"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SIDECAR_SINKS_LOKI_ULR", "SIDECAR_SINKS_LOKI_URL"),
        ("SIDECAR_SINKS_LOKI_BACH", "SIDECAR_SINKS_LOKI_BATCH_…"),
        ("SIDECAR_SINKS_LOKI_PASWORD_FILE", "SIDECAR_SINKS_LOKI_PASSWORD_FILE"),
        ("SIDECAR_LOKI_URL", "SIDECAR_SINKS_LOKI_URL"),
        ("SIDECAR_PORT", "SIDECAR_HTTP_PORT"),
        ("SIDECAR_SERVICENAME", "SIDECAR_SERVICE_NAME"),
    ],
)
def test_an_unknown_variable_is_a_problem_with_a_near_miss(name, near):
    assert problems(environment(**{name: "9180"})) == [f'{name}: unknown variable; did you mean "{near}"?']


def test_a_variable_unlike_all_others_is_a_problem_without_a_near_miss():
    assert problems(environment(SIDECAR_XYZZY="1")) == ["SIDECAR_XYZZY: unknown variable"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("SIDECAR_SERVICE_PORT", "80"),
        ("SIDECAR_SERVICE_PORT_HTTP", "80"),
        ("SIDECAR_PORT", "tcp://10.0.0.1:80"),
        ("SIDECAR_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("SIDECAR_PORT_80_TCP_PROTO", "tcp"),
        ("SIDECAR_PORT_80_TCP_PORT", "80"),
        ("SIDECAR_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("SIDECAR_PORT_53_UDP", "udp://10.0.0.1:53"),
        ("SIDECAR_DEMO_SERVICE_HOST", "10.0.0.1"),
        ("SIDECAR_DEMO_PORT", "tcp://[fd00::1]:80"),
        ("SIDECAR_HTTP_PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_what_kubernetes_sets_for_a_service_named_sidecar_is_not_ours(name, text):
    assert raw(environment(**{name: text})) == {}


def test_no_option_has_a_name_that_kubernetes_sets():
    assert [name for name in TREE.variables if layers._SERVICE_LINK.fullmatch(name)] == []


def test_the_name_of_the_configuration_file_is_no_option():
    assert raw(environment(SIDECAR_CONFIG="sidecar.yaml")) == {}


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("GET /a,/b", ["GET /a", "/b"]),
        (" /a , /b ,", ["/a", "/b"]),
        ('["GET /a", /b]', ["GET /a", "/b"]),
        ("[]", []),
    ],
)
def test_a_list_is_separated_by_commas_or_in_flow_form(text, items):
    assert raw(environment(SIDECAR_METRICS_ROUTES=text)) == {"metrics.routes": items}


@pytest.mark.parametrize("text", [r"\d{4,6}", "[0-9,]{16}", "(a,b)c", r"\(,\)", "x[{(]y"])
def test_a_comma_within_brackets_does_not_split(text):
    layer = environment(SIDECAR_NORMALIZE_REDACT_PATTERNS=f"first,{text}")

    expected = ["first", r"\(", r"\)"] if text == r"\(,\)" else ["first", text]
    assert raw(layer) == {"normalize.redact.patterns": expected}


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("team=shop, tier=1", {"team": "shop", "tier": "1"}),
        ("{team: shop, n: 'a,b'}", {"team": "shop", "n": "a,b"}),
        ("{}", {}),
    ],
)
def test_a_mapping_is_pairs_or_in_flow_form(text, pairs):
    assert raw(layers.sets([f"sinks.loki.labels={text}"], TREE)) == {"sinks.loki.labels": pairs}


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("team", "expected pairs such as a=b,c=d"),
        ("a=1,a=2", '"a" stands here twice'),
        ("{a: [1]}", '"a": expected one value, got a list'),
        ("{a: 1, a: 2}", '"a" stands here and on line 1'),
    ],
)
def test_what_is_no_mapping_is_a_problem(text, flaw):
    (problem,) = problems(layers.sets([f"sinks.loki.labels={text}"], TREE))

    assert problem.startswith("--set sinks.loki.labels=")
    assert problem.endswith(f": {flaw}")


@pytest.mark.parametrize("text", ["", "  "])
def test_a_blank_is_as_good_as_nothing_where_blank_is_no_value(text):
    layer = environment(
        SIDECAR_HTTP_PORT=text, SIDECAR_SOURCE_KIND=text, SIDECAR_METRICS_ROUTES=text, SIDECAR_SINKS_LOKI_PASSWORD=text
    )

    assert raw(layer) == {}


def test_a_blank_is_the_empty_text_where_that_is_the_default():
    assert raw(environment(SIDECAR_SINKS_LOKI_URL="")) == {"sinks.loki.url": ""}


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("http.port", "--set http.port: expected KEY=VALUE"),
        ("sinks.loki.bach=1", '--set sinks.loki.bach: unknown option; did you mean "sinks.loki.batch.…"?'),
        ("loki.url=http://x", '--set loki.url: unknown option; did you mean "sinks.loki.url"?'),
        ("sinks.loki=x", "--set sinks.loki: is a section; set the options in it one by one"),
    ],
)
def test_a_wrong_set_is_a_problem(argument, problem):
    assert problems(layers.sets([argument], TREE)) == [problem]


def test_the_last_set_wins():
    assert raw(layers.sets(["http.port=1", "http.port=2"], TREE)) == {"http.port": "2"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=# comment", ""),
        ("A=b#c", "b#c"),
        ('A="b # c" # comment', "b # c"),
        (r'A="a \"b\" \\ \n"', 'a "b" \\ \n'),
        (r"A='a\n$B'", r"a\n$B"),
        ("A=$B", "$B"),
        ("A=b=c\r", "b=c"),
        ("A=1\nA=2", "2"),
        ("# A=1\n\nA=2", "2"),
    ],
)
def test_an_env_file_is_read_as_dotenv_does(text, value):
    variables, flaws = layers.env_file(text, ".env")

    assert variables["A"][0] == value
    assert flaws == []


@pytest.mark.parametrize("text", ["just text", "1A=b", "=b", 'A="b', "A='b", "A='b' c"])
def test_a_broken_line_of_an_env_file_is_a_problem_with_its_line(text):
    _, flaws = layers.env_file(f"\n{text}\n", ".env")

    assert [str(flaw).partition(":")[0] for flaw in flaws] == [".env"]
    assert str(flaws[0]).endswith("(line 2)")


def test_a_variable_of_an_env_file_keeps_its_place():
    layer = layers.environment({"SIDECAR_HTTP_PRT": ("1", 7)}, TREE, ".env")

    assert problems(layer) == ['.env: SIDECAR_HTTP_PRT: unknown variable; did you mean "SIDECAR_HTTP_PORT"? (line 7)']


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sinks: {loki: {bach: 1}}", 'f.yaml: sinks.loki.bach: unknown option; did you mean "batch"? (line 1)'),
        ("\nsource: {kid: file}", 'f.yaml: source.kid: unknown option; did you mean "kind"? (line 2)'),
        ("port: 9180", 'f.yaml: port: unknown option; did you mean "http.port"? (line 1)'),
        ("xyzzy: 1", "f.yaml: xyzzy: unknown option (line 1)"),
        (
            "sinks.loki.url: http://x",
            "f.yaml: sinks.loki.url: in YAML a section is a level of its own: write sinks: {loki: {url: …}} (line 1)",
        ),
        ("sinks: 5", "f.yaml: sinks: expected a section of options, got text (line 1)"),
        ("http: [a]", "f.yaml: http: expected a section of options, got a list (line 1)"),
        (
            "sinks: {loki: {labels: {a: {b: c}}}}",
            'f.yaml: sinks.loki.labels: "a": expected one value, got a mapping (line 1)',
        ),
        ("metrics: {routes: [a, ~]}", "f.yaml: metrics.routes: item 2: expected one value, got nothing (line 1)"),
        ("- a", "f.yaml: expected options such as `http: {port: 9180}`, got a list (line 1)"),
        ("\nhello", "f.yaml: expected options such as `http: {port: 9180}`, got text (line 2)"),
        ("http: {port: 1, port: 2}", 'f.yaml: "port" stands here and on line 1 (line 1)'),
    ],
)
def test_a_wrong_file_is_a_problem_with_place_and_line(text, problem):
    assert problems(layers.yaml(text, "f.yaml", TREE)) == [problem]


@pytest.mark.parametrize("text", ["", "http:", "http: {port: }", "http: {port: ~}", "---\n", "{}"])
def test_a_file_may_say_nothing(text):
    assert raw(layers.yaml(text, "f.yaml", TREE)) == {}


@pytest.mark.parametrize("empty", ["", "~"])
def test_an_empty_secret_beside_its_file_is_no_second_one(empty):
    text = f"sinks: {{loki: {{password: {empty}, password_file: /run/secret}}}}"

    assert layers.yaml(text, "f.yaml", TREE).given["sinks.loki.password"].from_file


@pytest.mark.parametrize(
    "layer",
    [
        environment(SIDECAR_SINKS_LOKI_PASSWORD="a", SIDECAR_SINKS_LOKI_PASSWORD_FILE="/b"),
        layers.sets(["sinks.loki.password_file=/b", "sinks.loki.password=a"], TREE),
        layers.yaml("sinks: {loki: {password: a, password_file: /b}}", "f.yaml", TREE),
    ],
    ids=["environment", "set", "yaml"],
)
def test_a_secret_and_its_file_in_one_place_is_a_problem(layer):
    (problem,) = problems(layer)

    assert "give either sinks.loki.password or sinks.loki.password_file, not both" in problem
