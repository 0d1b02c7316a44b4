"""k8s/install.yaml, as users apply it: rights, confinement, and what has to fit together. Rendered from the chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.keys import ENVIRONMENT
from config.load import load
from k8s.status.write_bodies import EVENT_NAMESPACE

K8S = Path(__file__).parents[2] / "k8s"
DOCUMENTS = [each for each in yaml.safe_load_all((K8S / "install.yaml").read_text()) if each]
OBJECTS = {(each["kind"], each["metadata"]["name"]): each for each in DOCUMENTS}
AGENT, CONTROLLER = "balancing-agent", "balancing-controller"
WORKLOADS = [("DaemonSet", AGENT), ("Deployment", CONTROLLER)]
CONTAINERS = [("DaemonSet", AGENT, "agent"), ("DaemonSet", AGENT, "closer"), ("Deployment", CONTROLLER, "controller")]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105
"""Where a container gets its API token."""
READ = {"get", "list", "watch"}


def pod(kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = OBJECTS[kind, name]["spec"]["template"]["spec"]
    return spec


def container(kind: str, name: str, container_name: str | None = None) -> dict[str, Any]:
    """By default the workload's main container, which is named after what it runs."""
    wanted = container_name or name.removeprefix("balancing-")
    (found,) = (each for each in pod(kind, name)["containers"] if each["name"] == wanted)
    assert isinstance(found, dict)
    return found


def mounts(kind: str, name: str, container_name: str) -> dict[str, dict[str, Any]]:
    """Name of a volume -> its mount in this container."""
    return {each["name"]: each for each in container(kind, name, container_name)["volumeMounts"]}


def rights(kind: str, name: str) -> set[tuple[str, str, str]]:
    """Group, resource and verb."""
    rules = OBJECTS[kind, name]["rules"]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def reads() -> set[tuple[str, str, str]]:
    ours = {("balancing.elf.io", resource) for resource in ("localredirectpolicies", "balancingpolicies")}
    theirs = {("", resource) for resource in ("services", "pods", "nodes")}
    return {(group, resource, verb) for group, resource in ours | theirs for verb in READ}


def test_every_object_is_there_once_and_in_the_namespace_elf() -> None:
    assert len(OBJECTS) == len(DOCUMENTS)
    namespaces = {each["metadata"]["namespace"] for each in DOCUMENTS if "namespace" in each["metadata"]}
    assert namespaces == {"elf", "default"} and ("Namespace", "elf") in OBJECTS
    assert not [name for _, name in OBJECTS if "uninstall" in name], "hooks are Helm's"


def test_the_agent_may_read_and_nothing_else() -> None:
    assert rights("ClusterRole", AGENT) == reads()
    assert ("Role", AGENT) not in OBJECTS


def test_the_controller_may_write_status_events_and_its_lease() -> None:
    writes = {("balancing.elf.io", "localredirectpolicies/status", "patch")}
    lists = {("coordination.k8s.io", "leases", "list")}
    assert rights("ClusterRole", CONTROLLER) == reads() | writes | lists
    listing = [rule for rule in OBJECTS["ClusterRole", CONTROLLER]["rules"] if "leases" in rule["resources"]]
    assert [rule["resourceNames"] for rule in listing] == [[CONTROLLER]]
    lease = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    assert rights("Role", CONTROLLER) == lease
    named = [rule for rule in OBJECTS["Role", CONTROLLER]["rules"] if "create" not in rule["verbs"]]
    assert [rule["resourceNames"] for rule in named] == [[CONTROLLER]]


def test_the_controller_may_create_events_where_those_of_cluster_scoped_objects_are_kept() -> None:
    name = f"{CONTROLLER}-events"
    assert rights("Role", name) == {("", "events", "create")}
    binding = OBJECTS["RoleBinding", name]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", name)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": "elf"}]
    in_default = [each["kind"] for each in DOCUMENTS if each["metadata"].get("namespace") == EVENT_NAMESPACE]
    assert in_default == ["Role", "RoleBinding"]


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_accounts_are_bound_to_their_own_roles(kind: str, name: str) -> None:
    assert pod(kind, name)["serviceAccountName"] == name
    bindings = [each for each in DOCUMENTS if each["kind"].endswith("RoleBinding") and each["metadata"]["name"] == name]
    assert bindings
    for binding in bindings:
        assert binding["roleRef"]["name"] == name
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "elf"}]


