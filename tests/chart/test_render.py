"""R22-R27: what the chart renders, by Helm itself, for its defaults and for every case in ci/."""

from __future__ import annotations

import json
import re
import shutil

import jsonschema
import pytest
import yaml

import sidecar
from sidecar import config
from sidecar.injector import manifests, names, patch, policy, settings
from tests.support import charts, crds, programs

pytestmark = pytest.mark.e2e

GOLDEN = programs.ROOT / "tests" / "golden" / "chart"
LIBRARY = programs.ROOT / "tests" / "chart" / "shop"


@pytest.fixture(scope="module", params=charts.CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def rendered(case):
    return charts.render(*charts.values(case))


def test_r22_lint_finds_nothing(case):
    programs.passes("helm", "lint", "--strict", charts.CHART, *charts.KUBERNETES, *charts.values(case))


def test_r22_a_case_renders_what_its_golden_file_says(case, rendered, update_golden):
    path = GOLDEN / f"{case}.yaml"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rendered, encoding="utf-8")

    assert rendered == path.read_text(encoding="utf-8")


def test_r22_two_renders_are_equal(case, rendered):
    assert charts.render(*charts.values(case)) == rendered


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.37"])
def test_r22_every_object_satisfies_the_schemas_of_kubernetes(rendered, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="not installed: make e2e installs it")
    checked = 0
    for one in charts.objects(rendered):
        young = one["kind"].startswith("MutatingAdmissionPolicy") and version != "1.37"
        if not young and not any(group in one["apiVersion"] for group in charts.CUSTOM):
            kubernetes_validate.validate(one, version, strict=True)
            checked += 1

    assert checked or "policy" in rendered or "monitoring.coreos.com" in rendered


def test_every_custom_resource_satisfies_what_its_operator_reads(rendered):
    for one in charts.objects(rendered):
        if any(group in one["apiVersion"] for group in charts.CUSTOM):
            jsonschema.validate(one, crds.SCHEMAS[one["kind"]])


def test_a_self_signed_issuer_is_made_where_none_is_named():
    text = charts.render("--set", "certificates.mode=certManager")

    for kind in ("Issuer", "Certificate"):
        jsonschema.validate(charts.only(text, kind), crds.SCHEMAS[kind])
    issuer = charts.only(text, "Certificate")["spec"]["issuerRef"]
    assert issuer == {"name": charts.only(text, "Issuer")["metadata"]["name"], "kind": "Issuer"}
    annotations = charts.only(text, "MutatingWebhookConfiguration")["metadata"]["annotations"]
    certificate = charts.only(text, "Certificate")["metadata"]
    assert annotations["cert-manager.io/inject-ca-from"] == f"{certificate['namespace']}/{certificate['name']}"


def test_r24_every_object_has_the_common_labels_and_a_name_that_fits(rendered):
    for one in charts.objects(rendered):
        labels = one["metadata"]["labels"]
        assert {"helm.sh/chart", *(f"app.kubernetes.io/{name}" for name in _LABELS)} <= set(labels), one["kind"]
        assert len(one["metadata"]["name"]) <= 63
        assert all(len(str(value)) <= 63 for value in labels.values())


_LABELS = ("name", "instance", "version", "managed-by", "component", "part-of")


def test_r24_selectors_use_only_what_never_changes(rendered):
    for one in charts.objects(rendered):
        selector = one.get("spec", {}).get("selector") or {}
        selector = selector.get("matchLabels", selector)
        if selector and one["kind"] != "PodMonitor":
            assert set(selector) == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
    for template in charts.pod_templates(rendered):
        assert template["metadata"]["labels"]["gin-sidecar.io/inject"] == "false"


def test_r24_no_credential_stands_in_anything_that_is_rendered(rendered):
    assert charts.of_kind(rendered, "Secret") == []
    assert not re.search(r"(?i)password: \S|bearer_token: \S", rendered)


