"""The CRD on a real API server: what it refuses and with which message, what it accepts, and what kubectl shows of it.

Wherever the agent's own reader of policies can check a rule, too, both must judge a manifest alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings

from config.settings import RedirectSettings
from k8s.commands.validate import validate
from k8s.objects.policy import parse_policy
from tests.cluster.api import ApiRefused, Json
from tests.cluster.binaries import ROOT
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crd_cases import ANNOTATION, BAD, GOOD, METADATA, SELECTOR, Bad, address_policy, changed
from tests.cluster.generated import policies
from tests.cluster.install_yaml import CRD, INSTALL
from tests.lab.processes import wait_until

# Strict, as kubectl asks for it; nothing is kept.
CREATE = "/apis/balancing.elf.io/v1beta1/localredirectpolicies?dryRun=All&fieldValidation=Strict"
EXAMPLES = sorted((ROOT / "k8s" / "examples").glob("*-frontend.yaml"))
(VERSION,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """With the admission policy in force, which takes the API server a moment."""
    documents = yaml.safe_load_all(INSTALL.read_text())
    control_plane.apply([each for each in documents if each["kind"].startswith("ValidatingAdmissionPolicy")])
    wrong = changed(address_policy(), {"metadata/annotations": {ANNOTATION: "0"}})
    wait_until(lambda: refusal(control_plane, wrong), "the ValidatingAdmissionPolicy is in force", WAIT_SECONDS)
    return control_plane


def refusal(plane: ControlPlane, policy: Json) -> list[str]:
    """What `kubectl apply` would say, a line for each fault; empty when the policy is accepted."""
    try:
        plane.api.create(CREATE, policy)
    except ApiRefused as refused:
        status = yaml.safe_load(refused.body)
        causes = status.get("details", {}).get("causes", [])
        return [f"{each.get('field')}: {each['message']}" for each in causes] or [status["message"]]
    return []


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_a_bad_policy_is_refused_and_the_message_says_what_to_write(plane: ControlPlane, case: Bad) -> None:
    lines = refusal(plane, case.policy)
    assert any(case.path in line and case.says in line for line in lines), lines
    assert all(len(line) < 1200 for line in lines)


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_the_agent_refuses_what_the_api_server_refuses(case: Bad) -> None:
    policy = parse_policy(case.policy, RedirectSettings())
    assert bool(policy.faults) is not bool(case.agent_accepts), policy.faults


def validated(file: Path, policy: Json) -> list[str]:
    """The faults that `run.py validate` finds in a policy."""
    file.write_text(json.dumps(policy))
    return validate([file], RedirectSettings())


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_validate_names_what_the_api_server_refuses(tmp_path: Path, case: Bad) -> None:
    assert validated(tmp_path / "f.json", case.policy)


@pytest.mark.parametrize("name", GOOD)
def test_validate_finds_no_fault_in_a_good_policy(tmp_path: Path, name: str) -> None:
    assert validated(tmp_path / "f.json", GOOD[name]) == []


@pytest.mark.parametrize("name", METADATA)
def test_validate_judges_metadata_as_the_api_server_does(plane: ControlPlane, tmp_path: Path, name: str) -> None:
    policy = address_policy()
    policy["metadata"] |= METADATA[name]
    refused, faults = refusal(plane, policy), validated(tmp_path / "f.json", policy)
    assert bool(refused) == bool(faults), (refused, faults)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(policy=policies)
def test_validate_names_whatever_the_api_server_refuses(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, policy: Json
) -> None:
    faults = validated(tmp_path_factory.mktemp("f") / "f.json", policy)
    refused = refusal(plane, policy)
    assert faults or not refused, refused


WORDS = ["y", "Y", "n", "no", "on", "OFF", "True", "~", "null", "1e3", "089", "0x1F", "0o17", "0b1", "1_0", "12", "-3"]
WORDS += ["1.5", ".5", "1.", "+.5e3", "yo", "e3", "1a", "2026-01-31", "12:30:45", "2026-01-31T12:00:00Z", "0.0.0"]


@pytest.mark.parametrize("word", WORDS)
def test_validate_reads_an_unquoted_word_as_kubectl_does(plane: ControlPlane, tmp_path: Path, word: str) -> None:
    policy = changed(address_policy(), {f"{SELECTOR}/matchLabels": {"app": "WORD"}})
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(policy).replace("WORD", word))
    refused = plane.kubectl("create", "--dry-run=server", "-f", str(file), check=False).returncode != 0
    # A word may be a string to kubectl but not to an agent. Then `validate` reports the agent's faults.
    agent_too = bool(parse_policy(yaml.safe_load(file.read_text()), RedirectSettings()).faults)
    assert bool(validate([file], RedirectSettings())) == (refused or agent_too)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_policy_is_accepted_by_both(plane: ControlPlane, name: str) -> None:
    policy = parse_policy(GOOD[name], RedirectSettings())
    assert (policy.faults, policy.unknown_fields) == ((), ())
    assert refusal(plane, GOOD[name]) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_the_users_examples_are_accepted_as_they_stand(plane: ControlPlane, path: Path) -> None:
    plane.apply(path.read_text())
    name = yaml.safe_load(path.read_text())["metadata"]["name"]
    plane.kubectl("delete", "lr", name)


def test_kubectl_shows_the_message_and_refuses_a_misspelt_field(plane: ControlPlane) -> None:
    wrong = changed(address_policy(), {"spec/frontend": {}})
    printed = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(wrong), check=False).stderr
    assert "there is no matcher: write serviceMatcher" in printed
    misspelt = changed(address_policy(), {"spec/config/redirectQosLimits": 3})
    printed = plane.kubectl("apply", "-f", "-", input=yaml.safe_dump(misspelt), check=False).stderr
    assert 'unknown field "spec.config.redirectQosLimits"' in printed


def test_a_word_as_a_port_causes_no_misleading_further_faults(plane: ControlPlane) -> None:
    wrong = [{"port": "http", "name": "a"}, {"port": 80, "name": "b"}]
    lines = refusal(plane, changed(address_policy(), {"spec/frontend/addressMatcher/toPorts": wrong}))
    assert {line.partition(": ")[0] for line in lines if "toPorts" in line} == {
        "spec.frontend.addressMatcher.toPorts[0].port",
        "spec.frontend.addressMatcher.toPorts",  # and, rightly, the missing partners
        "spec.backend.toPorts",
    }
    assert not any("twice" in line for line in lines)


def test_the_annotation_of_an_existing_policy_is_checked_too(plane: ControlPlane) -> None:
    plane.apply(address_policy())
    printed = plane.kubectl("annotate", "lr", "p", f"{ANNOTATION}=x", check=False).stderr
    assert f"{ANNOTATION} must be a whole number from 1 to 4294967295" in printed
    plane.kubectl("annotate", "lr", "p", f"{ANNOTATION}=7")
    plane.kubectl("delete", "lr", "p")


def test_the_status_is_stored_and_fills_the_columns_of_kubectl_get(plane: ControlPlane) -> None:
    plane.apply(address_policy())
    status = {
        "frontend": "169.254.0.90",
        "frontends": ["169.254.0.90:80/TCP"],
        "nodesReady": 3,
        "nodesSelected": 5,
        "nodes": "3/5",
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-31T12:00:00Z",
                "reason": "Accepted",
                "message": "In force.",
            }
        ],
    }
    path = "/apis/balancing.elf.io/v1beta1/localredirectpolicies/p"
    kept = plane.api.patch(f"{path}/status?fieldValidation=Strict", {"status": status})
    assert kept["status"] == status and kept["metadata"]["generation"] == 1
    header, row = plane.kubectl("get", "lr").stdout.splitlines()
    assert header.split() == ["NAME", "FRONTEND", "NODES", "ACCEPTED", "AGE"]
    assert row.split()[:-1] == ["p", "169.254.0.90", "3/5", "True"]
    header, row = plane.kubectl("get", "lr", "-o", "wide").stdout.splitlines()
    assert header.split()[-2:] == ["REASON", "MESSAGE"] and row.endswith("Accepted   In force.")
    plane.kubectl("delete", "lr", "p")


def test_a_policy_in_shadow_mode_shows_that(plane: ControlPlane) -> None:
    plane.apply(changed(address_policy(), {"spec/config": {"mode": "Shadow", "percentage": 10}}))
    header, row = plane.kubectl("get", "lr", "-o", "wide").stdout.splitlines()
    assert header.split()[-4:] == ["MODE", "PERCENTAGE", "REASON", "MESSAGE"]
    assert row.split()[-2:] == ["Shadow", "10"]
    plane.kubectl("delete", "lr", "p")


def test_defaults_are_filled_in(plane: ControlPlane) -> None:
    kept = plane.api.create(CREATE, changed(address_policy(), {"spec/config": {}}))["spec"]
    assert kept["enabled"] is True
    assert kept["config"] == {"redirectFromHost": True, "skipRedirectFromBackend": True}
    assert kept["backend"]["toPorts"] == [{"port": "8080", "protocol": "TCP"}]


def test_defaults_of_a_health_check_are_filled_in(plane: ControlPlane) -> None:
    numbers = {"interval": "1s", "failureThreshold": 2, "successThreshold": 1}
    for check, kept in {
        "dns": {"dns": {"name": ".", "type": "NS"}, "port": 53, **numbers},
        "http": {"http": {"path": "/"}, "port": 53, **numbers},
    }.items():
        policy = changed(address_policy(), {"spec/backend/healthCheck": {check: {}, "port": 53}})
        assert plane.api.create(CREATE, policy)["spec"]["backend"]["healthCheck"] == kept


def objects_of(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Path, as `kubectl explain` takes it, and the schema of every object with fields, also of those in lists."""
    while schema.get("type") == "array":
        schema = schema["items"]
    if schema.get("properties"):
        yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from objects_of(inner, f"{path}.{name}")


