"""/metrics: names, labels and values as docs/metrics.md has them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pykka
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.framework.messages import ActorReport, ActorsReported, ActorState, Message
from actors.messages.checks import CheckCount, HealthChecksCounted
from actors.messages.facts import SourceName
from actors.messages.reports import (
    DesiredStateApplied,
    MetricsServed,
    PoliciesResolved,
    PolicyCondition,
    PolicyState,
    SourceHeard,
    WriteFault,
)
from actors.messages.resync import ResyncDesiredState
from actors.messages.verdicts import WriteEnded
from actors.reporting.closer_state import CloserState
from actors.reporting.kernel_reading import DatapathFault, KernelReading
from actors.reporting.metrics_exporter import MetricsExporter
from bpf.build import HOOKS
from bpf.maps.rows import Counters, PassReason
from config.domain.addresses import Frontend, Protocol
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import MetricsSettings
from config.version import VERSION
from k8s.api.trouble import Trouble, TroubleKind
from k8s.objects.model import PolicyStatus
from k8s.sources.source import NOTHING_TO_HEAR
from k8s.status.write_requests import EventWrite, StatusWrite, WriteAnswer, WriteResult
from tests.unit.peers import Peer, fence, free_port, http_get

Sample = tuple[str, frozenset[tuple[str, str]]]

ACTIVE = PolicyCondition(
    key=PolicyKey(PolicyKind.LOCAL_REDIRECT, "dns"),
    policy_id=7,
    state=PolicyState.ACTIVE,
    reason="Active",
    message="",
    usable_pods=2,
    unhealthy_pods=1,
)
READING = KernelReading(
    counters={7: Counters(redirects=40, passes={**dict.fromkeys(PassReason, 0), PassReason.QOS: 3}, affinity_hits=5)},
    entries={"frontends": 2},
    capacity={"frontends": 65536},
    attached=frozenset({"connect4"}),
    counted={7: "dns"},
)
CONTRACT = {
    "build_info": {"version", "build"},
    "redirects_total": {"policy"},
    "passes_total": {"policy", "reason"},
    "affinity_hits_total": {"policy"},
    "stale_sockets_closed_total": {"policy"},
    "backends": {"policy"},
    "unhealthy_backends": {"policy"},
    "health_checks_total": {"policy", "result"},
    "policy_state": {"policy", "state"},
    "policy_conflicts": set(),
    "map_entries": {"map"},
    "map_capacity": {"map"},
    "program_attached": {"hook"},
    "datapath_fault": {"fault"},
    "closer_state": {"state"},
    "apply_seconds_bucket": {"le"},
    "apply_seconds_count": set(),
    "apply_seconds_sum": set(),
    "source_last_event_seconds": {"source"},
    "source_relists_total": {"source", "reason"},
    "actor_mailbox_size": {"actor"},
    "actor_restarts_total": {"actor"},
    "collect_errors_total": set(),
}
"""Name of the sample without prefix -> its labels."""


class Exporting:
    """A MetricsExporter that serves HTTP, and its peers."""

    def __init__(self, read: Callable[[], KernelReading] | None = lambda: READING) -> None:
        self.resolver = Peer("ConflictResolver")
        settings = MetricsSettings(address="127.0.0.1", port=free_port())
        self._port = settings.port
        self.ref: pykka.ActorRef[Any] = MetricsExporter.start(metrics=settings, read=read, build="abc" if read else "")

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.ref.tell(message)

    def scrape(self) -> dict[Sample, float]:
        fence(self.ref)
        code, text = http_get(self._port, "/metrics")
        assert code == 200
        families = text_string_to_metric_families(text.decode())
        return {
            (sample.name.removeprefix("localredirect_"), frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def sample(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def test_at_its_start_it_asks_for_all_conditions() -> None:
    assert Exporting().resolver.next() == ResyncDesiredState()


def test_a_port_in_use_is_reported_until_it_is_free_and_is_no_failure() -> None:
    reporter, supervisor = Peer("StatusReporter"), Peer("Supervisor")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = MetricsSettings(address="127.0.0.1", port=taken.getsockname()[1])
        MetricsExporter.start(metrics=settings)
        fault = (
            f"metrics.address, metrics.port: cannot listen on 127.0.0.1 port {settings.port}: Address already in use"
        )
        assert reporter.next() == MetricsServed(fault=fault)
    while reporter.next() != MetricsServed(fault=""):
        pass
    assert supervisor.heard() == []


def test_names_and_labels_are_those_of_the_contract() -> None:
    exporting = Exporting()
    exporting.tell(
        PoliciesResolved(complete=True, conditions=(ACTIVE,)),
        DesiredStateApplied(faults=(), attached=True, apply_seconds=0.002),
        HealthChecksCounted(counts=(CheckCount(policy=ACTIVE.key, successes=1, failures=0),)),
        SourceHeard(source=SourceName.POLICIES, heard_at=5.0, relist_reason="start"),
        ActorsReported(actors=(ActorReport(name="MapWriter", state=ActorState.RUNNING, restarts=1, mailbox=4),)),
    )
    found: dict[str, set[str]] = {}
    for name, labels in exporting.scrape():
        found.setdefault(name, set()).update(label for label, _ in labels)
    assert found == CONTRACT


def test_a_policy_has_the_kernels_counters_and_every_reason_and_state() -> None:
    exporting = Exporting()
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE,), conflicts=2))
    scraped = exporting.scrape()
    assert scraped[sample("redirects_total", policy="dns")] == 40
    assert scraped[sample("affinity_hits_total", policy="dns")] == 5
    assert scraped[sample("backends", policy="dns")] == 2
    assert scraped[sample("unhealthy_backends", policy="dns")] == 1
    assert scraped[sample("policy_conflicts")] == 2
    for reason, passes in {"qos": 3, "from_backend": 0, "from_host": 0, "lease": 0}.items():
        assert scraped[sample("passes_total", policy="dns", reason=reason)] == passes
    states = {state: scraped[sample("policy_state", policy="dns", state=state.value)] for state in PolicyState}
    assert states == {state: float(state == PolicyState.ACTIVE) for state in PolicyState}


def test_the_kernel_side_is_reported_hook_by_hook_and_map_by_map() -> None:
    scraped = Exporting().scrape()
    assert {hook: scraped[sample("program_attached", hook=hook)] for hook in HOOKS} == {
        hook: float(hook == "connect4") for hook in HOOKS
    }
    assert scraped[sample("map_entries", map="frontends")] == 2
    assert scraped[sample("map_capacity", map="frontends")] == 65536


@pytest.mark.parametrize("present", DatapathFault)
def test_what_keeps_calls_from_being_redirected_is_reported_fault_by_fault(present: DatapathFault) -> None:
    scraped = Exporting(lambda: replace(READING, faults=frozenset({present}))).scrape()
    assert {fault: scraped[sample("datapath_fault", fault=fault.value)] for fault in DatapathFault} == {
        fault: float(fault is present) for fault in DatapathFault
    }


@pytest.mark.parametrize("present", CloserState)
def test_p20_the_state_of_the_closer_is_reported(present: CloserState) -> None:
    scraped = Exporting(lambda: replace(READING, closer=present)).scrape()
    assert {state: scraped[sample("closer_state", state=state.value)] for state in CloserState} == {
        state: float(state is present) for state in CloserState
    }


def test_a_policy_without_a_counters_row_counts_nothing() -> None:
    exporting = Exporting()
    exporting.tell(PoliciesResolved(complete=True, conditions=(replace(ACTIVE, policy_id=8),)))
    assert exporting.scrape()[sample("redirects_total", policy="dns")] == 0


@pytest.mark.parametrize("state", [PolicyState.CONFLICT, PolicyState.DISABLED, PolicyState.INVALID])
@pytest.mark.parametrize(
    ("policy_id", "redirects"),
    [
        pytest.param(7, 0, id="another policy has the id: its counters are not shown"),
        pytest.param(9, 11, id="the id is its own: its counters are shown"),
    ],
)
def test_a_policy_that_is_not_in_force_shows_counters_only_if_its_id_is_its_own(
    policy_id: int, redirects: int, state: PolicyState
) -> None:
    reading = replace(
        READING, counters={**READING.counters, 9: Counters(redirects=11)}, counted={7: "dns", 9: "younger"}
    )
    loser = replace(ACTIVE, key=replace(ACTIVE.key, name="younger"), state=state, policy_id=policy_id)
    exporting = Exporting(lambda: reading)
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE, loser)))
    scraped = exporting.scrape()
    assert scraped[sample("redirects_total", policy="younger")] == redirects
    assert scraped[sample("redirects_total", policy="dns")] == 40


def test_counters_are_shown_only_for_the_policy_that_they_belong_to() -> None:
    """A policy takes over an id. Until it has been written, the counters of that id are those of the former policy."""
    exporting = Exporting(lambda: replace(READING, counted={7: "former"}))
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE,)))
    assert exporting.scrape()[sample("redirects_total", policy="dns")] == 0


FRONTENDS = tuple(Frontend(ip_address("10.96.0.10"), port, Protocol.UDP) for port in (53, 54))
CLOSED = {FRONTENDS[0]: 3, FRONTENDS[1]: 2, Frontend(ip_address("10.96.0.11"), 53, Protocol.UDP): 9}


def test_p20_closed_sockets_are_counted_for_the_policy_of_their_frontend() -> None:
    exporting = Exporting(lambda: replace(READING, stale_closed=CLOSED))
    serving = replace(ACTIVE, frontends=FRONTENDS)
    exporting.tell(PoliciesResolved(complete=True, conditions=(serving,)))
    assert exporting.scrape()[sample("stale_sockets_closed_total", policy="dns")] == 5
    disabled = replace(ACTIVE, state=PolicyState.DISABLED, frontends=())
    exporting.tell(PoliciesResolved(complete=False, conditions=(disabled,)))
    assert exporting.scrape()[sample("stale_sockets_closed_total", policy="dns")] == 5


def test_a_removed_policy_leaves_no_series() -> None:
    exporting = Exporting()
    exporting.tell(
        PoliciesResolved(complete=True, conditions=(ACTIVE,)), PoliciesResolved(complete=False, removed=(ACTIVE.key,))
    )
    assert not [labels for _, labels in exporting.scrape() if ("policy", "dns") in labels]


def test_health_checks_are_added_up_and_those_of_a_policy_that_is_gone_are_forgotten() -> None:
    exporting = Exporting()
    ended = HealthChecksCounted(counts=(CheckCount(policy=ACTIVE.key, successes=3, failures=1),))
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE,)), ended, ended)
    scraped = exporting.scrape()
    assert scraped[sample("health_checks_total", policy="dns", result="success")] == 6
    assert scraped[sample("health_checks_total", policy="dns", result="failure")] == 2
    exporting.tell(PoliciesResolved(complete=False, removed=(ACTIVE.key,)), ended)
    assert not [name for name, _ in exporting.scrape() if name == "health_checks_total"]


def test_a_failed_write_is_shown_as_the_policys_state() -> None:
    exporting = Exporting()
    fault = WriteFault(key=ACTIVE.key, failed=True, message="full")
    exporting.tell(
        PoliciesResolved(complete=True, conditions=(ACTIVE,)),
        DesiredStateApplied(faults=(fault,), attached=True, apply_seconds=None),
    )
    scraped = exporting.scrape()
    assert scraped[sample("policy_state", policy="dns", state="Failed")] == 1
    assert scraped[sample("policy_state", policy="dns", state="Active")] == 0


def test_writes_that_no_event_caused_are_not_timed() -> None:
    exporting = Exporting()
    for seconds in (0.002, None):
        exporting.tell(DesiredStateApplied(faults=(), attached=True, apply_seconds=seconds))
    assert exporting.scrape()[sample("apply_seconds_count")] == 1


def test_a_kernel_that_cannot_be_read_is_counted_and_the_rest_is_served() -> None:
    def unreadable() -> KernelReading:
        raise OSError("pins are gone")

    exporting = Exporting(unreadable)
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE,)))
    first, second = exporting.scrape(), exporting.scrape()
    assert first[sample("collect_errors_total")] == 1
    assert second[sample("collect_errors_total")] == 2
    assert second[sample("policy_state", policy="dns", state="Active")] == 1
    assert sample("redirects_total", policy="dns") not in second


def test_listings_are_counted_by_their_reason() -> None:
    exporting = Exporting()
    for reason in ("start", "", "overflow"):
        exporting.tell(SourceHeard(source=SourceName.ENDPOINTS, heard_at=5.0, relist_reason=reason))
    scraped = exporting.scrape()
    for reason in ("start", "overflow"):
        assert scraped[sample("source_relists_total", source="endpoints", reason=reason)] == 1


LAST_EVENTS: dict[str, tuple[Callable[[], float | None], float | None]] = {
    "heard an hour ago": (lambda: time.monotonic() - 3600, 3600),
    "nothing to hear about": (lambda: NOTHING_TO_HEAR, 0),
    "never heard": (lambda: None, None),
}


@pytest.mark.parametrize("case", LAST_EVENTS)
def test_the_last_event_is_as_old_as_the_source_says_even_when_the_message_is_newer(case: str) -> None:
    heard_at, age = LAST_EVENTS[case]
    exporting, heard = Exporting(), heard_at()
    for trouble in (None, Trouble(TroubleKind.OUTAGE, 1.0, "refused")):
        exporting.tell(SourceHeard(source=SourceName.ENDPOINTS, heard_at=heard, trouble=trouble))
    found = exporting.scrape().get(sample("source_last_event_seconds", source="endpoints"))
    assert found == (age if age is None else pytest.approx(time.time() - age, abs=60))


def test_mailboxes_and_restarts_of_actors_are_reported() -> None:
    exporting = Exporting()
    exporting.tell(
        ActorsReported(actors=(ActorReport(name="MapWriter", state=ActorState.RUNNING, restarts=3, mailbox=4),))
    )
    scraped = exporting.scrape()
    assert scraped[sample("actor_mailbox_size", actor="MapWriter")] == 4
    assert scraped[sample("actor_restarts_total", actor="MapWriter")] == 3


@pytest.mark.parametrize(("read", "build"), [(lambda: READING, "abc"), (None, "")], ids=["agent", "controller"])
def test_the_release_and_the_build_of_the_programs_are_labels(
    read: Callable[[], KernelReading] | None, build: str
) -> None:
    assert Exporting(read).scrape()[sample("build_info", version=VERSION, build=build)] == 1


def test_a_controller_counts_its_writes_and_has_no_kernel_side() -> None:
    exporting = Exporting(read=None)
    key = ACTIVE.key
    status = StatusWrite(key=key, uid="", status=PolicyStatus(), former_reason="", decided_at="")
    event = EventWrite(key=key, uid="", reason="Accepted", message="", happened_at="")
    for write, result in ((status, "written"), (status, "written"), (status, "refused"), (event, "unavailable")):
        exporting.tell(WriteEnded(write=write, answer=WriteAnswer(result=WriteResult(result))))
    exporting.tell(PoliciesResolved(complete=True, conditions=(ACTIVE,)))
    found = exporting.scrape()
    assert found[sample("api_writes_total", what="status", result="written")] == 2
    assert found[sample("api_writes_total", what="status", result="refused")] == 1
    assert found[sample("api_writes_total", what="event", result="unavailable")] == 1
    assert found[sample("policy_state", policy="dns", state="Active")] == 1
    assert not {name for name, _ in found} & {"redirects_total", "map_entries", "program_attached"}
    assert found[sample("collect_errors_total")] == 0


def test_an_agent_has_no_metric_of_writes() -> None:
    assert "api_writes_total" not in {name for name, _ in Exporting().scrape()}
