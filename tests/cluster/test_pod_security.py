"""What Pod Security refuses of our Pods, on a real API server: exactly what docs/security.md says that they need."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.api import ApiRefused, Json
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import INSTALL

DOCUMENTS = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each]
WORKLOADS: dict[str, Json] = {each["kind"]: each for each in DOCUMENTS if each["kind"] in ("DaemonSet", "Deployment")}
PAGE = (ROOT / "docs" / "security.md").read_text()
BASELINE = {
    "non-default capabilities": 'containers "agent", "closer" must not include "BPF", "NET_ADMIN", "SYS_ADMIN"',
    "host namespaces": "hostNetwork=true",
    "hostPath volumes": 'volumes "bpffs", "cgroup", "netns"',
    "hostPort": 'container "agent" uses hostPort 5811',
}
"""Check -> what it finds, in all versions of Kubernetes."""
WITHOUT_CLOSER = BASELINE | {
    "non-default capabilities": 'container "agent" must not include "BPF", "NET_ADMIN" in',
    "hostPath volumes": 'volumes "bpffs", "cgroup"',
}
SINCE_1_34 = {"probe or lifecycle host": 'container "agent" uses probe or lifecycle host "127.0.0.1"'}


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    for level in ("baseline", "restricted"):
        labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "warn")}
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": level, "labels": labels}})
    yield control_plane
    control_plane.kubectl("delete", "namespace", "baseline", "restricted", "--wait=false")


def minor(plane: ControlPlane) -> int:
    return int(plane.api.get("/version")["minor"])


def violations(output: str) -> dict[str, str]:
    """Check -> what it has found, read from a message of Pod Security."""
    found = re.search(r'violates? PodSecurity "\w+:latest": (.*)', output)
    assert found, output
    return dict(re.findall(r"([^(),]+?) \((.*?)\)(?:, |$)", found[1]))


def pod_of(workload: Json) -> Json:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": workload["spec"]["template"]["spec"]}


def without_closer(workload: Json) -> Json:
    changed = copy.deepcopy(workload)
    pod = changed["spec"]["template"]["spec"]
    pod["containers"] = [each for each in pod["containers"] if each["name"] != "closer"]
    pod["volumes"] = [each for each in pod["volumes"] if each["name"] not in ("netns", "no-token")]
    return changed


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        pytest.param(WORKLOADS["DaemonSet"], BASELINE, id="agent and closer"),
        pytest.param(without_closer(WORKLOADS["DaemonSet"]), WITHOUT_CLOSER, id="agent"),
    ],
)
def test_baseline_refuses_the_agents_pods_for_what_the_page_says_and_nothing_else(
    plane: ControlPlane, workload: Json, expected: dict[str, str]
) -> None:
    with pytest.raises(ApiRefused) as refused:
        plane.api.create("/api/v1/namespaces/baseline/pods?dryRun=All", pod_of(workload))
    assert refused.value.code == 403
    message = str(yaml.safe_load(refused.value.body)["message"])
    expected = expected | (SINCE_1_34 if minor(plane) >= 34 else {})
    found = violations(message)
    assert found.keys() == expected.keys(), message
    assert all(what in found[name] for name, what in expected.items()), message
    assert [name for name in (*BASELINE, *SINCE_1_34) if f"`{name}`" not in PAGE] == []


def test_a_namespace_that_warns_accepts_the_daemonset_and_names_the_same_violations(plane: ControlPlane) -> None:
    daemon_set = WORKLOADS["DaemonSet"] | {"metadata": {"name": "warned", "namespace": "baseline"}}
    applied = plane.kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(daemon_set))
    assert "daemonset.apps/warned created" in applied.stdout
    # The port of a container becomes one of the node only in the Pod itself.
    expected = BASELINE | (SINCE_1_34 if minor(plane) >= 34 else {})
    assert violations(applied.stderr).keys() == expected.keys() - {"hostPort"}


def test_the_controllers_pod_is_allowed_where_pod_security_is_restricted(plane: ControlPlane) -> None:
    path = "/api/v1/namespaces/restricted/pods?dryRun=All"
    assert plane.api.create(path, pod_of(WORKLOADS["Deployment"]))["kind"] == "Pod"