def test_these_are_all_containers() -> None:
    found = [(kind, name, each["name"]) for kind, name in WORKLOADS for each in pod(kind, name)["containers"]]
    assert found == CONTAINERS
    assert not [name for kind, name in WORKLOADS if "initContainers" in pod(kind, name)]


@pytest.mark.parametrize(("kind", "name", "container_name"), CONTAINERS)
def test_nobody_is_privileged_or_can_write_to_the_image(kind: str, name: str, container_name: str) -> None:
    security = container(kind, name, container_name)["securityContext"]
    assert security["privileged"] is False and security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True and security["capabilities"]["drop"] == ["ALL"]
    assert pod(kind, name)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod(kind, name).keys() & {"hostPID", "hostIPC"}


def test_the_agent_has_two_capabilities_and_two_of_the_nodes_directories() -> None:
    assert container("DaemonSet", AGENT)["securityContext"]["capabilities"]["add"] == ["BPF", "NET_ADMIN"]
    found = mounts("DaemonSet", AGENT, "agent")
    paths = {name: path for name, path in host_paths("DaemonSet", AGENT).items() if name in found}
    assert paths == {"bpffs": "/sys/fs/bpf/balancing", "cgroup": "/sys/fs/cgroup"}
    assert found["cgroup"]["readOnly"] is True and found["cgroup"]["recursiveReadOnly"] == "IfPossible"
    assert [each["name"] for each in found.values() if not each.get("readOnly")] == ["tmp", "bpffs"]
    assert not [each for each in found.values() if "mountPropagation" in each], "the node's mounts need not be shared"
    assert {name: found[name]["mountPath"] for name in paths} == {each: f"/host{paths[each]}" for each in paths}


def host_paths(kind: str, name: str) -> dict[str, str]:
    """Name of a volume -> the path on the node that it shows."""
    return {each["name"]: each["hostPath"]["path"] for each in pod(kind, name)["volumes"] if "hostPath" in each}


def test_the_closer_has_two_capabilities_and_writes_nowhere() -> None:
    closer = container("DaemonSet", AGENT, "closer")
    assert closer["command"] == ["python", "run.py", "closer"]
    assert closer["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN", "NET_ADMIN"]
    found = mounts("DaemonSet", AGENT, "closer")
    paths = {name: path for name, path in host_paths("DaemonSet", AGENT).items() if name in found}
    assert paths == {"bpffs": "/sys/fs/bpf/balancing", "netns": "/run/netns"}
    assert all(each["readOnly"] is True for each in found.values())
    assert found["netns"]["mountPath"] == "/run/netns", "where the closer looks"
    assert found["netns"]["mountPropagation"] == "HostToContainer", "namespaces of later Pods appear there"
    assert found["bpffs"]["mountPath"] == mounts("DaemonSet", AGENT, "agent")["bpffs"]["mountPath"]


def test_the_closer_talks_to_nobody() -> None:
    closer = container("DaemonSet", AGENT, "closer")
    assert not closer.keys() & {"ports", "env", "envFrom", "startupProbe", "livenessProbe", "readinessProbe"}
    (name,) = (name for name, each in mounts("DaemonSet", AGENT, "closer").items() if each["mountPath"] == TOKEN)
    (volume,) = (each for each in pod("DaemonSet", AGENT)["volumes"] if each["name"] == name)
    assert "emptyDir" in volume, "it has nothing in the place of the API token"
    assert TOKEN not in {each["mountPath"] for each in mounts("DaemonSet", AGENT, "agent").values()}


def test_the_controller_has_no_capability_and_is_not_root() -> None:
    assert "add" not in container("Deployment", CONTROLLER)["securityContext"]["capabilities"]
    assert pod("Deployment", CONTROLLER)["securityContext"]["runAsNonRoot"] is True
    assert not pod("Deployment", CONTROLLER).get("hostNetwork")
    assert not [each for each in pod("Deployment", CONTROLLER)["volumes"] if "hostPath" in each]


def test_the_agent_does_not_depend_on_what_it_redirects() -> None:
    spec = pod("DaemonSet", AGENT)
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "Default")
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert "cpu" not in container("DaemonSet", AGENT)["resources"]["limits"], "a throttled agent loses its lease"


