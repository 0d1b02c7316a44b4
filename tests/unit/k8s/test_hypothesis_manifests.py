"""Generated manifests: never a crash, and a spec exactly when there is no fault."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config.input.parsing import FileFault
from config.settings import RedirectSettings
from k8s.objects.identity import ALL_KINDS
from k8s.objects.manifests import read_manifest
from k8s.objects.metadata import ObjectError
from k8s.objects.model import Policy
from k8s.objects.pod import parse_node, parse_pod
from k8s.objects.policy import parse_policy
from k8s.objects.service import parse_service

REDIRECT = RedirectSettings()

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.datetimes()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            scalars.filter(lambda key: key == key),  # noqa: PLR0124  (not a NaN)
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def fields(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly right fields, each of which may be missing or anything."""
    return st.fixed_dictionaries({}, optional={name: value | anything for name, value in known.items()}) | anything


names = st.sampled_from(["a", "dns", "web-1", "A", "", "a" * 300])
ports = st.lists(
    fields(port=st.sampled_from([80, "80", 0, 65536, 53]), protocol=st.sampled_from(["TCP", "UDP", "tcp"]), name=names),
    max_size=3,
)
selectors = fields(
    matchLabels=st.dictionaries(names, names, max_size=2),
    matchExpressions=st.lists(
        fields(key=names, operator=st.sampled_from(["In", "Exists", "x"]), values=st.lists(names, max_size=2)),
        max_size=2,
    ),
)
metadata = fields(
    name=names,
    namespace=names,
    uid=names,
    creationTimestamp=st.datetimes() | st.just("2026-01-01T00:00:00Z"),
    annotations=fields(**{"balancing.elf.io/serviceId": st.sampled_from(["7", 7, "0"])}),
    labels=st.dictionaries(names, names),
)
addresses = st.sampled_from(["10.0.0.1", "fd00::1", "::ffff:1.2.3.4", "x", "fe80::1%e"]) | st.ip_addresses().map(str)
policies = fields(
    apiVersion=st.just("balancing.elf.io/v1beta1"),
    kind=st.sampled_from(["LocalRedirectPolicy", "BalancingPolicy"]),
    metadata=metadata,
    spec=fields(
        enabled=st.booleans(),
        frontend=fields(addressMatcher=fields(ip=addresses, toPorts=ports))
        | fields(serviceMatcher=fields(serviceName=names, namespace=names, toPorts=ports)),
        backend=fields(endpointSelector=selectors, toPorts=ports, namespace=names),
        config=fields(redirectQosLimit=st.integers(), nodeLabelSelector=selectors, sessionAffinity=names),
    ),
)
others = fields(
    apiVersion=st.just("v1"),
    kind=st.sampled_from(["Service", "Pod", "Node"]),
    metadata=metadata,
    spec=fields(clusterIPs=st.lists(addresses), ports=ports, nodeName=st.just("n"), hostNetwork=st.booleans()),
    status=fields(podIPs=st.lists(fields(ip=addresses)), conditions=st.lists(fields(type=st.just("Ready")))),
)


@settings(max_examples=200, deadline=None)
@given(policies)
def test_p9_a_policy_has_a_spec_exactly_when_it_has_no_fault(raw: object) -> None:
    policy = parse_policy(raw, REDIRECT)
    assert (policy.spec is None) == bool(policy.faults)
    assert 1 <= policy.policy_id < 2**32
    assert policy.key.name.isascii() and len(policy.key.name) <= 253
    assert all(fault.isprintable() for fault in (*policy.faults, *policy.unknown_fields))


@settings(max_examples=200, deadline=None)
@given(others)
def test_other_objects_are_parsed_or_refused(raw: object) -> None:
    for parse in (parse_service, parse_pod, parse_node):
        try:
            parse(raw)
        except ObjectError as error:
            assert str(error).isprintable()


def read(data: bytes, *, is_json: bool) -> None:
    try:
        manifest = read_manifest(data, is_json=is_json, kinds=ALL_KINDS, node_name="n", redirect=REDIRECT)
    except FileFault as fault:
        assert "\n" not in str(fault)
        return
    for found in manifest.objects.values():
        assert not isinstance(found, Policy) or (found.spec is None) == bool(found.faults)


@settings(max_examples=200, deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.text(alphabet="{}[]:,-&*!<>|'\"#%@\n a1\\~?=").map(str.encode))
def test_no_bytes_make_the_reader_crash(data: bytes) -> None:
    read(data, is_json=False)
    read(data, is_json=True)


@settings(max_examples=150, deadline=None)
@given(st.lists(policies | others, max_size=3))
def test_no_file_of_generated_objects_makes_the_reader_crash(objects: list[object]) -> None:
    read(yaml.safe_dump_all(objects).encode(), is_json=False)
    read(json.dumps({"kind": "List", "items": objects}, default=str, skipkeys=True).encode(), is_json=True)
