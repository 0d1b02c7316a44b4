"""The chart, rendered by Helm: what it refuses, what its values do, and that k8s/install.yaml is what it renders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.keys import ENVIRONMENT, READERS
from config.load import load
from config.settings import Settings
from tests.cluster.api import Json
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import CHART, CRD, CRD_COPY, INSTALL, install_yaml, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def rendered(*arguments: str) -> dict[tuple[str, str], Json]:
    """Kind and name -> object, hooks included."""
    done = template(*arguments)
    assert done.returncode == 0, done.stderr
    documents = [each for each in yaml.safe_load_all(done.stdout) if each]
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert len(found) == len(documents)
    return found


def agent(*arguments: str) -> Json:
    pod: Json = rendered(*arguments)["DaemonSet", "balancing-agent"]["spec"]["template"]["spec"]
    return pod


def settings(tmp_path: Path, name: str, *arguments: str) -> Settings:
    """What `config.load` makes of a ConfigMap."""
    path = tmp_path / "agent.yaml"
    path.write_text(rendered(*arguments)["ConfigMap", name]["data"]["agent.yaml"])
    return load(path, {})


def test_install_yaml_is_what_the_chart_renders() -> None:
    assert install_yaml() == INSTALL.read_text(), "they differ: make install-yaml"


def test_the_charts_crd_is_a_copy() -> None:
    assert CRD_COPY.read_text() == CRD.read_text(), "they differ: make install-yaml"


# What is set, and what Helm must say of it.
REFUSED: list[tuple[str, str]] = [
    ("redirectQosLimit=5", "additional properties 'redirectQosLimit' not allowed"),
    ("feature.redirectQosLimits=5", "additional properties 'redirectQosLimits' not allowed"),
    ("feature.redirectQosLimit=-1", "minimum: got -1, want 0"),
    ("feature.redirectQosLimit=4294967296", "maximum: got"),
    ("feature.redirectQosLimit=many", "got string, want integer"),
    ("feature.redirectQosLimit=null", "missing property 'redirectQosLimit'"),
    ("feature.closeStaleSockets=yes", "got string, want boolean"),
    ("feature.closeStaleSockets=null", "missing property 'closeStaleSockets'"),
    ("closer.enabled=true", "additional properties 'enabled' not allowed"),
    ("closer.resources.limits.memory=lots", "'/closer/resources/limits/memory'"),
    ("image.repository=Registry/x", "'/image/repository'"),
    ("image.tag=a b", "'/image/tag'"),
    ("image.pullPolicy=always", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
    ("image.pullSecrets=x", "got string, want array"),
    ("config.node_name=x", "additional properties 'node_name' not allowed"),
    ("config.source.kind=directory", "additional properties 'source' not allowed"),
    ("config.redirect.qos_limit=5", "additional properties 'qos_limit' not allowed"),
    ("config.redirect.close_stale_sockets=false", "additional properties 'close_stale_sockets' not allowed"),
    ("config.redirect.address_cidrs={10.0.0.0}", "'/config/redirect/address_cidrs/0'"),
    ("config.redirect.address_backend_namespaces={A}", "'/config/redirect/address_backend_namespaces/0'"),
    ("config.datapath.cgroup=/sys/fs/cgroup", "'/config/datapath/cgroup'"),
    ("config.datapath.bpffs=/sys/fs/bpf/balancing", "'/config/datapath/bpffs'"),
    ("config.datapath.bpffs=/host/sys/fs/bpf/a.b", "'/config/datapath/bpffs'"),
    ("config.datapath.bpffs=/host/sys/fs/bpf", "'/config/datapath/bpffs'"),
    ("config.datapath.bpffs=/host/sys/fs/bpf//", "'/config/datapath/bpffs'"),
    ("config.datapath.bpffs=null", "missing property 'bpffs'"),
    ("config.datapath.max_frontends=0", "minimum: got 0, want 1"),
    ("config.datapath.lease_seconds=86401", "maximum: got"),
    ("config.datapath.ipv4=1", "got number, want boolean"),
    ("config.metrics.port=70000", "maximum: got"),
    ("config.health.port=null", "missing property 'port'"),
    ("config.health.address=localhost", "'/config/health/address'"),
    ("config.log.level=loud", "value must be one of 'debug', 'info', 'warning', 'error'"),
    ("resources.request.cpu=1", "additional properties 'request' not allowed"),
    ("resources.limits.memory=lots", "'/resources/limits/memory'"),
    ("tolerations[0].operator=Any", "value must be one of 'Exists', 'Equal'"),
    ("nodeSelector.disk=true", "got boolean, want string"),
    ("priorityClassName=5", "got number, want string"),
    ("hostNetwork=yes", "got string, want boolean"),
    ("updateStrategy.type=Recreate", "value must be one of 'RollingUpdate', 'OnDelete'"),
    ("updateStrategy.rollingUpdate.maxSurge=1", "additional properties 'maxSurge' not allowed"),
    ("updateStrategy.rollingUpdate.maxUnavailable=0", "'/updateStrategy/rollingUpdate/maxUnavailable'"),
    ("updateStrategy.rollingUpdate.maxUnavailable=120%", "'/updateStrategy/rollingUpdate/maxUnavailable'"),
    ("podMonitor.enabled=yes", "got string, want boolean"),
    ("podMonitor.interval=30", "got number, want string"),
    ("prometheusRule.enabled=yes", "got string, want boolean"),
    ("prometheusRule.docs=a b", "'/prometheusRule/docs'"),
    ("dashboard.enabled=yes", "got string, want boolean"),
    ("dashboard.labels.grafana_dashboard=1", "got number, want string"),
    ("controller.replicas=-1", "minimum: got -1, want 0"),
    ("controller.replica=2", "additional properties 'replica' not allowed"),
    ("controller.config.redirect.qos_limit=1", "additional properties 'qos_limit' not allowed"),
    ("crd.create=true", "additional properties 'create' not allowed"),
    ("uninstall.timeoutSeconds=1", "minimum: got 1, want 10"),
]


@pytest.mark.parametrize(("wrong", "says"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_wrong_value_is_refused(wrong: str, says: str) -> None:
    done = template(f"--set={wrong}")
    assert done.returncode and "values don't meet the specifications of the schema" in done.stderr
    assert says in done.stderr


def test_every_value_is_known_to_the_schema_and_has_a_default() -> None:
    """Except for those of `config`, whose defaults are the agent's, and for `global`, which Helm adds."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(given: Json, schema: Json, path: str) -> None:
        if schema.get("type") == "object" and "properties" in schema:
            known = set(schema["properties"]) - {"global"}
            assert set(given) == known or path == ".seLinuxOptions", path
            for name, value in given.items():
                compare(value, schema["properties"][name], f"{path}.{name}")

    compare(values, SCHEMA, "")