def test_r14_r15_every_container_is_restricted_and_bounded(rendered):
    for template in charts.pod_templates(rendered):
        for container in template["spec"]["containers"]:
            security = container["securityContext"]
            assert security["runAsNonRoot"] is True
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["requests"])
            assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])
            assert "cpu" not in container["resources"]["limits"]
        for volume in template["spec"]["volumes"]:
            assert volume.get("emptyDir", {"sizeLimit": ""}).keys() == {"sizeLimit"}
            assert "hostPath" not in volume


def _injector(rendered, tmp_path):
    """Load what the injector of this render would load."""
    file = tmp_path / "injector.yaml"
    file.write_text(charts.only(rendered, "ConfigMap")["data"]["injector.yaml"], encoding="utf-8")
    return config.load(file=str(file), environ={}, cwd=tmp_path).config.injector


def test_the_injector_takes_the_configuration_of_every_webhook_case(case, rendered, tmp_path):
    if "injector.yaml" not in rendered:
        assert case in ("library", "policy")
        return
    plain = [one for one in charts.of_kind(rendered, "ConfigMap") if "injector.yaml" in one["data"]]
    loaded = _injector(yaml.safe_dump_all(plain), tmp_path)

    assert loaded.listen == "0.0.0.0:10250"
    assert set(names.SYSTEM_NAMESPACES) | {"platform"} <= set(loaded.excluded_namespaces)
    if case == "certmanager":
        assert loaded.image == "ghcr.io/gin-sidecar/gin-sidecar@sha256:" + "1" * 64
        assert loaded.defaults.loki_labels == {"cluster": "eu-1", "region": "eu"}
        assert loaded.defaults.settings["normalize.timezone"] == "Europe/Berlin"
        assert "monitoring" in loaded.excluded_namespaces


def test_r07_the_webhooks_are_asked_as_they_must_be():
    webhooks = charts.only(charts.render(), "MutatingWebhookConfiguration")["webhooks"]

    assert {one["clientConfig"]["service"]["path"] for one in webhooks} == {"/mutate/cri", "/mutate/api"}
    for one in webhooks:
        assert one["failurePolicy"] == "Ignore"
        assert one["timeoutSeconds"] <= 5
        assert one["reinvocationPolicy"] == "IfNeeded"
        assert one["matchPolicy"] == "Equivalent"
        assert one["sideEffects"] == "None"
        assert one["admissionReviewVersions"] == ["v1"]
        assert [rule["operations"] for rule in one["rules"]] == [["CREATE"]]


def _holds(expressions, labels):
    def one(expression):
        value = labels.get(expression["key"])
        match expression["operator"]:
            case "In":
                return value in expression["values"]
            case "NotIn":
                return value not in expression["values"]
            case "Exists":
                return value is not None

    return all(map(one, expressions))


@pytest.mark.parametrize("security", [None, "privileged", "baseline", "restricted"])
@pytest.mark.parametrize("namespace_label", [None, "true", "false", "yes"])
@pytest.mark.parametrize("pod_label", [None, "true", "false", "yes"])
@pytest.mark.parametrize("namespace", ["shop", "kube-system", "platform"])
def test_the_api_server_asks_at_most_once_and_only_for_pods_that_may_want_a_sidecar(
    webhooks, security, namespace_label, pod_label, namespace
):
    space = {"kubernetes.io/metadata.name": namespace, "pod-security.kubernetes.io/enforce": security}
    space = {key: value for key, value in (space | {names.INJECT: namespace_label}).items() if value is not None}
    pod = {names.INJECT: pod_label} if pod_label else {}

    asked = [
        one["clientConfig"]["service"]["path"]
        for one in webhooks
        if _holds(one["namespaceSelector"]["matchExpressions"], space)
        and _holds(one["objectSelector"]["matchExpressions"], pod)
    ]

    wanted = namespace == "shop" and pod_label != "false" and (pod_label is not None or namespace_label == "true")
    mode = "api" if security in ("baseline", "restricted") else "cri"
    assert asked == ([f"/mutate/{mode}"] if wanted else [])


