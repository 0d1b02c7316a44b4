"""What explain and doctor read from the source: one Pod by its name, and whether the agent has its rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.domain.ids import NamespacedName
from config.settings import Settings, SourceSettings
from k8s.commands.access import access_faults
from k8s.commands.pods import NoSuchPod, SourceUnreadable, find_pod
from tests.unit.api_server import ApiServer, api_server, page, refusal

WEB = NamespacedName("default", "web")


def pod(node: str = "node-a", **spec: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node, **spec}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path) as made:
        yield made


def settings_of(server: ApiServer) -> Settings:
    return Settings(node_name="node-a", source=SourceSettings(kubeconfig=str(server.kubeconfig)))


def test_a_pod_is_requested_by_its_name(server: ApiServer) -> None:
    server.will(page(pod(hostNetwork=True)))
    found = find_pod(WEB, settings_of(server))
    assert (found.uid, found.host_network) == ("uid-web", True)
    asked = server.request()
    assert (asked["path"], asked["fieldSelector"]) == ("/api/v1/namespaces/default/pods", "metadata.name=web")


@pytest.mark.parametrize(
    ("items", "says"),
    [
        pytest.param((), "there is no Pod default/web in the cluster", id="absent"),
        pytest.param((pod("node-b"),), "runs on node node-b, and this is node node-a", id="on another node"),
        pytest.param((pod(""),), "is not scheduled yet", id="on no node"),
    ],
)
def test_a_pod_that_is_not_on_this_node_is_refused(server: ApiServer, items: tuple[Any, ...], says: str) -> None:
    server.will(page(*items))
    with pytest.raises(NoSuchPod, match=says):
        find_pod(WEB, settings_of(server))


def test_a_refusal_of_the_server_is_an_error_that_quotes_it(server: ApiServer) -> None:
    server.will(refusal(403, "Forbidden"))
    with pytest.raises(SourceUnreadable, match=r"cannot read Pod default/web from the API server: 403 Forbidden"):
        find_pod(WEB, settings_of(server))


def test_in_a_directory_a_file_with_a_fault_does_not_hide_the_pod(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(pod()))
    settings = Settings(node_name="node-a", source=SourceSettings(kind="directory", directory=tmp_path))
    assert find_pod(WEB, settings).uid == "uid-web"
    assert access_faults(settings) == ([], f"{tmp_path} can be read")
    with pytest.raises(NoSuchPod):
        find_pod(NamespacedName("default", "other"), settings)


def test_a_directory_that_is_absent_is_named(tmp_path: Path) -> None:
    settings = Settings(source=SourceSettings(kind="directory", directory=tmp_path / "absent"))
    with pytest.raises(SourceUnreadable, match=r"source\.directory cannot be read"):
        find_pod(WEB, settings)
    (fault,), _ = access_faults(settings)
    assert fault.startswith(f"source.directory: {tmp_path}/absent is not a readable directory")


def test_each_right_that_is_missing_is_named(server: ApiServer) -> None:
    node = {"metadata": {"name": "node-a"}}
    server.will(refusal(404, "NotFound"), page(), refusal(403, "Forbidden"), page(node))
    faults, _ = access_faults(settings_of(server))
    assert [each.partition(":")[0] for each in faults] == ["localredirectpolicies", "pods"]
    assert "403 Forbidden" in faults[1]


def test_a_node_name_that_no_node_has_is_named(server: ApiServer) -> None:
    server.will(page(), page(), page(), page())
    faults, _ = access_faults(settings_of(server))
    assert faults == ["nodes: there is no Node node-a (node_name, NODE_NAME)"]


def test_a_server_that_cannot_be_reached_is_one_fault(tmp_path: Path) -> None:
    settings = Settings(source=SourceSettings(kubeconfig=str(tmp_path / "absent")))
    (fault,), _ = access_faults(settings)
    assert fault.startswith("cannot connect to the API server: source.kubeconfig")
