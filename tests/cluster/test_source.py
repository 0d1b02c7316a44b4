"""The Kubernetes source on a real API server: what it delivers, and that an outage of the server changes nothing.

Answers that a server gives only in rare faults are in tests/unit/k8s/test_listwatch.py.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.backoff import Backoff
from config.domain.ids import NamespacedName, PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.api import listwatch, server_judgement
from k8s.api.client import Api
from k8s.api.resource import Resource
from k8s.api.stream_events import Listed, StreamEvent
from k8s.api.trouble import TroubleKind
from k8s.objects.identity import identity, identity_text
from k8s.objects.model import Node, Pod, Service
from k8s.sources import resources
from k8s.sources.kubernetes import KubernetesSource
from k8s.sources.source import Heard, ListingEnded, ListingStarted, Removed, SourceEvent, Upserted
from tests.cluster.binaries import ROOT
from tests.cluster.conftest import apply_crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install_yaml import CRD

WAIT_SECONDS = 30.0
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
BALANCING_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "balancingpolicies.balancing.elf.io"},
    "spec": {
        "group": "balancing.elf.io",
        "scope": "Cluster",
        "names": {"plural": "balancingpolicies", "singular": "balancingpolicy", "kind": "BalancingPolicy"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


class Running:
    """A source, and the events that it delivers, in words."""

    def __init__(self, api: Api, *fixed: Resource) -> None:
        self._events: queue.SimpleQueue[SourceEvent] = queue.SimpleQueue()
        self.source = KubernetesSource(api=api, fixed=fixed, redirect=RedirectSettings(), deliver=self._events.put)
        self.thread = threading.Thread(target=self.source.run, daemon=True)
        self.thread.start()

    def next(self, seconds: float = WAIT_SECONDS) -> str:
        """Skips news of the contact with the server, unless a new listing comes with it: bookmarks may come at any
        time."""
        while True:
            match self._events.get(timeout=seconds):
                case ListingStarted(reason=reason):
                    return f"started {reason}"
                case Upserted(object=found):
                    return f"+ {identity_text(identity(found))}{_details(found)}"
                case Removed(key=key):
                    return f"- {key.name if isinstance(key, PolicyKey) else key}"
                case ListingEnded():
                    return "ended"
                case Heard(relist_reason=reason) if reason:
                    return f"listed {reason}"

    def expect(self, *events: str) -> None:
        assert [self.next() for _ in events] == list(events)

    def expect_trouble(self, kind: TroubleKind | None, *words: str) -> None:
        """Awaits news of this trouble, or of its end (None), whose message has these words. Skips all other events."""
        while True:
            event = self._events.get(timeout=WAIT_SECONDS)
            if isinstance(event, Heard) and (event.trouble.kind if event.trouble else None) == kind:
                break
        assert all(word in (event.trouble.message if event.trouble else "") for word in words), event

    def expect_silence(self, seconds: float) -> None:
        with pytest.raises(queue.Empty):
            print(self.next(seconds))

    def expect_no_object(self, seconds: float) -> None:
        """Objects are neither added nor removed; there may be new listings."""
        deadline = time.monotonic() + seconds
        with suppress(queue.Empty):
            while (left := deadline - time.monotonic()) > 0:
                assert self.next(left).startswith("listed ")

    def stop(self) -> None:
        self.source.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


def _details(found: object) -> str:
    match found:
        case Pod(terminating=True):
            return " terminating"
        case Pod(ready=ready):
            return " ready" if ready else ""
        case Node(labels=labels):
            return f" {dict(labels).get('zone', '')}".rstrip()
        case Service(cluster_ips=addresses):
            return f" {addresses[0]}"
    return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """A control plane for this module only, since these tests kill and pause its API server."""
    with ControlPlane() as made:
        apply_crds(made)
        yield made


@pytest.fixture
def start(cluster: ControlPlane) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(*fixed: Resource, kubeconfig: Path | None = None) -> Running:
        made.append(Running(Api(str(kubeconfig or cluster.kubeconfig)), *fixed))
        return made[-1]

    yield build
    for running in made:
        running.stop()


@pytest.fixture(autouse=True)
def empty_cluster(cluster: ControlPlane) -> Iterator[None]:
    yield
    cluster.kubectl("delete", "--all", "--force", "--grace-period=0", "--wait=false", "pods,services,nodes,lr")


def pod(name: str, node: str = "here") -> dict[str, Any]:
    containers = [{"name": "c", "image": "none"}]
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers}}


def make_ready(cluster: ControlPlane, name: str, *, ready: bool = True) -> None:
    status = {"conditions": [{"type": "Ready", "status": str(ready)}], "podIPs": [{"ip": "10.0.0.5"}]}
    cluster.api.patch(f"{PODS}/{name}/status", {"status": {**status, "podIP": "10.0.0.5"}})


def service(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 53, "protocol": "UDP"}]}}


def policies() -> list[dict[str, Any]]:
    return [
        yaml.safe_load((ROOT / "k8s" / "examples" / f"{name}.yaml").read_text())
        for name in ("address-frontend", "service-frontend")
    ]


def test_p5_an_object_that_can_no_longer_be_understood_counts_as_deleted(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    running = start(resources.pods_of_node("here"))
    running.expect("started start", "ended")
    cluster.api.create(PODS, pod("p"))
    running.expect("+ Pod/default/p")
    make_ready(cluster, "p")
    running.expect("+ Pod/default/p ready")
    cluster.api.patch(f"{PODS}/p", {"metadata": {"annotations": {"kubernetes.io/config.hash": "a/b"}}})
    make_ready(cluster, "p", ready=False)
    running.expect("+ Pod/default/p")  # an invalid annotation is ignored
    odd = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    cluster.api.patch(f"{PODS}/p/status", {"status": odd})
    running.expect("- default/p")
    make_ready(cluster, "p")
    running.expect("+ Pod/default/p ready")
    cluster.api.patch(f"{PODS}/p/status", {"status": odd})
    running.expect("- default/p")
    cluster.api.delete(f"{PODS}/p", grace_seconds=0)
    cluster.api.create(PODS, pod("q"))
    running.expect("+ Pod/default/q")


def test_only_this_nodes_pods_and_labels_are_delivered(cluster: ControlPlane, start: Callable[..., Running]) -> None:
    for name in ("here", "there"):
        cluster.api.create("/api/v1/nodes", {"metadata": {"name": name, "labels": {"zone": "a"}}})
    cluster.api.create(PODS, pod("mine"))
    cluster.api.create(PODS, pod("theirs", node="there"))
    running = start(resources.pods_of_node("here"), resources.node("here"))
    listing = sorted(running.next() for _ in range(4))
    assert listing == ["+ Node/here a", "+ Pod/default/mine", "ended", "started start"]
    make_ready(cluster, "theirs")
    cluster.api.patch("/api/v1/nodes/there", {"metadata": {"labels": {"zone": "b"}}})
    make_ready(cluster, "mine")
    running.expect("+ Pod/default/mine ready")
    make_ready(cluster, "mine", ready=False)
    running.expect("+ Pod/default/mine")
    cluster.api.patch("/api/v1/nodes/here", {"metadata": {"labels": {"zone": "b"}}})
    running.expect("+ Node/here b")
    cluster.api.delete(f"{PODS}/mine", grace_seconds=0)
    running.expect("+ Pod/default/mine terminating", "- default/mine")


def test_policies_of_both_kinds_are_delivered_and_one_crd_may_come_later(
    cluster: ControlPlane, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_judgement, "_ABSENT_OPTIONAL_BACKOFF", Backoff(first=0.5, longest=0.5))
    address, of_service = policies()
    cluster.apply(address)
    running = start(*map(resources.policies, PolicyKind))
    listing = {running.next() for _ in range(4)} - {"listed absent"}
    assert listing == {"started start", "+ LocalRedirectPolicy/test-addr", "ended"}
    cluster.apply(of_service)
    cluster.apply(BALANCING_CRD)
    cluster.wait("condition=Established", 30, "crd/balancingpolicies.balancing.elf.io")
    other = {"apiVersion": "balancing.elf.io/v1beta1", "kind": "BalancingPolicy", "metadata": {"name": "theirs"}}
    cluster.apply({**other, "spec": {"frontend": address["spec"]["frontend"]}})
    delivered = {running.next()}
    while "+ BalancingPolicy/theirs" not in delivered:
        delivered.add(running.next())
    assert delivered - {"listed absent"} == {"+ LocalRedirectPolicy/test-service", "+ BalancingPolicy/theirs"}
    cluster.kubectl("delete", "crd", "balancingpolicies.balancing.elf.io")
    while (event := running.next()) == "listed absent":
        pass
    assert event == "- theirs"


def test_subscribed_services_are_delivered_and_a_long_subscription_watches_all(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    running = start()
    running.expect("started start", "ended")
    for name in ("one", "other"):
        cluster.api.create(SERVICES, service(name))
    address = cluster.api.get(f"{SERVICES}/one")["spec"]["clusterIP"]
    running.source.subscribe(frozenset({NamespacedName("default", "one")}), 1)
    running.expect(f"+ Service/default/one {address}", "ended")
    many = [NamespacedName("default", f"s{number}") for number in range(25)]
    running.source.subscribe(frozenset({NamespacedName("default", "one"), *many}), 2)
    other = cluster.api.get(f"{SERVICES}/other")["spec"]["clusterIP"]
    assert {running.next() for _ in range(2)} >= {f"+ Service/default/other {other}"}
    cluster.api.delete(f"{SERVICES}/one")
    while (event := running.next()) != "- default/one":
        assert event == "ended" or event.startswith("+ Service/default/kubernetes")


def test_a_long_list_is_read_in_pages(
    cluster: ControlPlane, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listwatch, "PAGE_SIZE", 3)
    for number in range(7):
        cluster.api.create(PODS, pod(f"p{number}"))
    running = start(resources.ALL_PODS)
    running.expect("started start", *(f"+ Pod/default/p{number}" for number in range(7)), "ended")


def test_objects_stay_while_the_server_is_down_and_what_was_deleted_meanwhile_goes_when_it_is_back(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    for name in ("stays", "goes"):
        cluster.api.create(PODS, pod(name))
    running = start(resources.pods_of_node("here"))
    running.expect("started start", "+ Pod/default/goes", "+ Pod/default/stays", "ended")
    cluster.stop_apiserver()
    delete_from_etcd(cluster, "/registry/pods/default/goes")
    running.expect_silence(2)
    running.source.relist()
    running.expect("started requested", "+ Pod/default/goes", "+ Pod/default/stays", "ended")
    cluster.start_apiserver()
    assert "- default/goes" in {running.next(), running.next()}
    make_ready(cluster, "stays")
    while (event := running.next()) != "+ Pod/default/stays ready":
        assert event in ("listed expired", "- default/goes")


def test_a_history_that_was_compacted_away_leads_to_a_new_list(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    cluster.api.create(PODS, pod("goes"))
    running = start(resources.pods_of_node("here"))
    running.expect("started start", "+ Pod/default/goes", "ended")
    cluster.stop_apiserver()
    delete_from_etcd(cluster, "/registry/pods/default/goes")
    version = json.loads(etcdctl(cluster, "endpoint", "status", "-w", "json"))[0]["Status"]["header"]["revision"]
    etcdctl(cluster, "compact", str(version))
    cluster.start_apiserver()
    assert {running.next(), running.next()} == {"- default/goes", "listed expired"}


def test_a_silent_server_is_given_up_and_connected_to_again(
    cluster: ControlPlane, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_judgement, "SILENCE_SECONDS", 2.0)
    cluster.api.create(PODS, pod("p"))
    running = start(resources.pods_of_node("here"))
    running.expect("started start", "+ Pod/default/p", "ended")
    cluster.pause_apiserver()
    running.expect_silence(4)
    cluster.resume_apiserver()
    make_ready(cluster, "p")
    running.expect("+ Pod/default/p ready")


def test_a_right_that_is_taken_away_is_named_and_known_objects_stay(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    """The server checks the right only when a watch begins. So the server is restarted, which ends the watch."""
    cluster.apply(
        [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "reader"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
            }
        ]
    )
    cluster.kubectl("create", "serviceaccount", "reader")
    binding = ("clusterrolebinding", "reader", "--clusterrole=reader", "--serviceaccount=default:reader")
    cluster.kubectl("create", *binding)
    token = cluster.kubectl("create", "token", "reader").stdout.strip()
    cluster.api.create(PODS, pod("p"))
    running = start(resources.pods_of_node("here"), kubeconfig=cluster.make_kubeconfig(token))
    running.expect("started start", "+ Pod/default/p", "ended")
    cluster.kubectl("delete", "clusterrolebinding", "reader")
    cluster.stop_apiserver()
    running.expect_trouble(TroubleKind.OUTAGE)
    cluster.start_apiserver()
    who = "system:serviceaccount:default:reader"
    running.expect_trouble(TroubleKind.REFUSED, "the right to watch pods is missing", who)
    cluster.api.delete(f"{PODS}/p", grace_seconds=0)
    running.expect_silence(2)
    cluster.kubectl("create", *binding)
    while (event := running.next()) != "- default/p":
        assert event in ("+ Pod/default/p terminating", "listed expired")


def test_a_missing_crd_means_no_policies_once_it_is_certain(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    """The CRD was deleted while the agent was away, and may come back."""
    cluster.kubectl("delete", "crd", "localredirectpolicies.balancing.elf.io")
    try:
        running = start(*map(resources.policies, PolicyKind))
        while (event := running.next()) != "started start":
            assert event == "listed absent"
        running.expect("ended")
        running.expect_trouble(TroubleKind.ABSENT, "has no localredirectpolicies.balancing.elf.io")
    finally:
        cluster.apply(CRD.read_text())
        cluster.wait("condition=Established", 30, "crd/localredirectpolicies.balancing.elf.io")
    address, _ = policies()
    cluster.apply(address)
    while (event := running.next()) != "+ LocalRedirectPolicy/test-addr":
        assert event == "listed absent"


def test_repeated_restarts_of_the_server_remove_no_policy(cluster: ControlPlane, start: Callable[..., Running]) -> None:
    """A server that is starting may not know its kinds yet."""
    address, _ = policies()
    cluster.apply(address)
    running = start(resources.policies(PolicyKind.LOCAL_REDIRECT))
    running.expect("started start", "+ LocalRedirectPolicy/test-addr", "ended")
    for _ in range(3):
        cluster.stop_apiserver()
        cluster.start_apiserver()
    running.expect_no_object(3)


def test_after_the_machine_has_slept_everything_is_listed_again(
    cluster: ControlPlane, start: Callable[..., Running]
) -> None:
    cluster.api.create(PODS, pod("p"))
    running = start(resources.pods_of_node("here"), resources.node("here"))
    running.expect("started start", "+ Pod/default/p", "ended")
    running.source.relist(time.monotonic())
    running.expect("listed resumed", "listed resumed", "started requested", "+ Pod/default/p", "ended")
    make_ready(cluster, "p")
    while running.next() != "+ Pod/default/p ready":
        pass


def test_a_server_that_never_had_our_resource_version_is_listed_all_the_same(cluster: ControlPlane) -> None:
    """As after etcd was restored from a backup: we have seen a version that this server has not reached yet."""
    cluster.api.create(PODS, pod("p"))
    events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
    resource = resources.pods_of_node("here")
    made = listwatch.ListWatch(
        Api(str(cluster.kubeconfig)), resource, resources.reducer(resource, RedirectSettings()), events.put
    )
    made._seen = str(10**12)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    while not isinstance(event := events.get(timeout=WAIT_SECONDS), Listed):
        pass
    made.stop()
    thread.join(5)
    assert len(event.objects) == 1


def test_a_new_token_in_the_file_is_used_when_the_old_one_is_refused(
    cluster: ControlPlane, start: Callable[..., Running], tmp_path: Path
) -> None:
    def token_of(account: str) -> str:
        cluster.kubectl("create", "serviceaccount", account)
        cluster.kubectl(
            "create",
            "clusterrolebinding",
            account,
            "--clusterrole=cluster-admin",
            f"--serviceaccount=default:{account}",
        )
        return cluster.kubectl("create", "token", account).stdout.strip()

    token_file = tmp_path / "token"
    token_file.write_text(token_of("first"))
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"tokenFile": str(token_file)}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    running = start(resources.pods_of_node("here"), kubeconfig=kubeconfig)
    running.expect("started start", "ended")
    cluster.stop_apiserver()
    cluster.start_apiserver()
    cluster.kubectl("delete", "serviceaccount", "first")
    token_file.write_text(token_of("second"))
    cluster.api.create(PODS, pod("p"))
    while (event := running.next()) != "+ Pod/default/p":
        assert event == "listed expired"


def delete_from_etcd(cluster: ControlPlane, key: str) -> None:
    """Deletes an object while the API server is down."""
    etcdctl(cluster, "del", key)


def etcdctl(cluster: ControlPlane, *arguments: str) -> str:
    command = ["etcdctl", f"--endpoints=http://127.0.0.1:{cluster.etcd_port}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"ETCDCTL_API": "3"}).stdout