def test_the_schema_knows_the_agents_configuration_except_for_what_the_chart_sets_itself() -> None:
    config = SCHEMA["definitions"]["config"]["properties"]
    resolved = {
        f"{section}.{key}"
        for section, schema in config.items()
        for key in SCHEMA["definitions"].get(schema.get("$ref", "").rpartition("/")[2], schema)["properties"]
    }
    features = {"redirect.qos_limit", "redirect.close_stale_sockets"}
    assert resolved == {key for key in READERS if not key.startswith("source.")} - {"node_name"} - features


def test_the_agent_gets_its_defaults_except_for_the_place_of_the_bpffs(tmp_path: Path) -> None:
    found = settings(tmp_path, "balancing-agent")
    default = Settings(node_name=found.node_name)
    assert str(found.datapath.bpffs) == "/host/sys/fs/bpf/balancing"
    assert (found.source, found.redirect, found.metrics, found.health, found.log) == (
        default.source,
        default.redirect,
        default.metrics,
        default.health,
        default.log,
    )


def test_the_controller_has_the_agents_configuration_but_serves_on_its_own_address(tmp_path: Path) -> None:
    given = ("--set=config.redirect.address_cidrs={10.0.0.0/8}", "--set=config.log.format=json")
    of_agent, of_controller = (settings(tmp_path, f"balancing-{name}", *given) for name in ("agent", "controller"))
    assert of_agent.redirect == of_controller.redirect and of_agent.log == of_controller.log
    assert (of_agent.health.address, of_controller.health.address) == ("127.0.0.1", "0.0.0.0")
    only = settings(tmp_path, "balancing-controller", *given, "--set=controller.config.log.level=debug")
    assert (only.log.level, only.log.format) == ("debug", "json")


