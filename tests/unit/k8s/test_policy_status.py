"""What the controller writes, as JSON and read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.domain.ids import PolicyKey, PolicyKind
from config.settings import RedirectSettings
from k8s.objects.model import Policy, PolicyStatus
from k8s.objects.policy_status import parse_status
from k8s.sources.resources import policies, reducer
from k8s.status.write_bodies import event_document, shortened, status_document
from k8s.status.write_requests import EventWrite

STATUS = PolicyStatus(
    accepted="False",
    reason="Conflict",
    message="Service a/b is held by LocalRedirectPolicy c, which is older",
    observed_generation=3,
    transitioned_at="2026-01-31T12:00:00Z",
    frontend="a/b",
    frontends=("10.96.0.10:53/UDP", "[fd00::a]:53/UDP"),
    nodes_ready=0,
    nodes_selected=5,
    nodes="0/5",
    version=12,
)
EVENT = EventWrite(
    key=PolicyKey(PolicyKind.LOCAL_REDIRECT, "dns"),
    uid="u-1",
    reason="Conflict",
    message="lost",
    happened_at="2026-01-31T12:00:00Z",
)


def test_what_is_written_is_read_back() -> None:
    raw = {"metadata": {"resourceVersion": "12"}, "status": status_document(STATUS)}
    read = parse_status(raw)
    assert read == STATUS
    assert read.version == STATUS.version


@pytest.mark.parametrize(
    "raw",
    [
        None,
        7,
        {},
        {"status": None},
        {"status": "x"},
        {"status": {"conditions": "x", "frontends": 3, "nodesReady": "1", "nodes": 4, "frontend": []}},
        {"status": {"conditions": [None, 3, {"type": "Ready", "status": "True"}]}},
        {"status": {"conditions": [{"type": "Accepted", "status": True, "reason": 1, "observedGeneration": "x"}]}},
    ],
    ids=str,
)
def test_a_status_that_we_did_not_write_reads_as_an_empty_one(raw: object) -> None:
    assert parse_status(raw) == PolicyStatus()


@pytest.mark.parametrize(("version", "read"), [("7", 7), (7, 0), ("", 0), ("x1", 0), (None, 0), ("٣", 0)], ids=repr)
def test_a_version_that_is_not_a_number_is_unknown(version: object, read: int) -> None:
    assert parse_status({"metadata": {"resourceVersion": version}}).version == read


def test_a_status_is_equal_under_another_version() -> None:
    assert replace(STATUS, version=13) == STATUS


def test_status_is_read_only_where_it_is_asked_for() -> None:
    raw: dict[str, Any] = {
        "metadata": {"name": "dns", "uid": "u-1", "generation": 4},
        "status": status_document(STATUS),
    }
    with_status, without = (
        reducer(policies(PolicyKind.LOCAL_REDIRECT, with_status=asked), RedirectSettings())(raw)
        for asked in (True, False)
    )
    assert isinstance(with_status, Policy) and isinstance(without, Policy)
    assert with_status.status == STATUS
    assert without.status is None
    assert (without.uid, without.generation) == ("u-1", 4)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("Accepted", "Normal"), ("Disabled", "Normal"), ("Conflict", "Warning"), ("Invalid", "Warning")],
)
def test_an_event_names_the_policy_and_is_a_warning_when_something_is_wrong(reason: str, kind: str) -> None:
    document = event_document(replace(EVENT, reason=reason), suffix="1f", instance="host-1")
    assert document["involvedObject"] == {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "name": "dns",
        "uid": "u-1",
    }
    assert (document["type"], document["reason"], document["message"]) == (kind, reason, "lost")
    assert document["metadata"] == {"name": "dns.1f", "namespace": "default"}
    assert document["source"] == {"component": "balancing-controller"}
    assert (document["firstTimestamp"], document["lastTimestamp"], document["count"]) == (
        EVENT.happened_at,
        EVENT.happened_at,
        1,
    )


def test_an_events_name_and_message_are_not_longer_than_the_api_server_takes() -> None:
    long = replace(EVENT, key=replace(EVENT.key, name="a" * 199 + "." + "b" * 53), message="m" * 2000)
    document = event_document(long, suffix="f" * 16, instance="i" * 300)
    assert document["metadata"]["name"] == "a" * 199 + "." + "f" * 16
    assert len(document["message"]) == 1024
    assert len(document["reportingInstance"]) == 128


def test_only_what_is_too_long_is_cut() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdef", 5) == "ab..."
