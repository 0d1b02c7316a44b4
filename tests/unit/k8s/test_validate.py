"""`validate`: one clear line for each fault, across files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import RedirectSettings
from k8s.commands.validate import validate

EXAMPLES = Path(__file__).parents[3] / "k8s" / "examples"


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
        "LocalRedirectPolicy/p: spec.enabled: 1 is wrong; it must be true or false (without quotes)",
        (
            "LocalRedirectPolicy/p: spec.frontend.addressMatcher.ip: '10.0.0' is not an IP address; "
            "it must be the IPv4 or IPv6 address of one host, in quotes"
        ),
        (
            "LocalRedirectPolicy/p: spec.enable: is unknown (did you mean enabled?); "
            "it must be one of enabled, frontend, backend, config"
        ),
    ]


CILIUM = {"apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy", "metadata": {"name": "c"}}
OTHERS = ({"apiVersion": "v1", "kind": "Service", "metadata": 3}, {"kind": "Deployment"}, CILIUM)


def test_objects_of_other_kinds_are_not_checked(tmp_path: Path) -> None:
    assert lines(tmp_path, policy("p"), *OTHERS) == []


def test_files_without_any_policy_are_a_fault(tmp_path: Path) -> None:
    assert lines(tmp_path, *OTHERS) == ["there is no LocalRedirectPolicy; objects of other kinds are not checked"]


@pytest.mark.parametrize(
    "text", ["", "\n", "# a comment\n", "---\n# one\n---\n...\n", "{kind: List, items: []}", "null"]
)
def test_an_empty_file_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.yaml").write_text(text)
    (tmp_path / "good.json").write_text(json.dumps(policy("p")))
    (line,) = validate([tmp_path / "empty.yaml", tmp_path / "good.json"], RedirectSettings())
    assert line == f"{tmp_path}/empty.yaml: is empty; it must hold at least one LocalRedirectPolicy"


KINDS = "it must be BalancingPolicy or LocalRedirectPolicy"
VERSION = "it must be balancing.elf.io/v1beta1"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "LocalRedirectPolcy"}, "kind: is not a kind of balancing.elf.io (did you mean LocalR"),
        (
            {"kind": "localredirectpolicy"},
            "kind: is not a kind of balancing.elf.io (did you mean LocalR",
        ),
        (
            {"kind": "LocalRedirectPolicies"},
            "kind: is not a kind of balancing.elf.io (did you mean LocalR",
        ),
        ({"kind": "Redirect"}, f"kind: is not a kind of balancing.elf.io; {KINDS}"),
        ({"kind": "Service"}, f"kind: is not a kind of balancing.elf.io; {KINDS}"),
        ({"apiVersion": "v1"}, f"apiVersion: 'v1' is wrong; {VERSION}"),
        ({"apiVersion": "balancing.elf.io/v1"}, f"apiVersion: 'balancing.elf.io/v1' is wrong; {VERSION}"),
        ({"apiVersion": "balancing.elf.io"}, f"apiVersion: 'balancing.elf.io' is wrong; {VERSION}"),
        ({"apiVersion": None}, f"apiVersion: is missing; {VERSION}"),
        ({"apiVersion": 1}, f"apiVersion: 1 is wrong; {VERSION}"),
        ({"apiVersion": "v1", "kind": "LocalRedirectPolcy"}, f"apiVersion: 'v1' is wrong; {VERSION}"),
        ({"apiVersion": None, "kind": "LocalRedirectPolcy"}, f"apiVersion: null is wrong; {VERSION}"),
        (
            {"apiVersion": "balancing.elf.oi/v1beta1", "kind": "Redirect"},
            "apiVersion: 'balancing.elf.oi/v1beta1' is wrong",
        ),
        (
            {"apiVersion": "Balancing.Elf.io/v1beta1", "kind": "Redirect"},
            "apiVersion: 'Balancing.Elf.io/v1beta1' is wrong",
        ),
    ],
)
def test_an_object_that_was_probably_meant_to_be_a_policy_is_a_fault(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    raw = {**policy("p"), **changes}
    (line,) = lines(tmp_path, raw, policy("q", ip="10.0.0.2"))
    assert line.startswith(f"{raw['kind']}/p: {says}"), line


@pytest.mark.parametrize("key", ["Kind", "KIND", "kinds"])
def test_a_document_whose_kind_is_misspelt_is_a_fault(tmp_path: Path, key: str) -> None:
    raw = policy("p")
    raw[key] = raw.pop("kind")
    (line,) = lines(tmp_path, raw, policy("q"))
    assert "kind: is missing; it must name the kind of the object" in line


METADATA: dict[str, tuple[dict[str, Any], str]] = {
    "a label is a number": ({"labels": {"a": 1}}, "metadata.labels.a: 1 is wrong; it must be a string"),
    "a label is a boolean": ({"labels": {"a": True}}, "metadata.labels.a: true is wrong; it must be a string"),
    "a label is null": ({"labels": {"a": None}}, ""),
    "a label with a space": ({"labels": {"a": "b c"}}, "metadata.labels.a: 'b c' is wrong; it must be a label value"),
    "a label's key": ({"labels": {"a b": "c"}}, "metadata.labels: key 'a b' is wrong; it must be a label key"),
    "labels are a list": ({"labels": ["a"]}, "metadata.labels: a list is wrong; it must be a mapping"),
    "an annotation is a number": (
        {"annotations": {"a": 1.5}},
        "metadata.annotations.a: 1.5 is wrong; it must be a string",
    ),
    "an annotation is a mapping": ({"annotations": {"a": {"b": 1}}}, "metadata.annotations.a: a mapping is wrong"),
    "the annotation is a number": (
        {"annotations": {"balancing.elf.io/serviceId": 7}},
        "metadata.annotations.balancing.elf.io/serviceId: 7 is wrong; it must be a string (in quotes)",
    ),
    "an annotation's key": ({"annotations": {"a/b/c": "d"}}, "metadata.annotations: key 'a/b/c' is wrong"),
    "an annotation's key in capitals": ({"annotations": {"A/b": "c"}}, ""),
    "annotations too large": (
        {"annotations": {"a": "x" * 262144}},
        "metadata.annotations: 262145 bytes are too many; they must be at most 262144",
    ),
    "annotations as large as may be": ({"annotations": {"a": "x" * 262143}}, ""),
    "the name is a number": ({"name": 7}, "metadata.name: 7 is wrong"),
    "the uid is a number": ({"uid": 7}, "metadata.uid: 7 is wrong; it must be a string"),
    "a generation in quotes": ({"generation": "1"}, "metadata.generation: '1' is wrong; it must be a whole number"),
    "a date without a time": ({"creationTimestamp": "2026-01-31"}, "metadata.creationTimestamp: '2026-01-31' is wrong"),
    "finalizers are a word": ({"finalizers": "a"}, "metadata.finalizers: 'a' is wrong; it must be a list"),
    "a finalizer is a number": ({"finalizers": [1]}, "metadata.finalizers[0]: 1 is wrong"),
    "an owner without a uid": (
        {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]},
        "metadata.ownerReferences[0].uid: is missing",
    ),
    "an unknown field": (
        {"label": {}},
        "metadata.label: is unknown (did you mean labels?); it must be one of name, generateName, namespace",
    ),
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_that_the_api_server_refuses_is_a_fault(tmp_path: Path, case: str) -> None:
    changes, says = METADATA[case]
    raw = policy("p")
    raw["metadata"] = {"name": "p", **changes}
    found = lines(tmp_path, raw)
    assert len(found) == bool(says) and all(says in line for line in found), found


SIZES: dict[str, tuple[str, Any, str]] = {
    "ports": (
        "frontend",
        {"serviceMatcher": {"serviceName": "s", "namespace": "n", "toPorts": [{"port": 1}] * 129}},
        "spec.frontend.serviceMatcher.toPorts: 129 entries are too many; they must be at most 128",
    ),
    "labels": (
        "backend",
        {"endpointSelector": {"matchLabels": {f"k{n}": "v" for n in range(65)}}, "toPorts": [{"port": 1}]},
        "spec.backend.endpointSelector.matchLabels: 65 entries are too many; they must be at most 64",
    ),
    "values": (
        "config",
        {"nodeLabelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["v"] * 65}]}},
        "spec.config.nodeLabelSelector.matchExpressions[0].values: 65 entries are too many; they must be at most 64",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_what_is_too_large_for_the_api_server_is_a_fault(tmp_path: Path, case: str) -> None:
    field, value, says = SIZES[case]
    assert f"LocalRedirectPolicy/p: {says}" in lines(tmp_path, policy("p", **{field: value}))


def test_a_faulty_field_is_named_once_though_two_rules_refuse_it(tmp_path: Path) -> None:
    raw = policy("p")
    raw["metadata"] = {"name": 7, "annotations": [1]}
    paths = [line.split(": ")[1] for line in lines(tmp_path, raw)]
    assert paths == ["metadata.name", "metadata.annotations"]


WORDS = {
    "a label": ('"annotations": {}', '"labels": {"a": WORD}'),
    "a selector's value": ('{"a": "b"}', '{"a": WORD}'),
    "the name": ('"name": "p"', '"name": WORD'),
}


@pytest.mark.parametrize("word", ["y", "N", "1e3", "089", "0x1F"])
@pytest.mark.parametrize("field", WORDS)
def test_a_word_that_kubectl_does_not_read_as_a_string_is_a_fault_without_quotes(
    tmp_path: Path, field: str, word: str
) -> None:
    file = tmp_path / "f.yaml"
    text = json.dumps(policy("p")).replace(*WORDS[field])
    file.write_text(text.replace("WORD", word))
    assert len(validate([file], RedirectSettings())) == 1
    file.write_text(text.replace("WORD", '"w"'))
    assert validate([file], RedirectSettings()) == []


def test_missing_and_unparsable_files_are_faults(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    missing, bad, directory = validate([tmp_path / "no.yaml", tmp_path / "bad.yaml", tmp_path], RedirectSettings())
    assert missing == f"{tmp_path}/no.yaml: No such file or directory"
    assert bad.startswith(f"{tmp_path}/bad.yaml: line ")
    assert directory == f"{tmp_path}: is not a regular file"


def test_a_policy_without_a_name_is_a_fault(tmp_path: Path) -> None:
    raw = policy("p")
    del raw["metadata"]["name"]
    (line,) = lines(tmp_path, raw)
    assert line.startswith("LocalRedirectPolicy/(no name): metadata.name: is missing")


WINS = " is also claimed by FILE: LocalRedirectPolicy/{}, which wins (the older one, or the first by name)"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param(
            [policy("b"), policy("a")],
            [
                "LocalRedirectPolicy/b: spec.frontend.addressMatcher.toPorts[0]: frontend 10.0.0.1:80/TCP"
                + WINS.format("a")
            ],
            id="same address: the name decides",
        ),
        pytest.param(
            [policy("b", created="2025-01-01T00:00:00Z"), policy("a", created="2026-01-01T00:00:00Z")],
            [
                "LocalRedirectPolicy/a: spec.frontend.addressMatcher.toPorts[0]: frontend 10.0.0.1:80/TCP"
                + WINS.format("b")
            ],
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
            ["LocalRedirectPolicy/a: metadata.name: the same policy already appears in FILE: LocalRedirectPolicy/a"],
            id="the same policy twice",
        ),
        pytest.param([policy("a"), policy("b", port=81)], [], id="other port"),
        pytest.param([policy("a", enabled=False), policy("b")], [], id="a disabled one claims nothing"),
    ],
)
def test_p8_claims_that_policies_share_are_faults(
    tmp_path: Path, objects: list[dict[str, Any]], expected: list[str]
) -> None:
    assert lines(tmp_path, *objects) == expected


def test_p8_only_a_policy_in_force_keeps_others_out(tmp_path: Path) -> None:
    both = policy("b")
    both["spec"]["frontend"]["addressMatcher"]["toPorts"] = [{"port": 80, "name": "x"}, {"port": 81, "name": "y"}]
    both["spec"]["backend"]["toPorts"] = [{"port": 1, "name": "x"}, {"port": 1, "name": "y"}]
    (line,) = lines(tmp_path, policy("a"), both, policy("c", port=81))
    assert line.startswith("LocalRedirectPolicy/b: spec.frontend.addressMatcher.toPorts[0]")
