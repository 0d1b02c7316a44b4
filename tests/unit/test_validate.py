"""`validate`: one clear line for each fault, across files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import RedirectSettings
from k8s.validate import validate

EXAMPLES = Path(__file__).parents[2] / "k8s" / "examples"


def policy(name: str, *, ip: str = "10.0.0.1", port: int = 80, number: str = "", **spec: Any) -> dict[str, Any]:
    annotations = {"balancing.elf.io/serviceId": number} if number else {}
    created = spec.pop("created", None)
    return {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": created},
        "spec": {
            "frontend": {"addressMatcher": {"ip": ip, "toPorts": [{"port": port}]}},
            "backend": {"endpointSelector": {"matchLabels": {"a": "b"}}, "toPorts": [{"port": 1}]},
            **spec,
        },
    }


SERVICE: dict[str, Any] = {"frontend": {"serviceMatcher": {"serviceName": "s", "namespace": "n"}}}


def lines(tmp_path: Path, *objects: dict[str, Any]) -> list[str]:
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"kind": "List", "items": list(objects)}))
    return [line.removeprefix(f"{file}: ").replace(str(file), "FILE") for line in validate([file], RedirectSettings())]


def test_the_users_examples_have_no_fault() -> None:
    assert validate(sorted(EXAMPLES.glob("*.yaml")), RedirectSettings()) == []


def test_each_fault_and_each_unknown_field_is_one_line(tmp_path: Path) -> None:
    faulty = policy("p", ip="10.0.0", enabled=1, enable=True)
    assert lines(tmp_path, faulty) == [
        "LocalRedirectPolicy/p: spec.enabled: 1 is wrong, must be true or false (without quotes)",
        (
            "LocalRedirectPolicy/p: spec.frontend.addressMatcher.ip: '10.0.0' is no IP address, "
            "must be one host's IPv4 or IPv6 address, in quotes"
        ),
        "LocalRedirectPolicy/p: spec.enable (did you mean enabled?): is no field that we know",
    ]


def test_other_kinds_are_left_alone(tmp_path: Path) -> None:
    assert lines(tmp_path, {"apiVersion": "v1", "kind": "Service", "metadata": 3}, {"kind": "Deployment"}) == []


def test_missing_and_unparsable_files_are_faults(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    missing, bad, directory = validate([tmp_path / "no.yaml", tmp_path / "bad.yaml", tmp_path], RedirectSettings())
    assert missing == f"{tmp_path}/no.yaml: No such file or directory"
    assert bad.startswith(f"{tmp_path}/bad.yaml: line ")
    assert directory == f"{tmp_path}: is no regular file"


def test_a_policy_without_a_name_is_a_fault(tmp_path: Path) -> None:
    raw = policy("p")
    del raw["metadata"]["name"]
    (line,) = lines(tmp_path, raw)
    assert line.startswith("LocalRedirectPolicy/(no name): metadata.name: is missing")


WINS = " is claimed by FILE: LocalRedirectPolicy/{} too, which wins (older creation, then name)"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param(
            [policy("b"), policy("a")],
            ["LocalRedirectPolicy/b: spec.frontend.addressMatcher.toPorts[0]: 10.0.0.1:80/TCP" + WINS.format("a")],
            id="same address: the name decides",
        ),
        pytest.param(
            [policy("b", created="2025-01-01T00:00:00Z"), policy("a", created="2026-01-01T00:00:00Z")],
            ["LocalRedirectPolicy/a: spec.frontend.addressMatcher.toPorts[0]: 10.0.0.1:80/TCP" + WINS.format("b")],
            id="same address: the older one",
        ),
        pytest.param(
            [policy("b", **SERVICE), policy("a", **SERVICE)],
            ["LocalRedirectPolicy/b: spec.frontend.serviceMatcher: Service n/s" + WINS.format("a")],
            id="same Service",
        ),
        pytest.param(
            [policy("a", number="5"), policy("b", ip="10.0.0.2", number="5")],
            ["LocalRedirectPolicy/b: metadata.annotations.balancing.elf.io/serviceId: serviceId 5" + WINS.format("a")],
            id="same serviceId",
        ),
        pytest.param(
            [policy("a"), policy("a", ip="10.0.0.2")],
            ["LocalRedirectPolicy/a: metadata.name: the same policy is there already in FILE: LocalRedirectPolicy/a"],
            id="the same policy twice",
        ),
        pytest.param([policy("a"), policy("b", port=81)], [], id="other port"),
        pytest.param([policy("a", enabled=False), policy("b")], [], id="a disabled one claims nothing"),
    ],
)
def test_p8_what_policies_contend_for(tmp_path: Path, objects: list[dict[str, Any]], expected: list[str]) -> None:
    assert lines(tmp_path, *objects) == expected


def test_p8_only_a_policy_in_force_keeps_others_out(tmp_path: Path) -> None:
    both = policy("b")
    both["spec"]["frontend"]["addressMatcher"]["toPorts"] = [{"port": 80, "name": "x"}, {"port": 81, "name": "y"}]
    both["spec"]["backend"]["toPorts"] = [{"port": 1, "name": "x"}, {"port": 1, "name": "y"}]
    (line,) = lines(tmp_path, policy("a"), both, policy("c", port=81))
    assert line.startswith("LocalRedirectPolicy/b: spec.frontend.addressMatcher.toPorts[0]")