def test_each_container_runs_its_command_with_variables_that_the_agent_knows() -> None:
    assert container("DaemonSet", AGENT)["command"] == ["python", "run.py"]
    assert container("Deployment", CONTROLLER)["command"] == ["python", "run.py", "controller"]
    variables = {each["name"]: each for each in container("DaemonSet", AGENT)["env"]}
    assert variables["NODE_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"
    assert variables["REDIRECT_QOS_LIMIT"]["value"] == "0"
    assert variables.keys() <= ENVIRONMENT.keys()


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_probes_ask_where_the_configuration_says(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(OBJECTS["ConfigMap", name]["data"]["agent.yaml"])
    health = load(path, {}).health
    only = container(kind, name)
    ports = {each["name"]: each["containerPort"] for each in only["ports"]}
    paths = {}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = only[probe]["httpGet"]
        assert ports.get(asked["port"], asked["port"]) == health.port
        assert asked.get("host", "0.0.0.0") == health.address
        paths[probe] = asked["path"]
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_manifest_has_the_crd_as_crd_yaml_has_it() -> None:
    assert OBJECTS["CustomResourceDefinition", "localredirectpolicies.balancing.elf.io"] == yaml.safe_load(
        (K8S / "crd.yaml").read_text()
    )


def test_everything_but_the_crd_can_be_deleted_by_label() -> None:
    """As the head of the file says, so that the policies stay."""
    unlabelled = {
        each["kind"]
        for each in DOCUMENTS
        if each["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "localredirect"
    }
    assert unlabelled == {"CustomResourceDefinition"}


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of everything that is not a mapping; entries of a list go by their name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        for each in value:
            yield from leaves(each, f"{path}[{each.get('name')}]")
    else:
        yield path


def test_the_patch_that_detaches_adds_nothing_that_the_manifest_would_not_set_back() -> None:
    """`kubectl apply` and `helm upgrade` leave alone what a manifest does not have, so there would be no way back."""
    patch = yaml.safe_load((K8S / "detach.yaml").read_text())
    assert set(leaves(patch)) <= set(leaves(OBJECTS["DaemonSet", AGENT]))
    assert not [path for path in leaves(patch) if "Probe" in path], "another handler than the manifest's is refused"


def test_the_kustomization_is_install_yaml_with_a_name_for_the_image() -> None:
    found = yaml.safe_load((K8S / "kustomization.yaml").read_text())
    assert found.keys() == {"apiVersion", "kind", "resources", "images"}
    (image,) = found["images"]
    assert found["resources"] == ["install.yaml"]
    assert {container(*each)["image"].rpartition(":")[0] for each in WORKLOADS} == {image["name"]}
    assert image["newName"] == image["name"] and "newTag" not in image, "an upgrade brings its own tag"


def test_a_node_can_be_left_without_its_agent() -> None:
    required = pod("DaemonSet", AGENT)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "balancing.elf.io/detached", "operator": "DoesNotExist"}]}
    ]


@pytest.mark.parametrize("name", ["address-frontend.yaml", "service-frontend.yaml", "node-local-dns/policy.yaml"])
def test_examples_are_valid(name: str) -> None:
    from config.settings import RedirectSettings  # noqa: PLC0415
    from k8s.commands.validate import validate  # noqa: PLC0415

    assert validate([K8S / "examples" / name], RedirectSettings()) == []


def test_the_node_local_cache_is_what_the_policy_selects_and_leaves_before_it_stops() -> None:
    config, daemon_set = yaml.safe_load_all((K8S / "examples/node-local-dns/daemonset.yaml").read_text())
    policy = yaml.safe_load((K8S / "examples/node-local-dns/policy.yaml").read_text())["spec"]
    template = daemon_set["spec"]["template"]
    assert policy["backend"]["endpointSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (cache,) = template["spec"]["containers"]
    ports = {(each["containerPort"], each["protocol"]) for each in cache["ports"]}
    assert {(each["port"], each["protocol"]) for each in policy["backend"]["toPorts"]} <= ports
    (lameduck,) = [line.split()[1] for line in config["data"]["Corefile"].splitlines() if "lameduck" in line]
    assert int(lameduck.removesuffix("s")) < template["spec"]["terminationGracePeriodSeconds"]
    # It has the address of what is redirected from a variable that the kubelet sets in the Service's namespace.
    service = policy["frontend"]["serviceMatcher"]
    assert daemon_set["metadata"]["namespace"] == service["namespace"]
    assert f"{{${service['serviceName'].upper().replace('-', '_')}_SERVICE_HOST}}" in config["data"]["Corefile"]