@pytest.fixture(scope="module")
def webhooks():
    return charts.only(charts.render(), "MutatingWebhookConfiguration")["webhooks"]


def test_r25_the_injector_is_redundant_spread_and_without_a_token():
    text = charts.render()
    spec = charts.only(text, "Deployment")["spec"]
    pod = spec["template"]["spec"]

    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["automountServiceAccountToken"] is False
    assert len(pod["topologySpreadConstraints"]) == 2
    assert pod["containers"][0]["ports"][0]["containerPort"] == 10250
    assert charts.only(text, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert charts.only(text, "NetworkPolicy")["spec"]["egress"] == []
    probe = pod["containers"][0]["livenessProbe"]
    times = [probe[key] for key in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")]
    assert times == [10, 5, 3, 3]


@pytest.mark.parametrize(
    ("switch", "kind", "default"),
    [
        ("injector.podDisruptionBudget", "PodDisruptionBudget", True),
        ("injector.networkPolicy", "NetworkPolicy", True),
        ("podMonitor.enabled", "PodMonitor", False),
        ("prometheusRule.enabled", "PrometheusRule", False),
        ("serviceAccount.create", "ServiceAccount", True),
    ],
)
def test_r23_a_switch_alone_decides_whether_there_is_an_object(switch, kind, default):
    """Never the API server's abilities: `helm template` and Argo CD do not know them."""
    on = len(charts.of_kind(charts.render("--set", f"{switch}=true"), kind))
    off = len(charts.of_kind(charts.render("--set", f"{switch}=false"), kind))

    assert on > off
    assert len(charts.of_kind(charts.render(), kind)) == (on if default else off)


def test_r23_no_template_asks_what_the_api_server_can():
    for path in (charts.CHART / "templates").iterdir():
        text = path.read_text(encoding="utf-8")
        asked = set(re.findall(r"Capabilities\.(\w+)", text))
        assert asked <= ({"KubeVersion"} if path.name == "_constants.tpl" else set()), path.name
        assert not re.search(r"\{\{[^}]*\b(gen\w+Cert|genCA|rand\w+|now|lookup|uuidv4)\b", text), path.name


def test_nothing_waits_for_what_comes_after_it(rendered):
    """`helm install --wait` runs hooks once everything is ready: a certificate made by a hook would never come."""
    assert "helm.sh/hook" not in rendered


def test_the_certificate_job_has_another_name_when_it_would_be_another_job():
    def name(*arguments):
        return charts.only(charts.render(*arguments), "Job")["metadata"]["name"]

    assert name() == name("--set", "injector.replicas=3")
    assert name() != name("--set", "certificates.days=30")


def test_r24_a_digest_beats_a_tag():
    digest = "sha256:" + "a" * 64
    text = charts.render("--set", "image.tag=v9.9.9", "--set", f"image.digest={digest}")

    container = charts.only(text, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(f"@{digest}")


def test_r21_helm_refuses_latest_and_a_typo():
    for wrong in ("image.tag=latest", "defaults.loki_ulr=http://x"):
        done = programs.run("helm", "template", "x", charts.CHART, *charts.KUBERNETES, "--set", wrong)

        assert done.returncode != 0
        assert "schema" in done.stderr


def test_r19_log_access_is_what_the_offline_command_writes():
    text = charts.render(*charts.values("certmanager"))
    ours = {"app.kubernetes.io/component": "log-access"}.items()
    roles = [one for one in charts.of_kind(text, "Role") if ours <= one["metadata"]["labels"].items()]
    bindings = [one for one in charts.of_kind(text, "RoleBinding") if ours <= one["metadata"]["labels"].items()]

    accounts = [("billing", "default"), ("shop", "default"), ("shop", "checkout")]
    expected = [*map(manifests.role, ["billing", "shop"])]
    assert [_bare(one) for one in roles] == [_bare(one) for one in expected]
    assert [_bare(one) for one in bindings] == [_bare(manifests.binding(*one)) for one in accounts]


def test_a_namespace_in_two_entries_of_log_access_gets_one_role_and_each_account_one_binding():
    entries = [("shop", "a"), ("shop", "b"), ("shop", "a")]
    said = json.dumps([{"namespace": namespace, "serviceAccounts": [account]} for namespace, account in entries])

    text = charts.render("--set-json", f"logAccess={said}")

    made = [one["metadata"]["name"] for one in charts.objects(text) if one["metadata"].get("namespace") == "shop"]
    assert made == ["gin-sidecar-logs", "gin-sidecar-logs-a", "gin-sidecar-logs-b"]


@pytest.mark.parametrize(("version", "native"), [("1.27.3", False), ("v1.28.9-gke.1", False), ("1.29.0", True)])
def test_r12_what_helm_knows_of_the_cluster_decides_about_native_sidecars_where_nobody_says(version, native, tmp_path):
    """Rule R12: an older Kubernetes waits for the end of an init container that never ends."""
    loaded = _injector(charts.render("--kube-version", version), tmp_path)

    assert settings.native_by_version(loaded) is native
    said = _injector(charts.render("--kube-version", version, "--set", "injector.kubernetesVersion=1.29"), tmp_path)
    assert settings.native_by_version(said), "who says it knows better"
    policy = charts.only(charts.render("--kube-version", version, "--set", "injector.mode=policy"), _POLICY)
    [constant] = [one for one in policy["spec"]["variables"] if one["name"] == "nativeByVersion"]
    assert constant["expression"] == str(native).lower()


@pytest.mark.parametrize(("linger", "grace"), [("5s", 30), ("90s", 115), ("500ms", 26), ("2m", 145)])
def test_r25_the_injector_may_linger_as_long_as_it_wants_to(linger, grace):
    template = charts.pod_templates(charts.render("--set", f"injector.linger={linger}"))[0]

    assert template["spec"]["terminationGracePeriodSeconds"] == grace


def test_a_limit_below_its_request_is_told_while_rendering():
    for limit in ("defaults.memory_request=256Mi", "defaults.ephemeral_limit=32M"):
        done = programs.run("helm", "template", "x", charts.CHART, *charts.KUBERNETES, "--set", limit)

        assert done.returncode != 0
        assert "must be at least defaults." in done.stderr


_POLICY = "MutatingAdmissionPolicy"


def _bare(one):
    return one | {"metadata": {key: one["metadata"][key] for key in ("name", "namespace")}}


def test_r23_rules_and_dashboards_arrive_as_they_are():
    text = charts.render(*charts.values("certmanager"))
    rule = charts.only(text, "PrometheusRule")
    (board,) = [one for one in charts.of_kind(text, "ConfigMap") if one["metadata"]["name"].endswith("-dashboards")]

    assert rule["spec"] == yaml.safe_load((charts.CHART / "rules" / "gin-sidecar.yaml").read_text())
    for path in (charts.CHART / "dashboards").glob("*.json"):
        assert json.loads(board["data"][path.name]) == json.loads(path.read_text())
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_r20_every_sidecar_is_found_by_the_name_of_its_port():
    monitors = charts.of_kind(charts.render("--set", "podMonitor.enabled=true"), "PodMonitor")
    (endpoint,) = monitors[0]["spec"]["podMetricsEndpoints"]

    assert endpoint["port"] == names.PORT
    assert endpoint["interval"] == "15s"
    assert monitors[0]["spec"]["namespaceSelector"] == {"any": True}


@pytest.mark.parametrize(
    ("found", "job"),
    [
        ({"controller_kind": "ReplicaSet", "controller_name": "orders-7d4b9c8f6d"}, "orders"),
        ({"controller_kind": "StatefulSet", "controller_name": "orders-service"}, "orders-service"),
        ({"controller_kind": "ReplicaSet", "controller_name": "x-1", "label_app": "orders"}, "orders"),
        ({"label_app": "x", "label_app_kubernetes_io_name": "orders"}, "orders"),
        ({}, "platform/gin-sidecar-sidecars"),
    ],
    ids=["deployment", "statefulset", "app", "name", "nothing"],
)
def test_the_job_of_a_sidecar_is_the_name_of_its_service(found, job):
    """As Prometheus relabels: values joined by ;, the whole must match, the first group replaces."""
    monitors = charts.of_kind(charts.render("--set", "podMonitor.enabled=true"), "PodMonitor")
    labels = {f"__meta_kubernetes_pod_{name}": value for name, value in found.items()}
    labels["job"] = "platform/gin-sidecar-sidecars"

    for rule in monitors[0]["spec"]["podMetricsEndpoints"][0]["relabelings"]:
        joined = ";".join(labels.get(name, "") for name in rule["sourceLabels"])
        if match := re.fullmatch(rule["regex"], joined):
            labels[rule["targetLabel"]] = match[1]

    assert labels["job"] == job


# the policy


def _as_configuration(values, tmp_path):
    """Return the injector's configuration of a values file that renders none."""
    merged = yaml.safe_load((charts.CHART / "values.yaml").read_text())
    given = yaml.safe_load((charts.CHART / "ci" / f"{values}-values.yaml").read_text())
    section = {
        "image": f"{given['image']['repository']}:{given['image']['tag']}",
        "kubernetes_version": given["injector"]["kubernetesVersion"],
        "excluded_namespaces": [*names.SYSTEM_NAMESPACES, "platform"],
        "defaults": merged["defaults"] | given["defaults"],
    }
    file = tmp_path / "injector.yaml"
    file.write_text(json.dumps({"injector": section}))
    return config.load(file=str(file), environ={}, cwd=tmp_path).config.injector


def test_the_policy_is_the_one_that_the_injector_would_write(tmp_path):
    rendered = charts.only(charts.render(*charts.values("policy")), "MutatingAdmissionPolicy")["spec"]
    expected = policy.policy(policy.constants(_as_configuration("policy", tmp_path)))["spec"]

    def constants(spec):
        return {one["name"]: _read_cel(one["expression"]) for one in spec["variables"] if one["name"] in given}

    given = policy.constants(_as_configuration("policy", tmp_path))
    assert constants(rendered) == constants(expected)
    assert set(constants(rendered)) == set(given)
    logic = [one for one in expected["variables"] if one["name"] not in given]
    assert rendered["variables"][len(given) :] == logic
    for same in ("mutations", "matchConditions", "failurePolicy", "reinvocationPolicy"):
        assert rendered[same] == expected[same]


def _read_cel(expression):
    """Read a constant: JSON, with dyn() around members of mappings."""
    return json.loads(re.sub(r"dyn\((\"(?:[^\"\\]|\\.)*\")\)", r"\1", expression))


# templates for a team's own chart


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A team's chart with ours as its dependency, as `helm dependency update` lays it."""
    made = tmp_path_factory.mktemp("parent") / "shop"
    shutil.copytree(LIBRARY, made)
    shutil.copytree(charts.CHART, made / "charts" / "gin-sidecar")
    return made


@pytest.mark.parametrize("mode", ["cri", "api", "file", "fifo"])
@pytest.mark.parametrize("native", ["true", "false"])
def test_r26_a_container_from_the_templates_is_the_one_that_the_injector_puts_in(parent, mode, native, tmp_path):
    arguments = ("--set", f"logMode={mode}", "--set-string", f"gin-sidecar.defaults.native={native}")
    text = charts.render(*arguments, chart=parent, name="shop", namespace="shop")
    template = charts.only(text, "Deployment")["spec"]["template"]
    ours = [one for one in _all(template["spec"]) if one["name"] == names.CONTAINER]
    volumes = [one for one in template["spec"]["volumes"] if one["name"].startswith("gin-sidecar-")]

    injected = _inject(template, mode, native, tmp_path)

    assert ours == [one for one in _all(injected["spec"]) if one["name"] == names.CONTAINER]
    assert volumes == [one for one in injected["spec"]["volumes"] if one["name"].startswith("gin-sidecar-")]
    status = json.loads(template["metadata"]["annotations"][names.STATUS])
    assert status == json.loads(injected["metadata"]["annotations"][names.STATUS])
    application = template["spec"]["containers"][0]
    assert application.get("volumeMounts") == injected["spec"]["containers"][0].get("volumeMounts")


def _all(spec):
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _inject(template, mode, native, tmp_path):
    """Take our container out again and let the injector put its own in."""
    pod = json.loads(json.dumps(template))
    pod["metadata"] |= {"namespace": "shop", "annotations": {}}
    spec = pod["spec"]
    for place in ("initContainers", "containers"):
        spec[place] = [one for one in spec.get(place, ()) if one["name"] != names.CONTAINER]
    if not spec["initContainers"]:
        del spec["initContainers"]
    spec["volumes"] = [one for one in spec["volumes"] if not one["name"].startswith("gin-sidecar-")]
    for one in spec["containers"]:
        one.pop("volumeMounts", None)
    section = {
        "image": f"ghcr.io/gin-sidecar/gin-sidecar:v{sidecar.__version__}",
        "defaults": yaml.safe_load((LIBRARY / "values.yaml").read_text())["gin-sidecar"]["defaults"]
        | {"native": native, "log_mode": mode, "log_path": "/var/log/shop/shop.log"},
    }
    file = tmp_path / "injector.yaml"
    file.write_text(json.dumps({"injector": section}))
    loaded = config.load(file=str(file), environ={}, cwd=tmp_path).config.injector
    decision = patch.plan(pod, loaded, namespace="shop", auto="cri", selected=True)
    assert decision.injected, decision
    return _applied(pod, decision.patch)


def _applied(pod, operations):
    """Apply a patch that only adds, which is all that the injector's does."""
    for operation in operations:
        assert operation["op"] == "add"
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = pod
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), operation["value"])
        else:
            place[last] = operation["value"]
    return pod


def test_r26_a_typo_in_a_parents_values_is_refused_by_our_schema(parent):
    for wrong in ("gin-sidecar.image.tag=latest", "gin-sidecar.defaults.portt=1"):
        done = programs.run("helm", "template", "shop", parent, *charts.KUBERNETES, "--set", wrong)

        assert done.returncode != 0
        assert "gin-sidecar" in done.stderr


@pytest.mark.parametrize(("version", "place"), [("1.28.0", "containers"), ("1.29.0", "initContainers")])
def test_r12_the_templates_put_the_container_where_the_cluster_runs_it(parent, version, place):
    text = charts.render("--kube-version", version, chart=parent)

    spec = charts.pod_templates(text)[0]["spec"]
    assert [key for key in ("containers", "initContainers") for one in spec[key] if one["name"] == "gin-sidecar"] == [
        place
    ]


@pytest.mark.parametrize("path", ["/etc/shop.log", "/usr/bin/x.log", "/var/log/../x/y.log", "shop.log", "/shop.log"])
def test_the_templates_hide_nothing_of_the_application_by_a_volume(parent, path):
    arguments = ("--set", "logMode=file", "--set", f"logPath={path}")
    done = programs.run("helm", "template", "shop", parent, *charts.KUBERNETES, *arguments)

    assert done.returncode != 0
    assert "a directory of its own" in done.stderr


def test_a_log_mode_that_only_a_cluster_can_decide_is_refused(parent):
    done = programs.run("helm", "template", "shop", parent, *charts.KUBERNETES, "--set", "logMode=auto")

    assert done.returncode != 0
    assert "expected cri, api, file or fifo" in done.stderr