def test_large_numbers_are_rendered_as_integers(tmp_path: Path) -> None:
    given = ("--set=config.datapath.max_frontends=16777216", "--set=feature.redirectQosLimit=4294967295")
    assert settings(tmp_path, "balancing-agent", *given).datapath.max_frontends == 2**24
    environment = {each["name"]: each.get("value") for each in agent(*given)["containers"][0]["env"]}
    assert environment["REDIRECT_QOS_LIMIT"] == "4294967295"
    assert set(environment) <= set(ENVIRONMENT)


def test_stale_sockets_are_closed_by_a_container_that_can_be_left_out(tmp_path: Path) -> None:
    off = "--set=feature.closeStaleSockets=false"
    with_closer, without = agent(), agent(off)
    assert [each["name"] for each in with_closer["containers"]] == ["agent", "closer"]
    assert [each["name"] for each in without["containers"]] == ["agent"]
    assert [each["name"] for each in without["volumes"]] == ["config", "tmp", "bpffs", "cgroup"]
    assert settings(tmp_path, "balancing-agent").redirect.close_stale_sockets
    given = (off, "--set=config.redirect.address_cidrs={10.0.0.0/8}")
    redirect = settings(tmp_path, "balancing-agent", *given).redirect
    assert (redirect.close_stale_sockets, len(redirect.address_cidrs)) == (False, 1), (
        "/status says that it is turned off"
    )


def test_a_changed_configuration_changes_the_pods() -> None:
    def annotations(*arguments: str) -> list[Json]:
        found = rendered(*arguments)
        workloads = (("DaemonSet", "balancing-agent"), ("Deployment", "balancing-controller"))
        return [found[each]["spec"]["template"]["metadata"]["annotations"] for each in workloads]

    same, changed = annotations(), annotations("--set=config.log.level=debug")
    assert same[0] != changed[0] and same[1] != changed[1]
    assert same[0] == annotations("--set=controller.config.log.level=debug")[0]


def probes(pod: Json) -> list[Json]:
    return [pod["containers"][0][f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("10.0.0.5", "10.0.0.5"),
        ("fd00::5", "fd00::5"),
    ],
)
def test_on_the_nodes_network_the_agent_is_probed_where_it_listens(address: str, asked: str, tmp_path: Path) -> None:
    given = (f"--set-string=config.health.address={address}", "--set=config.health.port=5900")
    assert [(probe["host"], probe["port"]) for probe in probes(agent(*given))] == [(asked, 5900)] * 3
    health = settings(tmp_path, "balancing-agent", *given).health
    assert (health.address, health.port) == (address, 5900)


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_off_the_nodes_network_the_agent_is_probed_at_its_own_address(address: str, tmp_path: Path) -> None:
    given = ("--set=hostNetwork=false", *([f"--set-string=config.health.address={address}"] if address else []))
    pod = agent(*given)
    assert pod["hostNetwork"] is False
    assert not any("host" in probe for probe in probes(pod))
    assert settings(tmp_path, "balancing-agent", *given).health.address == (address or "0.0.0.0")


