"""A fault in a manifest is reported once and clearly, and affects no other policy (P9, promise 1)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.inspecting.views import view
from config.settings import RedirectSettings
from k8s.objects.manifests import read_manifest
from k8s.objects.model import Policy
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, Manifest, PodProcess
from tests.lab.processes import wait_until
from tests.unit.objects import ALL_KINDS

BAD = "169.254.0.91"
Change = Callable[[Manifest], object]


@pytest.fixture(autouse=True)
def good(lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess) -> Iterator[None]:
    """An unrelated policy goes on working in each test, and the log never has a traceback."""
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("good", manifests.policy("good"))
    wait_until(lambda: agent.states().get("good") == "Active", "the good policy is active")
    yield
    assert client.do("udp", address=VIP, port=53)["who"] == "pod0"
    assert "Traceback" not in agent.log.read_text()


def matcher(policy: Manifest) -> Any:
    return policy["spec"]["frontend"]["addressMatcher"]


INVALID: dict[str, tuple[Change, str, str]] = {
    # case: what is changed in a good policy, the field that the message names, and what it says is allowed
    "port out of range": (
        lambda p: matcher(p)["toPorts"][0].update(port=70000),
        "spec.frontend.addressMatcher.toPorts[0].port",
        "from 1 to 65535",
    ),
    "port that is no number": (
        lambda p: matcher(p)["toPorts"][0].update(port="http"),
        "spec.frontend.addressMatcher.toPorts[0].port",
        "from 1 to 65535",
    ),
    "protocol that we do not know": (
        lambda p: matcher(p)["toPorts"][0].update(protocol="SCTP"),
        "spec.frontend.addressMatcher.toPorts[0].protocol",
        "TCP or UDP",
    ),
    "no address": (
        lambda p: matcher(p).update(ip="300.1.1.1"),
        "spec.frontend.addressMatcher.ip",
        "it must be the IPv4 or IPv6 address of one host",
    ),
    "a list for a mapping": (lambda p: p["spec"].update(frontend=[]), "spec.frontend", "it must be a mapping"),
    "two matchers": (
        lambda p: p["spec"]["frontend"].update(serviceMatcher={"serviceName": "a", "namespace": "b"}),
        "spec.frontend",
        "exactly one of serviceMatcher and addressMatcher",
    ),
    "empty selector": (
        lambda p: p["spec"]["backend"].update(endpointSelector={}),
        "spec.backend.endpointSelector",
        "it must have matchLabels or matchExpressions",
    ),
    "port without a partner": (
        lambda p: p["spec"]["backend"]["toPorts"][0].update(protocol="TCP"),
        "toPorts",
        "must",
    ),
    "negative limit": (
        lambda p: p["spec"]["config"].update(redirectQosLimit=-1),
        "spec.config.redirectQosLimit",
        "from 0 to 4294967295",
    ),
    "text for a boolean": (
        lambda p: p["spec"].update(enabled="yes"),
        "spec.enabled",
        "true or false",
    ),
    "serviceId of 0": (
        lambda p: p["metadata"].update(annotations={"balancing.elf.io/serviceId": "0"}),
        "balancing.elf.io/serviceId",
        "from 1 to 4294967295",
    ),
}


@pytest.mark.parametrize(("change", "field", "allowed"), INVALID.values(), ids=INVALID)
def test_an_invalid_policy_names_field_and_what_is_allowed_and_has_no_rows(
    lab: Lab, agent: Agent, client: PodProcess, change: Change, field: str, allowed: str
) -> None:
    policy = manifests.policy("bad", ip=BAD)
    change(policy)
    already = agent.log.read_text().count("policy bad is Invalid")
    lab.write("bad", policy)
    wait_until(lambda: agent.states().get("bad") == "Invalid", "it is invalid")
    message = agent.message("bad")
    assert field in message and allowed in message, message
    assert {row["policy"] for row in agent.inspect("frontends")} == {"good"}
    assert client.do("udp", address=BAD, port=53)["who"] == REMOTE
    assert agent.log.read_text().count("policy bad is Invalid") == already + 1
    lab.remove("bad")
    wait_until(lambda: "bad" not in agent.states(), "it is gone")


def logged(agent: Agent, *parts: str) -> int:
    """Number of lines in the log that contain all of these."""
    return sum(all(part in line for part in parts) for line in agent.log.read_text().splitlines())


UNREADABLE = {
    "broken YAML": b"spec: [unclosed",
    "binary": b"\x00\xff\xfe\x80",
    "an alias of nothing": b"a: *nobody",
    "a tag that would run code": b"!!python/object/apply:os.system ['touch /tmp/never']",
    "no mapping": b"- 1\n- 2",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_manifest_is_named(
    lab: Lab, agent: Agent, request: pytest.FixtureRequest, content: bytes
) -> None:
    name = f"unreadable-{list(UNREADABLE.values()).index(content)}.yaml"
    (lab.manifests / name).write_bytes(content)
    wait_until(lambda: logged(agent, "WARNING", name) == 1, f"{request.node.name}: one line in the log")
    assert set(agent.states()) == {"good"}


def test_p5_a_pod_that_can_no_longer_be_understood_counts_as_deleted(
    lab: Lab, agent: Agent, pods: list[PodProcess], client: PodProcess
) -> None:
    lab.write("bad", manifests.policy("odd", ip=BAD, app="odd"))
    pod = manifests.pod(pods[1], app="odd")
    lab.write("odd-pod", pod)
    wait_until(lambda: agent.states().get("odd") == "Active", "it is active")
    pod["metadata"]["annotations"] = {"kubernetes.io/config.hash": "a/b"}
    lab.write("odd-pod", pod, manifests.policy("marker", ip="169.254.0.93"))
    wait_until(lambda: agent.states().get("marker") == "Active", "the file was read")
    assert client.do("udp", address=BAD, port=53)["who"] == "pod1", "a wrong annotation is no annotation"
    pod["status"]["podIPs"][0]["ip"] = "10.1.0.x"
    lab.write("odd-pod", pod)
    wait_until(lambda: agent.states().get("odd") == "NoBackend", "it has no backend")
    assert client.do("udp", address=BAD, port=53)["who"] == REMOTE
    assert logged(agent, "WARNING", f"Pod/default/{pods[1].name}: status.podIPs[0].ip: '10.1.0.x' is wrong") == 1
    (lab.manifests / "odd-pod.yaml").unlink()
    (lab.manifests / "bad.yaml").unlink()
    wait_until(lambda: "odd" not in agent.states(), "it is gone")


def test_p17_addresses_that_cannot_work_are_no_frontends(lab: Lab, agent: Agent) -> None:
    for number, ip in enumerate(("127.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1")):
        lab.write("bad", manifests.policy(f"bad{number}", ip=ip))
        wait_until(lambda name=f"bad{number}": agent.states().get(name) == "Invalid", f"{ip} is refused")  # type: ignore[misc]
        assert {row["policy"] for row in agent.inspect("frontends")} == {"good"}
    service = manifests.service(ports=(("dns", 53, "UDP"),))
    service["spec"]["clusterIPs"] = ["127.0.0.1", "::1"]
    lab.write("bad", manifests.policy("of-service", service_name=service["metadata"]["name"]), service)
    wait_until(lambda: agent.states().get("of-service") == "NoFrontend", "the Service gives no frontend")
    assert "127.0.0.1 is a loopback address" in agent.message("of-service")
    service["spec"]["clusterIPs"] = ["10.0.0.x"]
    lab.write("bad", manifests.policy("of-service", service_name=service["metadata"]["name"]), service)
    wait_until(lambda: "spec.clusterIPs[0]: '10.0.0.x' is wrong" in agent.message("of-service"), "the field is named")
    assert agent.states().get("of-service") == "NoFrontend"
    (lab.manifests / "bad.yaml").unlink()
    wait_until(lambda: "of-service" not in agent.states(), "it is gone")


def test_a_name_of_300_characters_is_refused(lab: Lab, agent: Agent) -> None:
    lab.write("bad", manifests.policy("n" * 300, ip=BAD), manifests.policy("after", ip=BAD))
    wait_until(lambda: agent.states().get("after") == "Active", "its neighbour in the file works")
    assert {row["policy"] for row in agent.inspect("frontends")} == {"good", "after"}
    assert logged(agent, "metadata.name", "300") >= 1


def test_an_unknown_field_is_logged_once_and_the_policy_works_without_it(lab: Lab, agent: Agent) -> None:
    policy = manifests.policy("typo", ip=BAD)
    policy["spec"]["config"]["redirectQosLimt"] = 5
    lab.write("bad", policy)
    wait_until(lambda: agent.states().get("typo") == "Active", "active")
    policy["spec"]["config"]["redirectFromHost"] = False
    lab.write("bad", policy)
    wait_until(lambda: logged(agent, "redirectQosLimt") >= 1, "the unknown field is named")
    assert logged(agent, "spec.config.redirectQosLimt", "redirectQosLimit") == 1


def test_two_policies_that_ask_for_one_number_conflict(lab: Lab, agent: Agent) -> None:
    first = manifests.policy("first", ip=BAD, created="2026-01-01T00:00:00Z")
    second = manifests.policy("second", ip="169.254.0.92", created="2026-01-02T00:00:00Z")
    for policy in (first, second):
        policy["metadata"]["annotations"] = {"balancing.elf.io/serviceId": "77"}
    lab.write("bad", second, first)
    wait_until(lambda: agent.states().get("second") == "Conflict", "the younger is out of force")
    assert "serviceId 77" in agent.message("second") and "first" in agent.message("second")
    assert {row["policy"] for row in agent.inspect("frontends")} == {"good", "first"}


def paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all values in a manifest."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def put(manifest: Manifest, path: tuple[str | int, ...], value: object) -> None:
    target: Any = manifest
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value


TEMPLATE = manifests.policy("generated", ip=BAD, redirectQosLimit=3, sessionAffinity="ClientIP")
PLACES = [path for path in paths(TEMPLATE) if path != ("metadata", "name")]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)
COUNTER = itertools.count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=2))
def test_generated_manifests_never_put_a_row_of_an_invalid_policy_into_the_kernel(
    lab: Lab, agent: Agent, changes: list[tuple[tuple[str | int, ...], object]]
) -> None:
    policy = copy.deepcopy(TEMPLATE)
    # Change inner values before the values that contain them.
    for path, value in sorted(changes, key=lambda change: -len(change[0])):
        put(policy, path, value)
    marker = f"marker-{next(COUNTER)}"
    objects = [policy, manifests.policy(marker, ip="169.254.0.92")]
    lab.write("generated", *objects)
    wait_until(lambda: agent.states().get(marker) == "Active", "the file was read")
    parsed = read_manifest(
        yaml.safe_dump_all(objects).encode(),
        is_json=False,
        kinds=ALL_KINDS,
        node_name="node",
        redirect=RedirectSettings(),
    )
    valid = {found.key.name for found in parsed.objects.values() if isinstance(found, Policy) and found.spec}
    assert {row["policy"] for row in view("frontends", lab.bpffs)} <= valid | {"good"}
    states = agent.states()
    assert all((states[name] == "Invalid") == (name not in valid) for name in states if name != "good")
