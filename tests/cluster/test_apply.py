"""The manifests and the chart on an API server without a node: twice, after an emergency stop, one after the other.

Nothing runs here. tests/cluster/test_install.py runs the same commands on a node.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from config.version import VERSION
from tests.cluster.api import Json
from tests.cluster.commands import DNS_EXAMPLE, INSTALLATION, REGISTRY, Checkout, block, yaml_block
from tests.cluster.control_plane import ControlPlane
from tests.cluster.dns import EXAMPLE

IMAGE = f"{REGISTRY}/localredirect:{VERSION}"
CRD = "localredirectpolicies.balancing.elf.io"
DAEMON_SET = "/apis/apps/v1/namespaces/elf/daemonsets/balancing-agent"
APPLY = "kubectl apply -k k8s"
APPLY_SERVER_SIDE = "kubectl apply --server-side -k k8s"
HELM = "helm upgrade --install localredirect k8s/chart -n elf --create-namespace"
STOP = "kubectl -n elf patch daemonset balancing-agent --patch-file k8s/detach.yaml"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as made:
        yield made


@pytest.fixture
def checkout(plane: ControlPlane) -> Iterator[Checkout]:
    made = Checkout(plane)
    yield made
    # Keep the namespace. No controller runs, so it would stay Terminating if it were deleted.
    made.run("helm uninstall -n elf --no-hooks --ignore-not-found localredirect other", check=False)
    made.run("kubectl delete -k k8s -l '!pod-security.kubernetes.io/enforce' --ignore-not-found")
    assert not made.run("kubectl get crd,clusterroles -o name | grep -e balancing || true").stdout


def spec(plane: ControlPlane) -> Json:
    found: Json = plane.api.get(DAEMON_SET)["spec"]
    return found


@pytest.mark.parametrize("apply", [APPLY, "kubectl apply -f k8s/install.yaml"])
def test_applying_twice_changes_nothing(checkout: Checkout, apply: str) -> None:
    checkout.run(apply)
    lines = checkout.run(apply).stdout.splitlines()
    assert lines and [line for line in lines if not line.endswith(" unchanged")] == []


def test_the_image_is_named_once(checkout: Checkout, plane: ControlPlane) -> None:
    name, apply, _ = block("README.md", "newName").splitlines()
    checkout.run(f"{name}\n{apply}")
    assert spec(plane)["template"]["spec"]["containers"][0]["image"] == IMAGE
    deployment = plane.api.get("/apis/apps/v1/namespaces/elf/deployments/balancing-controller")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE


def test_settings_and_pull_secrets_of_the_kustomization_take_effect(checkout: Checkout, plane: ControlPlane) -> None:
    checkout.change("k8s/kustomization.yaml", yaml_block(INSTALLATION, "REDIRECT_QOS_LIMIT"))
    checkout.change("k8s/kustomization.yaml", yaml_block(INSTALLATION, "imagePullSecrets"))
    checkout.run(APPLY)
    pod = spec(plane)["template"]["spec"]
    assert {"name": "REDIRECT_QOS_LIMIT", "value": "100"} in pod["containers"][0]["env"]
    assert "NODE_NAME" in [each["name"] for each in pod["containers"][0]["env"]]
    for workload in ("daemonsets/balancing-agent", "deployments/balancing-controller"):
        found = plane.api.get(f"/apis/apps/v1/namespaces/elf/{workload}")["spec"]["template"]["spec"]
        assert found["imagePullSecrets"] == [{"name": "registry-login"}]
    for name in ("balancing-agent", "balancing-controller"):
        data = plane.api.get(f"/api/v1/namespaces/elf/configmaps/{name}")["data"]
        assert "redirect: {address_cidrs: [169.254.0.0/16]}" in data["agent.yaml"]


def test_settings_of_the_values_take_effect(checkout: Checkout, plane: ControlPlane) -> None:
    (checkout.folder / "values.yaml").write_text(block(INSTALLATION, "feature:", "yaml"))
    checkout.run(f"{HELM} -f values.yaml")
    data = plane.api.get("/api/v1/namespaces/elf/configmaps/balancing-controller")["data"]
    assert "169.254.0.0/16" in data["agent.yaml"]


@pytest.mark.parametrize(
    ("install", "back"),
    [(APPLY, APPLY), (APPLY_SERVER_SIDE, f"{APPLY_SERVER_SIDE} --force-conflicts"), (HELM, HELM)],
    ids=["kubectl", "server-side", "helm"],
)
def test_the_command_of_the_installation_undoes_the_emergency_stop(
    checkout: Checkout, plane: ControlPlane, install: str, back: str
) -> None:
    checkout.run(install)
    before = spec(plane)
    checkout.run(STOP)
    stopped = spec(plane)
    assert stopped["template"]["spec"]["containers"][0]["command"] == ["python", "run.py", "detach", "--stay"]
    assert stopped["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "100%"
    checkout.run(back)
    assert spec(plane) == before


def test_the_egress_rule_of_the_dns_example_is_valid(plane: ControlPlane) -> None:
    egress = yaml_block(DNS_EXAMPLE, "egress:")
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "dns"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], **egress},
    }
    plane.api.create("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies?fieldValidation=Strict", policy)
    cache, _ = egress["egress"][0]["to"]
    _, daemon_set = yaml.safe_load_all((EXAMPLE / "daemonset.yaml").read_text())
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    assert cache["podSelector"]["matchLabels"].items() <= labels.items()


def crd_owner(plane: ControlPlane) -> str | None:
    metadata = plane.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}")["metadata"]
    owner: str | None = metadata["annotations"].get("meta.helm.sh/release-name")
    return owner


REMOVE = "kubectl delete -k k8s -l 'app.kubernetes.io/name=localredirect,!pod-security.kubernetes.io/enforce'"
OTHER = HELM.replace("localredirect k8s", "other k8s")


@pytest.mark.parametrize(
    "before",
    [f"{APPLY} && {REMOVE}", f"{OTHER} && helm uninstall other -n elf --no-hooks", APPLY],
    ids=["kubectl, removed", "another release, removed", "kubectl, running"],
)
def test_helm_takes_over_what_another_installation_has_left(
    checkout: Checkout, plane: ControlPlane, before: str
) -> None:
    checkout.run(before)
    assert "invalid ownership metadata" in checkout.run(HELM, check=False).stdout
    documented = block(INSTALLATION, "--take-ownership")
    (checkout.folder / "values.yaml").write_text("{}")
    checkout.run(documented.replace("--wait ", ""))
    assert crd_owner(plane) == "localredirect"
    checkout.run(HELM)


def test_kubectl_needs_nothing_special_after_helm(checkout: Checkout) -> None:
    checkout.run(f"{HELM} && helm uninstall localredirect -n elf --no-hooks")
    assert "configured" in checkout.run(APPLY).stdout
    assert all(line.endswith("unchanged") for line in checkout.run(APPLY).stdout.splitlines())