OBJECTS = list(objects_of(SCHEMA))


@pytest.mark.parametrize(("path", "schema"), OBJECTS, ids=[path or "." for path, _ in OBJECTS])
def test_kubectl_explains_every_field(plane: ControlPlane, path: str, schema: Json) -> None:
    printed = " ".join(plane.kubectl("explain", f"lr{path}").stdout.split())
    assert " ".join(schema["description"].split()) in printed
    for name, field in schema["properties"].items():
        if path or name not in {"apiVersion", "kind", "metadata"}:  # the API server describes these itself
            described = re.search(rf" {name} <[^>]*>(?: -required-)?(?: enum: (?:\w+, )*(?:\w+|[.]+))? (.*)", printed)
            assert described and described[1].startswith(" ".join(field["description"].split())), name


def test_every_field_and_item_of_the_schema_is_described() -> None:
    """Also those that `kubectl explain` does not reach. The values of labels and expressions need no description."""

    def undescribed(schema: Json, path: str) -> Iterator[str]:
        if not schema.get("description") and not path.endswith((".metadata", ".matchLabels.*", ".values[]")):
            yield path
        for name, inner in schema.get("properties", {}).items():
            yield from undescribed(inner, f"{path}.{name}")
        if "items" in schema:
            yield from undescribed(schema["items"], f"{path}[]")
        if "additionalProperties" in schema:
            yield from undescribed(schema["additionalProperties"], f"{path}.*")

    assert list(undescribed(SCHEMA, "")) == []
