"""`convert`: Cilium's policies and NodeLocal DNSCache become what `validate` accepts, and each difference is named."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import RedirectSettings
from k8s.commands.convert import convert, convert_all
from k8s.commands.validate import validate
from k8s.objects.documents import Document, read_documents

INPUTS = Path(__file__).parent / "conversion"
CILIUM, NODE_CACHE = INPUTS / "cilium.yaml", INPUTS / "node-cache.yaml"
Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def written(tmp_path: Path, *objects: Manifest) -> Path:
    path = tmp_path / "given.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return path


def converted(path: Path) -> dict[str, Manifest]:
    """By KIND/NAME."""
    result = convert([path], RedirectSettings())
    assert result.faults == ()
    found = [each for each in yaml.safe_load_all(result.manifests) if each]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def remarks(path: Path) -> str:
    """The comments, on one line."""
    lines = convert([path], RedirectSettings()).manifests.splitlines()
    return " ".join(" ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#")).split())


def faults(path: Path, redirect: RedirectSettings | None = None) -> list[str]:
    result = convert([path], redirect or RedirectSettings())
    assert not (result.faults and result.manifests)
    return list(result.faults)


@pytest.mark.parametrize("path", [CILIUM, NODE_CACHE], ids=["Cilium", "NodeLocal DNSCache"])
def test_validate_accepts_what_convert_prints(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "converted.yaml"
    output.write_text(convert([path], RedirectSettings()).manifests)
    assert validate([output], RedirectSettings()) == []


# --- Cilium


def test_an_address_of_cilium_keeps_its_backends_in_the_policys_namespace() -> None:
    assert converted(CILIUM)["LocalRedirectPolicy/metadata-proxy"]["spec"] == {
        "frontend": {"addressMatcher": {"ip": "169.254.169.254", "toPorts": [{"port": 80, "protocol": "TCP"}]}},
        "backend": {
            "namespace": "team",
            "endpointSelector": {"matchLabels": {"app": "proxy"}},
            "toPorts": [{"port": 8181, "protocol": "TCP"}],
        },
        "config": {"skipRedirectFromBackend": True},
    }


def test_a_service_of_cilium_keeps_its_default_for_calls_of_backends_and_names_of_ports_in_small_letters() -> None:
    spec = converted(CILIUM)["LocalRedirectPolicy/nodelocaldns"]["spec"]
    assert spec["frontend"] == {"serviceMatcher": {"serviceName": "kube-dns", "namespace": "kube-system"}}
    assert spec["config"] == {"skipRedirectFromBackend": False}
    assert [each["name"] for each in spec["backend"]["toPorts"]] == ["dns", "dns-tcp"]


def test_everything_without_a_counterpart_has_a_remark() -> None:
    assert converted(CILIUM)["LocalRedirectPolicy/cart"]["metadata"] == {"name": "cart", "labels": {"team": "shop"}}
    printed = remarks(CILIUM)
    for part in (
        "From CiliumLocalRedirectPolicy/shop/cart.",
        "metadata.namespace: our policies belong to the whole cluster",
        "spec.redirectFrontend.serviceMatcher.namespace: other is not the policy's namespace",
        "spec.skipRedirectFromBackend: false is Cilium's default and is kept",
        "spec.description: has no counterpart and is left out.",
        "metadata.annotations: are left out",
        "spec.future: is unknown; it must be one of description, redirectFrontend, redirectBackend, skipRedirect",
    ):
        assert part in printed


def test_kubectls_own_annotation_has_no_remark(tmp_path: Path) -> None:
    policy = documents(CILIUM)[0]
    policy["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    assert "annotations" not in remarks(written(tmp_path, policy))


def test_policies_of_two_namespaces_with_one_name_get_two_names(tmp_path: Path) -> None:
    first = documents(CILIUM)[0]
    second = deepcopy(first)
    second["metadata"].pop("namespace")
    second["spec"]["redirectFrontend"]["addressMatcher"]["ip"] = "169.254.0.5"
    path = written(tmp_path, first, second)
    assert list(converted(path)) == [
        "LocalRedirectPolicy/team-metadata-proxy",
        "LocalRedirectPolicy/default-metadata-proxy",
    ]
    assert "metadata.name: the new name is team-metadata-proxy" in remarks(path)


WRONG: dict[str, tuple[str, object, str]] = {
    "another version": ("apiVersion", "cilium.io/v3", "apiVersion: 'cilium.io/v3' is wrong; it must be cilium.io/v2"),
    "no spec": ("spec", None, "spec: is missing; it is required"),
    "no frontend": ("spec.redirectFrontend", None, "spec.redirectFrontend: is missing; it is required"),
    "no matcher": (
        "spec.redirectFrontend.addressMatcher",
        None,
        "spec.redirectFrontend: has no matcher; it must have exactly one of serviceMatcher and addressMatcher",
    ),
    "no backend": ("spec.redirectBackend", [], "spec.redirectBackend: an empty list is wrong; it must be a mapping"),
    "every Pod": (
        "spec.redirectBackend.localEndpointSelector",
        {},
        "spec.redirectBackend.localEndpointSelector: is empty; it must have matchLabels or matchExpressions",
    ),
    "a loopback address": (
        "spec.redirectFrontend.addressMatcher.ip",
        "127.0.0.1",
        "spec.redirectFrontend.addressMatcher.ip: '127.0.0.1' is a loopback address",
    ),
    "a protocol": (
        "spec.redirectBackend.toPorts",
        [{"port": "1", "protocol": "ANY"}],
        "spec.redirectBackend.toPorts[0].protocol: 'ANY' is wrong; it must be TCP or UDP",
    ),
    "no partner": (
        "spec.redirectBackend.toPorts",
        [{"port": "1", "protocol": "UDP"}],
        "spec.redirectFrontend.addressMatcher.toPorts[0]: port 80/TCP has no partner",
    ),
    "a word for a boolean": (
        "spec.skipRedirectFromBackend",
        "no",
        "spec.skipRedirectFromBackend: 'no' is wrong; it must be true or false",
    ),
}


def changed(raw: Manifest, path: str, value: object) -> Manifest:
    *parents, last = path.split(".")
    inner = raw
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return raw


@pytest.mark.parametrize("case", WRONG)
def test_a_fault_names_the_object_and_the_field_of_the_given_manifest(case: str, tmp_path: Path) -> None:
    path, value, says = WRONG[case]
    given = written(tmp_path, changed(documents(CILIUM)[0], path, value))
    first = faults(given)[0]
    assert first.startswith(f"CiliumLocalRedirectPolicy/team/metadata-proxy: {says}")
    assert "; it " in first or " must " in first


def test_an_address_that_the_configuration_does_not_allow_is_a_fault() -> None:
    (fault,) = faults(CILIUM, RedirectSettings(address_cidrs=(ip_network("10.0.0.0/8"),)))
    assert fault.startswith("CiliumLocalRedirectPolicy/team/metadata-proxy: spec.redirectFrontend.addressMatcher.ip: ")
    assert "10.0.0.0/8" in fault


# --- NodeLocal DNSCache


def cache(objects: dict[str, Manifest]) -> Manifest:
    pod: Manifest = objects["DaemonSet/node-local-dns-redirected"]["spec"]["template"]["spec"]
    return pod


def test_the_new_cache_is_an_ordinary_pod_that_leaves_its_node_alone() -> None:
    pod = cache(converted(NODE_CACHE))
    assert not pod.keys() & {"hostNetwork", "serviceAccountName"}
    assert pod["automountServiceAccountToken"] is False and pod["dnsPolicy"] == "Default"
    (container,) = pod["containers"]
    assert "securityContext" not in container
    assert container["args"][-3:] == ["-setupinterface=false", "-setupiptables=false", "-skipteardown=true"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert not [each for each in container["ports"] if "hostPort" in each]
    assert [each["name"] for each in pod["volumes"]] == ["kube-dns-config", "config-volume"]
    assert [each["name"] for each in container["volumeMounts"]] == ["config-volume", "kube-dns-config"]


def test_the_new_corefile_binds_to_no_address_of_the_node_and_is_otherwise_the_old_one() -> None:
    before = documents(NODE_CACHE)[2]["data"]["Corefile"].splitlines()
    objects = converted(NODE_CACHE)
    after = objects["ConfigMap/node-local-dns-redirected"]["data"]["Corefile"].splitlines()
    assert [line for line in before if line not in after] == [
        "    bind 169.254.20.10 10.96.0.10",
        "    health 169.254.20.10:8080",
        "    bind 169.254.20.10 10.96.0.10",
    ]
    assert [line for line in after if line not in before] == ["    health :8080"]
    assert cache(objects)["volumes"][1]["configMap"]["name"] == "node-local-dns-redirected"


def test_old_and_new_caches_share_no_name_and_no_label_so_that_they_can_run_side_by_side() -> None:
    old = {f"{each['kind']}/{each['metadata']['name']}" for each in documents(NODE_CACHE)}
    new = converted(NODE_CACHE)
    assert not old & new.keys()
    selector = new["DaemonSet/node-local-dns-redirected"]["spec"]["selector"]["matchLabels"]
    labels = new["DaemonSet/node-local-dns-redirected"]["spec"]["template"]["metadata"]["labels"]
    assert selector == {"k8s-app": "node-local-dns-redirected"} and selector.items() <= labels.items()
    assert not documents(NODE_CACHE)[3]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert new["Service/node-local-dns-redirected"]["spec"]["selector"] == selector
    for name in ("node-local-dns", "node-local-dns-169-254-20-10"):
        backend = new[f"LocalRedirectPolicy/{name}"]["spec"]["backend"]
        assert (backend["endpointSelector"], backend["namespace"]) == ({"matchLabels": selector}, "kube-system")
        assert backend["healthCheck"]["dns"]["name"] == "kubernetes.default.svc.cluster.local"


def test_the_service_and_the_link_local_address_get_a_policy_each() -> None:
    objects = converted(NODE_CACHE)
    service = objects["LocalRedirectPolicy/node-local-dns"]["spec"]["frontend"]["serviceMatcher"]
    assert (service["serviceName"], service["namespace"]) == ("kube-dns", "kube-system")
    address = objects["LocalRedirectPolicy/node-local-dns-169-254-20-10"]["spec"]["frontend"]["addressMatcher"]
    assert address["ip"] == "169.254.20.10"
    assert service["toPorts"] == address["toPorts"]
    printed = remarks(NODE_CACHE)
    assert "-localip: 169.254.20.10 gets a policy of its own" in printed
    assert "-localip: 10.96.0.10 should be the address of kube-dns" in printed
    assert "-upstreamsvc: keep the Service kube-system/kube-dns-upstream" in printed
    assert "Not converted: ServiceAccount/kube-system/node-local-dns, Service/kube-system/kube-dns-upstream" in printed


def test_the_template_with_its_placeholders_can_be_converted_before_they_are_filled_in(tmp_path: Path) -> None:
    text = NODE_CACHE.read_text().replace("169.254.20.10", "__PILLAR__LOCAL__DNS__")
    text = text.replace("10.96.0.10", "__PILLAR__DNS__SERVER__").replace("cluster.local", "__PILLAR__DNS__DOMAIN__")
    path = tmp_path / "template.yaml"
    path.write_text(text)
    objects = converted(path)
    assert [each for each in objects if "Policy" in each] == ["LocalRedirectPolicy/node-local-dns"]
    assert objects["LocalRedirectPolicy/node-local-dns"]["spec"]["backend"]["healthCheck"] == {"dns": {}}
    printed = remarks(path)
    assert (
        "fill in __PILLAR__DNS__DOMAIN__, __PILLAR__DNS__SERVER__, __PILLAR__LOCAL__DNS__ before you apply" in printed
    )
    assert "the Corefile does not name the cluster's domain" in printed


def test_a_corefile_with_the_address_of_the_clusters_dns_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text(
        NODE_CACHE.read_text()
        .replace("__PILLAR__CLUSTER__DNS__", "10.96.0.10")
        .replace(", -upstreamsvc, kube-dns-upstream", "")
    )
    assert "the Corefile forwards to 10.96.0.10, which the new cache reaches the normal way" in remarks(path)


def test_a_cache_on_the_pod_network_stays(tmp_path: Path) -> None:
    objects = documents(NODE_CACHE)
    del objects[3]["spec"]["template"]["spec"]["hostNetwork"]
    path = written(tmp_path, *objects)
    assert converted(path) == {}
    assert "spec.template.spec.hostNetwork: is not true, so the cache is already on the Pod network" in remarks(path)


def test_a_daemon_set_without_its_corefile_is_a_fault(tmp_path: Path) -> None:
    (fault,) = faults(written(tmp_path, documents(NODE_CACHE)[3]))
    assert fault == (
        "DaemonSet/kube-system/node-local-dns: spec.template.spec.volumes: the Corefile is missing; the files must "
        "have ConfigMap/kube-system/kube-dns or ConfigMap/kube-system/node-local-dns with a Corefile"
    )


def test_the_objects_may_be_in_several_files(tmp_path: Path) -> None:
    paths = []
    for number, each in enumerate(documents(NODE_CACHE)):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(each, sort_keys=False))
    assert convert(paths, RedirectSettings()) == convert([NODE_CACHE], RedirectSettings())


def test_a_local_address_that_is_no_ip_address_is_a_fault(tmp_path: Path) -> None:
    objects = documents(NODE_CACHE)
    objects[3]["spec"]["template"]["spec"]["containers"][0]["args"][1] = "169.254.20.10,here"
    (fault,) = faults(written(tmp_path, *objects))
    assert fault.endswith("-localip: 'here' is wrong; it must be IP addresses, separated by commas")


# --- files


def test_a_file_without_anything_to_convert_is_a_fault(tmp_path: Path) -> None:
    path = written(tmp_path, documents(NODE_CACHE)[1])
    (fault,) = faults(path)
    assert fault == (
        f"{path}: there is nothing to convert; it must have a CiliumLocalRedirectPolicy, or a DaemonSet of NodeLocal "
        "DNSCache (a container with -localip)"
    )


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    assert faults(tmp_path / "missing.yaml") == [f"{tmp_path}/missing.yaml: No such file or directory"]
    assert faults(broken)[0].startswith(f"{broken}: line 2: does not parse")


def places(raw: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within a value."""
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.parametrize("wrong", [None, 5, "x", [], {}, [{"a": 1}], {"a": {"b": 2}}, True], ids=repr)
@pytest.mark.parametrize("path", [CILIUM, NODE_CACHE], ids=["Cilium", "NodeLocal DNSCache"])
def test_nothing_is_raised_whatever_a_field_holds(path: Path, wrong: object) -> None:
    given, _ = read_documents(path.read_bytes(), is_json=False)
    for number, each in enumerate(given):
        for *parents, last in places(each.raw):
            raw = deepcopy(each.raw)
            inner = raw
            for key in parents:
                inner = inner[key]
            inner[last] = wrong
            documents = [*given[:number], Document(kind=each.kind, raw=raw), *given[number + 1 :]]
            for conversion in convert_all(documents, RedirectSettings()):
                assert not (conversion.objects and conversion.faults)