# What fits the schema but can't work: probes that always fail, or two servers on one port.
CANT_WORK: list[tuple[str, str]] = [
    (f"{base}{address}", f"{key}.health.address: {address} is wrong")
    for base, key in (
        ("hostNetwork=false,config.health.address=", "config"),
        ("controller.config.health.address=", "controller.config"),
    )
    for address in ("127.0.0.1", "::1", "10.0.0.5")
] + [
    (given, f"{key}.health.port: {port} is wrong: {key}.metrics.port is the same")
    for given, key, port in (
        ("config.health.port=5811", "config", 5811),
        ("config.metrics.port=5810", "config", 5810),
        ("config.health.port=7,config.metrics.port=7,config.metrics.address=127.0.0.1", "config", 7),
        ("controller.config.health.port=5811", "controller.config", 5811),
        ("controller.config.metrics.port=5810,controller.config.metrics.address=10.0.0.5", "controller.config", 5810),
    )
]


@pytest.mark.parametrize(("given", "says"), CANT_WORK, ids=[row[0] for row in CANT_WORK])
def test_addresses_that_cant_work_are_refused_with_what_is_allowed(given: str, says: str) -> None:
    done = template(f"--set={given}")
    assert done.returncode
    assert says in done.stderr and "; it must be " in done.stderr


def test_all_addresses_and_ports_that_cant_work_are_reported_at_once() -> None:
    done = template(
        "--set=hostNetwork=false,config.health.port=5811,config.health.address=::1",
        "--set-string=controller.config.health.address=127.0.0.1",
    )
    faults = [line for line in done.stderr.splitlines() if " is wrong" in line]
    assert [line.split(": ")[0] for line in faults] == [
        "config.health.address",
        "config.health.port",
        "controller.config.health.address",
        "controller.config.health.port",
    ]


def test_the_configuration_of_a_controller_that_is_left_out_is_not_checked() -> None:
    rendered("--set=controller.enabled=false", "--set-string=controller.config.health.address=::1")


def test_the_nodes_address_for_metrics_is_not_the_controllers(tmp_path: Path) -> None:
    given = "--set=config.metrics.address=10.0.0.5"
    assert settings(tmp_path, "balancing-agent", given).metrics.address == "10.0.0.5"
    assert settings(tmp_path, "balancing-controller", given).metrics.address == "0.0.0.0"


def test_one_port_at_two_addresses_is_no_collision(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        "balancing-agent",
        "--set=config.health.port=5811,config.metrics.address=10.0.0.5",
        "--set=controller.config.metrics.port=5812",
    )
    assert (found.health.port, found.metrics.port) == (5811, 5811)


@pytest.mark.parametrize(
    ("given", "kind", "name"),
    [
        ("controller.enabled=false", "Deployment", "balancing-controller"),
        ("controller.enabled=false", "ClusterRole", "balancing-controller"),
        ("crd.install=false", "CustomResourceDefinition", "localredirectpolicies.balancing.elf.io"),
        ("admissionPolicy.enabled=false", "ValidatingAdmissionPolicy", "localredirectpolicies.balancing.elf.io"),
        ("uninstall.detach=false", "Job", "balancing-uninstall"),
    ],
)
def test_parts_of_the_chart_can_be_left_out(given: str, kind: str, name: str) -> None:
    assert (kind, name) in rendered()
    assert (kind, name) not in rendered(f"--set={given}")


def test_what_the_cluster_may_not_support_is_off_by_default() -> None:
    objects = rendered()
    assert not {kind for kind, _ in objects} & {"PodMonitor", "PrometheusRule", "Namespace"}
    assert ("ConfigMap", "localredirect-dashboard") not in objects


