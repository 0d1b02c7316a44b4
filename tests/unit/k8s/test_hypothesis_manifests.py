"""Generated manifests: never a crash, and a spec exactly when there is no fault."""

from __future__ import annotations

import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config.input.parsing import FileFault
from config.settings import RedirectSettings
from k8s.objects.manifests import read_manifest
from k8s.objects.metadata import ObjectError
from k8s.objects.model import Policy
from k8s.objects.node import parse_node
from k8s.objects.pod import parse_pod
from k8s.objects.policy import parse_policy
from k8s.objects.service import parse_service
from tests.unit.k8s.generated_manifests import others, policies
from tests.unit.objects import ALL_KINDS

REDIRECT = RedirectSettings()


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
