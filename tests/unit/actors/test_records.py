"""Which decisions become records, and by which names (`log.redirects`)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from actors.reporting.pod_names import PodNames
from actors.reporting.record_choice import RECORDS_PER_SECOND, RecordChoice
from bpf.maps.rows import Decision, PassReason
from config.domain.addresses import Endpoint, Frontend, Protocol
from config.domain.ids import NamespacedName
from k8s.objects.model import Pod

REDIRECT = Decision(
    time_ns=1,
    hook="connect4",
    frontend=Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP),
    target=Endpoint(ip_address("10.1.0.5"), 53),
    reason=None,
    policy_id=7,
    client_netns=1,
    cgroup_id=2,
    pid=3,
)
PASS = replace(REDIRECT, reason=PassReason.QOS)
WEB, DNS = NamespacedName("shop", "web"), NamespacedName("kube-system", "dns")


@pytest.mark.parametrize(
    ("redirects", "of_redirect", "of_pass"), [("all", True, True), ("passes", False, True)], ids=["all", "passes"]
)
def test_decisions_that_were_asked_for_become_records(redirects: str, of_redirect: bool, of_pass: bool) -> None:
    choice = RecordChoice(redirects)
    assert choice.takes(REDIRECT, 10.0) is of_redirect
    assert choice.takes(PASS, 10.0) is of_pass
    assert choice.take_lost(10.0) == 0


def test_what_exceeds_the_rate_is_counted_and_redirects_that_nobody_asked_for_do_not_use_it_up() -> None:
    choice = RecordChoice("passes")
    for _ in range(3 * RECORDS_PER_SECOND):
        choice.takes(REDIRECT, 10.0)
    taken = [choice.takes(PASS, 10.0) for _ in range(RECORDS_PER_SECOND + 5)]
    assert (taken.count(True), choice.take_lost(10.0)) == (RECORDS_PER_SECOND, 5)
    assert sum(choice.takes(PASS, 11.0) for _ in range(2 * RECORDS_PER_SECOND)) == RECORDS_PER_SECOND


def test_all_losses_are_reported_and_at_most_once_a_second() -> None:
    choice = RecordChoice("all")
    choice.add_lost(2)
    assert choice.take_lost(10.0) == 2
    choice.add_lost(3)
    assert choice.take_lost(10.5) == 0
    choice.add_lost(4)
    assert [choice.take_lost(11.0), choice.take_lost(13.0)] == [7, 0]


def test_pods_are_known_by_uid_and_by_config_hash_until_they_are_gone() -> None:
    pods = PodNames()
    pods.upserted(Pod(key=WEB, uid="u1", config_hash="h1"), 1)
    pods.upserted(Pod(key=DNS, uid="u2"), 1)
    assert pods.by_uid == {"u1": WEB, "h1": WEB, "u2": DNS}
    pods.upserted(Pod(key=WEB, uid="u3"), 1)
    assert pods.by_uid == {"u3": WEB, "u2": DNS}, "another Pod has the name now"
    pods.removed(WEB)
    pods.removed(WEB)
    assert pods.by_uid == {"u2": DNS}


def test_a_pod_that_a_later_listing_does_not_have_is_gone() -> None:
    pods = PodNames()
    pods.upserted(Pod(key=WEB, uid="u1"), 1)
    pods.upserted(Pod(key=DNS, uid="u2"), 1)
    pods.upserted(Pod(key=DNS, uid="u2"), 2)
    pods.synced(2)
    assert pods.by_uid == {"u2": DNS}