def test_the_monitor_finds_agents_and_controller() -> None:
    monitor = rendered("--set=podMonitor.enabled=true", "--set=podMonitor.labels.release=prometheus")
    found = monitor["PodMonitor", "localredirect"]
    assert found["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = found["spec"]["podMetricsEndpoints"]
    for workload in (("DaemonSet", "balancing-agent"), ("Deployment", "balancing-controller")):
        template = monitor[workload]["spec"]["template"]
        assert found["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert endpoint["port"] in [each["name"] for each in template["spec"]["containers"][0]["ports"]]


def test_the_rules_are_those_of_the_file_and_their_runbooks_are_where_the_values_say() -> None:
    docs = "https://git.example/localredirect/docs/"
    rule = rendered("--set=prometheusRule.enabled=true", f"--set=prometheusRule.docs={docs}")
    found = rule["PrometheusRule", "localredirect"]["spec"]
    expected = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    for alert in (alert for group in expected["groups"] for alert in group["rules"]):
        alert["annotations"]["runbook_url"] = docs + alert["annotations"]["runbook_url"]
    assert found == expected


def test_the_dashboard_is_that_of_the_file_and_has_the_label_of_the_sidecar() -> None:
    board = rendered("--set=dashboard.enabled=true", "--set=dashboard.annotations.folder=Network")
    found = board["ConfigMap", "localredirect-dashboard"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"folder": "Network"}
    expected = (CHART / "files" / "dashboard.json").read_text()
    assert json.loads(found["data"]["localredirect.json"]) == json.loads(expected)


def test_the_other_values_reach_the_pods() -> None:
    pod: dict[str, Any] = agent(
        "--set=image.repository=registry.example:5000/a/b",
        "--set=image.tag=v1",
        "--set=image.pullPolicy=Always",
        "--set=image.pullSecrets={s}",
        "--set=priorityClassName=",
        "--set=tolerations=null",
        "--set=nodeSelector.disk=ssd",
        "--set=seLinuxOptions.type=spc_t",
        "--set=resources.limits.memory=1Gi",
    )
    container, closer = pod["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("registry.example:5000/a/b:v1", "Always")
    assert pod["imagePullSecrets"] == [{"name": "s"}] and pod["nodeSelector"] == {"disk": "ssd"}
    assert not pod.keys() & {"priorityClassName", "tolerations"}
    assert pod["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert (closer["image"], closer["imagePullPolicy"]) == (container["image"], "Always")
    assert closer["resources"]["limits"] == {"memory": "128Mi"}


def test_the_uninstall_hook_may_patch_one_daemon_set_and_comes_before_everything_else() -> None:
    hooks = {key: each for key, each in rendered().items() if "helm.sh/hook" in each["metadata"].get("annotations", {})}
    assert {name for _, name in hooks} == {"balancing-uninstall"}
    roles, bindings = {"Role", "ClusterRole"}, {"RoleBinding", "ClusterRoleBinding"}
    assert {kind for kind, _ in hooks} == {"ServiceAccount", "Job"} | roles | bindings
    assert {each["metadata"]["annotations"]["helm.sh/hook"] for each in hooks.values()} == {"pre-delete"}
    assert hooks["Role", "balancing-uninstall"]["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets"],
            "resourceNames": ["balancing-agent"],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    assert hooks["ClusterRole", "balancing-uninstall"]["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    ]


@pytest.mark.parametrize(("version", "fits"), [("v1.30.14", False), ("v1.31.0", True), ("v1.31.0-gke.1", True)])
def test_the_oldest_kubernetes_is_the_first_that_takes_the_crd(version: str, *, fits: bool) -> None:
    """Before 1.31 new rules may not use CEL's functions for addresses: `undeclared reference to 'isIP'`."""
    done = template(f"--kube-version={version}")
    assert (done.returncode == 0) is fits, done.stderr
    assert fits or "requires kubeVersion: >=1.31.0-0" in done.stderr
    readme = (CHART.parents[1] / "README.md").read_text()
    assert "Kubernetes 1.31 or newer" in readme and "1.30" not in readme


@pytest.mark.parametrize(
    "values",
    ["", "hostNetwork=false", "updateStrategy.type=OnDelete", "controller.replicas=2", "image.pullSecrets={a}"],
)
def test_the_api_server_accepts_every_object_strictly(control_plane: ControlPlane, values: str) -> None:
    """No misspelt field in any of them; nothing is kept."""
    control_plane.kubectl("create", "namespace", "elf", check=False)
    done = template("--set=" + values) if values else template()
    applied = control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", input=done.stdout)
    assert "Warning" not in applied.stderr, applied.stderr
