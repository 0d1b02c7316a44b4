"""What an operator sees: /status, /readyz, /healthz, and the log lines about policies."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pykka
import pytest

from actors.framework.messages import ActorReport, ActorsReported, ActorState, Message
from actors.framework.rates import TokenBucket
from actors.messages.facts import SourceName, SourceSynced
from actors.messages.reports import (
    DesiredStateApplied,
    MetricsServed,
    PoliciesResolved,
    PolicyCondition,
    PolicyState,
    QosWindowElapsed,
    SourceHeard,
    WriteFault,
)
from actors.messages.resync import ResyncDesiredState
from actors.reporting import change_log
from actors.reporting.agent_state import AgentState
from actors.reporting.closer_state import CloserReport, CloserState
from actors.reporting.readiness import unhealthy_reasons
from actors.reporting.status_endpoint import DatapathView
from actors.reporting.status_reporter import StatusReporter
from config.domain.addresses import Endpoint, Frontend, Protocol
from config.domain.ids import PolicyKey, PolicyKind
from config.settings import HealthSettings
from config.version import VERSION
from k8s.api.trouble import Trouble, TroubleKind
from tests.unit.peers import WAIT_SECONDS, Peer, fence, free_port, http_get

KEY = PolicyKey(PolicyKind.LOCAL_REDIRECT, "dns")
ACTIVE = PolicyCondition(
    key=KEY,
    policy_id=7,
    state=PolicyState.ACTIVE,
    reason="Active",
    message="1 backend",
    frontends=(Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP), Frontend(ip_address("fd00::a"), 53, Protocol.UDP)),
    named_frontends=(Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP),),
    backends=(Endpoint(ip_address("10.0.0.5"), 53), Endpoint(ip_address("fd00::5"), 53)),
    usable_pods=1,
)
RESOLVED = PoliciesResolved(complete=True, conditions=(ACTIVE,))
ATTACHED = DesiredStateApplied(faults=(), attached=True, apply_seconds=0.001)


def datapath_view(**changes: Any) -> DatapathView:
    parts = {
        "build": "abc",
        "cgroup": "/sys/fs/cgroup",
        "hooks": lambda: ["connect4"],
        "lease_age_seconds": lambda: 0.5,
        "before_us": dict,
        "closer": lambda: CloserReport(CloserState.RUNNING, ""),
        "warnings": list,
    }
    return DatapathView(**{**parts, **changes})


class Reporting:
    """A StatusReporter that serves HTTP, and its peers."""

    def __init__(self, source: str = "directory", **view: Any) -> None:
        self.resolver = Peer("ConflictResolver")
        self.port = free_port()
        self.ref: pykka.ActorRef[Any] = StatusReporter.start(
            node="node-a",
            source=source,
            health=HealthSettings(port=self.port),
            datapath=datapath_view(**view),
        )

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.ref.tell(message)
        fence(self.ref)

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        fence(self.ref)
        code, body = http_get(self.port, path, method)
        return code, body.decode()


def test_at_its_start_it_asks_for_all_conditions() -> None:
    assert Reporting().resolver.next() == ResyncDesiredState()


def stream(source: SourceName) -> dict[str, object]:
    return {"name": source.value, "state": "starting", "silent_seconds": None, "trouble_seconds": 0.0, "message": ""}


def test_status_has_the_documented_shape() -> None:
    reporting = Reporting()
    actor = ActorReport(name="MapWriter", state=ActorState.RUNNING, restarts=2, mailbox=3)
    reporting.tell(RESOLVED, ATTACHED, ActorsReported(actors=(actor,)))
    code, body = reporting.get("/status")
    assert code == 200
    assert json.loads(body) == {
        "node": "node-a",
        "version": VERSION,
        "build": "abc",
        "source": {"kind": "directory", "synced": True, "streams": [stream(source) for source in SourceName]},
        "datapath": {
            "cgroup": "/sys/fs/cgroup",
            "hooks": ["connect4"],
            "lease_age_seconds": 0.5,
            "lease_withheld": "",
            "programs_before_us": {},
            "warnings": [],
        },
        "closer": {"state": "running", "message": ""},
        "actors": [{"name": "MapWriter", "state": "running", "restarts": 2, "mailbox": 3}],
        "policies": [
            {
                "name": "dns",
                "service_id": 7,
                "state": "Active",
                "reason": "Active",
                "message": "1 backend",
                "mode": "Redirect",
                "percentage": 100,
                "frontends": ["10.96.0.10:53", "[fd00::a]:53"],
                "named_frontends": ["10.96.0.10:53/UDP"],
                "backends": ["10.0.0.5:53", "[fd00::5]:53"],
            }
        ],
    }


def test_readyz_names_what_is_missing_until_nothing_is_missing() -> None:
    reporting = Reporting()
    code, body = reporting.get("/readyz")
    assert code == 503
    assert body.splitlines() == [
        *(f"source {source} is not synced" for source in ("policies", "services", "endpoints")),
        "policies are not resolved yet",
        "not all programs are attached",
    ]
    reporting.tell(*(SourceSynced(source=source, listing=1) for source in SourceName), RESOLVED)
    assert reporting.get("/readyz") == (503, "not all programs are attached\n")
    reporting.tell(ATTACHED)
    assert reporting.get("/readyz") == (200, "ok\n")
    reporting.tell(replace(ATTACHED, attached=False))
    assert reporting.get("/readyz")[0] == 503


def test_a_restarted_reporter_is_ready_as_soon_as_it_has_the_complete_state() -> None:
    reporting = Reporting()
    reporting.tell(RESOLVED, ATTACHED)
    assert reporting.get("/readyz") == (200, "ok\n")


def heard(
    kind: TroubleKind | None = None, *, silent: float | None = 0.0, lasts: float = 0.0, message: str = "why"
) -> SourceHeard:
    """What the source of Pods reports now."""
    now = time.monotonic()
    return SourceHeard(
        source=SourceName.ENDPOINTS,
        heard_at=None if silent is None else now - silent,
        trouble=Trouble(kind, now - lasts, message) if kind else None,
    )


CONTACTS: dict[str, tuple[Callable[[], SourceHeard], str]] = {
    "in contact": (heard, ""),
    "silent for less than a watch may be": (lambda: heard(silent=155), ""),
    "silent for too long": (lambda: heard(silent=400), "heard nothing for "),
    "refused for a moment": (lambda: heard(TroubleKind.REFUSED, silent=400, lasts=50), ""),
    "refused for a minute": (lambda: heard(TroubleKind.REFUSED, silent=10, lasts=65), "has been refused for "),
    "an outage": (lambda: heard(TroubleKind.OUTAGE, silent=250, lasts=240), ""),
    "an outage that lasts": (lambda: heard(TroubleKind.OUTAGE, silent=310, lasts=10), "heard nothing for "),
    "no CRD": (lambda: heard(TroubleKind.ABSENT), "has had no objects"),
}


@pytest.mark.parametrize("case", CONTACTS)
def test_a_source_without_contact_is_shown_after_a_time_that_depends_on_the_reason(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """/readyz fails, and the log has one error."""
    make, shown = CONTACTS[case]
    message = make()
    reporting = Reporting(source="kubernetes")
    reporting.tell(RESOLVED, ATTACHED, message, *[ActorsReported(actors=())] * 2)
    code, body = reporting.get("/readyz")
    stream = json.loads(reporting.get("/status")[1])["source"]["streams"][2]
    logged = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert (code, len(logged)) == ((503, 1) if shown else (200, 0))
    assert shown in body and all(shown in line for line in logged)
    assert stream["message"] == (message.trouble.message if message.trouble else "")
    reporting.tell(heard(), ActorsReported(actors=()))
    assert reporting.get("/readyz") == (200, "ok\n")


def test_a_directory_in_which_nothing_changes_is_ready() -> None:
    reporting = Reporting()
    reporting.tell(RESOLVED, ATTACHED, heard(silent=1e6))
    assert reporting.get("/readyz") == (200, "ok\n")


@pytest.mark.parametrize("kind", TroubleKind)
def test_the_trouble_of_a_source_that_was_never_listed_is_shown_at_once(kind: TroubleKind) -> None:
    reporting = Reporting(source="kubernetes")
    reporting.tell(heard(kind, silent=None, message="nobody answers"))
    code, body = reporting.get("/readyz")
    assert code == 503
    assert "nobody answers" in body


def test_a_withheld_lease_is_shown_together_with_the_source_that_it_waits_for() -> None:
    reporting = Reporting(source="kubernetes")
    withheld = replace(ATTACHED, lease_withheld="the lease ran out")
    reporting.tell(RESOLVED, withheld, heard(TroubleKind.OUTAGE, silent=40, lasts=2, message="nobody answers"))
    code, body = reporting.get("/readyz")
    assert code == 503
    first, second = body.splitlines()
    assert first == "the lease ran out"
    assert second.startswith("source endpoints has heard nothing for") and "nobody answers" in second
    assert json.loads(reporting.get("/status")[1])["datapath"]["lease_withheld"] == "the lease ran out"
    reporting.tell(ATTACHED)
    assert reporting.get("/readyz") == (200, "ok\n")


class Election:
    holder = "host_1"

    def __init__(self) -> None:
        self.leading = True

    def leads(self) -> bool:
        return self.leading


def controller(election: Election) -> Reporting:
    reporting = Reporting()
    reporting.ref.stop(timeout=WAIT_SECONDS)
    reporting.ref = StatusReporter.start(
        node="host", source="kubernetes", health=HealthSettings(port=reporting.port), datapath=None, leader=election
    )
    return reporting


def test_a_leading_controller_is_ready_when_policies_are_resolved_and_needs_no_programs() -> None:
    reporting = controller(Election())
    code, body = reporting.get("/readyz")
    assert code == 503 and "source pods" not in body and "attached" not in body
    reporting.tell(RESOLVED)
    assert reporting.get("/readyz") == (200, "ok\n")


def test_a_standby_controller_is_ready_and_healthy() -> None:
    election = Election()
    election.leading = False
    reporting = controller(election)
    assert reporting.get("/readyz") == (200, "ok\n")
    assert reporting.get("/healthz") == (200, "ok\n")
    election.leading = True
    assert reporting.get("/readyz")[0] == 503


def test_a_controllers_status_says_who_leads_and_has_no_datapath() -> None:
    reporting = controller(Election())
    reporting.tell(RESOLVED)
    document = json.loads(reporting.get("/status")[1])
    assert document["leader"] == {"leads": True, "holder": "host_1"}
    assert document.keys() == {"node", "version", "source", "leader", "actors", "policies"}
    assert [each["name"] for each in document["policies"]] == ["dns"]


def test_healthz_fails_when_an_actor_is_stuck() -> None:
    reporting = Reporting()
    actor = ActorReport(name="MapWriter", state=ActorState.RUNNING, restarts=0, mailbox=0)
    reporting.tell(ActorsReported(actors=(actor,)))
    assert reporting.get("/healthz") == (200, "ok\n")
    reporting.tell(ActorsReported(actors=(replace(actor, state=ActorState.STUCK),)))
    assert reporting.get("/healthz") == (503, "MapWriter is stuck\n")


@pytest.mark.parametrize(("silence", "reasons"), [(9.9, []), (11.0, ["the supervisor has been silent for 11 s"])])
def test_healthz_fails_when_the_supervisor_is_silent_for_ten_seconds(silence: float, reasons: list[str]) -> None:
    assert unhealthy_reasons((), silence) == reasons


@pytest.mark.parametrize(
    ("method", "path", "code", "body"),
    [
        ("GET", "/nope", 404, "not found\n"),
        ("GET", "/status/../../etc/passwd", 404, "not found\n"),
        ("GET", "/healthz?verbose=1", 200, "ok\n"),
        ("HEAD", "/healthz", 200, ""),
        ("HEAD", "/nope", 404, ""),
    ],
)
def test_each_path_and_method_has_its_answer(method: str, path: str, code: int, body: str) -> None:
    assert Reporting().get(path, method) == (code, body)


def test_methods_that_would_change_something_are_refused() -> None:
    assert Reporting().get("/status", "POST")[0] == 501


def test_a_status_that_cannot_be_read_is_a_500_and_other_paths_still_work(caplog: pytest.LogCaptureFixture) -> None:
    def unreadable() -> list[str]:
        raise OSError("pins are gone")

    reporting = Reporting(hooks=unreadable)
    assert reporting.get("/status") == (500, "see the agent's log\n")
    assert "cannot answer /status" in caplog.messages
    assert reporting.get("/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    "sent", [b"", b"\x16\x03\x01\x00garbage\r\n\r\n", b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"]
)
def test_a_hostile_client_leaves_the_server_working(sent: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    reporting = Reporting()
    fence(reporting.ref)
    with socket.create_connection(("127.0.0.1", reporting.port), timeout=WAIT_SECONDS) as client:
        client.sendall(sent)
    assert reporting.get("/healthz") == (200, "ok\n")
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_in_use_is_logged_with_its_keys_and_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Redirects keep working. With a kubelet, its probes fail, and it decides what to do."""
    supervisor = Peer("Supervisor")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ref = StatusReporter.start(node="", source="", health=HealthSettings(port=port), datapath=datapath_view())
        fence(ref)
    assert f"health.address, health.port: cannot listen on 127.0.0.1 port {port}: Address already in use" in caplog.text
    assert supervisor.heard() == []


def test_status_says_why_metrics_are_not_served() -> None:
    reporting = Reporting()
    reporting.tell(MetricsServed(fault="the port is in use"))
    assert json.loads(reporting.get("/status")[1])["metrics"] == {"fault": "the port is in use"}
    reporting.tell(MetricsServed(fault=""))
    assert "metrics" not in json.loads(reporting.get("/status")[1])


def test_the_port_is_free_for_a_successor_as_soon_as_the_reporter_has_stopped() -> None:
    reporting = Reporting()
    reporting.get("/healthz")
    reporting.ref.stop(timeout=WAIT_SECONDS)
    socket.create_server(("127.0.0.1", reporting.port)).close()


# --- conditions: what was decided, merged with the faults of writing it -----------------------------------------------


def _state(*messages: PoliciesResolved, faults: tuple[WriteFault, ...] = ()) -> AgentState:
    state = AgentState()
    for message in messages:
        state.resolve(message)
    state.apply(replace(ATTACHED, faults=faults))
    return state


def test_a_policy_that_could_not_be_written_is_failed_and_has_no_backends() -> None:
    fault = WriteFault(key=KEY, failed=True, message="map frontends is full (65536 rows)")
    (condition,) = _state(RESOLVED, faults=(fault,)).conditions().values()
    assert (condition.state, condition.reason) == (PolicyState.FAILED, "WriteFailed")
    assert (condition.message, condition.backends) == (fault.message, ())


def test_a_warning_is_added_to_the_message() -> None:
    fault = WriteFault(key=KEY, failed=False, message="no cgroup of Pod kube-system/dns-1")
    (condition,) = _state(RESOLVED, faults=(fault,)).conditions().values()
    assert condition == replace(ACTIVE, message="1 backend; no cgroup of Pod kube-system/dns-1")


def test_faults_of_policies_that_are_unknown_or_of_another_kind_are_not_shown() -> None:
    fault = WriteFault(key=PolicyKey(PolicyKind.BALANCING, "dns"), failed=True, message="full")
    assert _state(RESOLVED, faults=(fault,)).conditions() == {KEY: ACTIVE}


OTHER = replace(ACTIVE, key=replace(KEY, name="another"), policy_id=8)
FAULT = WriteFault(key=KEY, failed=True, message="full")


def test_a_fault_holds_until_it_is_no_longer_reported_even_when_it_came_before_the_policy() -> None:
    state = AgentState()
    assert state.apply(replace(ATTACHED, faults=(FAULT,))) == []
    ((key, former, present),) = state.resolve(RESOLVED)
    assert (key, former, present and present.state) == (KEY, None, PolicyState.FAILED)
    ((_, _, recovered),) = state.apply(ATTACHED)
    assert recovered == ACTIVE


def test_only_the_policies_that_changed_are_returned() -> None:
    state = _state(PoliciesResolved(complete=True, conditions=(ACTIVE, OTHER)))
    fewer = replace(OTHER, state=PolicyState.NO_BACKEND)
    assert state.resolve(PoliciesResolved(complete=False, conditions=(fewer,))) == [(OTHER.key, OTHER, fewer)]
    assert state.resolve(PoliciesResolved(complete=True, conditions=(ACTIVE, fewer))) == []
    assert state.resolve(PoliciesResolved(complete=True, conditions=(ACTIVE,))) == [(OTHER.key, fewer, None)]


@pytest.mark.parametrize(
    ("then", "names"),
    [
        pytest.param(PoliciesResolved(complete=False, conditions=(OTHER,)), ["another", "dns"], id="one more policy"),
        pytest.param(PoliciesResolved(complete=False, removed=(KEY,)), [], id="a removal"),
        pytest.param(PoliciesResolved(complete=True, conditions=(OTHER,)), ["another"], id="a complete message"),
    ],
)
def test_conditions_are_merged(then: PoliciesResolved, names: list[str]) -> None:
    assert sorted(key.name for key in _state(RESOLVED, then).conditions()) == names


# --- the log ----------------------------------------------------------------------------------------------------------


def test_each_change_of_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    conflict = replace(ACTIVE, state=PolicyState.CONFLICT, message="older holds 10.96.0.10:53/UDP")
    with caplog.at_level(logging.INFO, logger="actors.reporting.status_reporter"):
        reporting = Reporting()
        for message in (
            RESOLVED,
            RESOLVED,
            replace(RESOLVED, conditions=(conflict,)),
            PoliciesResolved(complete=False, removed=(KEY,)),
        ):
            reporting.tell(message)
    lines = [
        (each.levelname, each.getMessage())
        for each in caplog.records
        if each.name == "actors.reporting.status_reporter"
    ]
    assert lines == [
        ("INFO", "policy dns is Active: 1 backend"),
        ("WARNING", "policy dns is Conflict: older holds 10.96.0.10:53/UDP"),
        ("INFO", "policy dns no longer exists"),
    ]


def test_a_policy_at_its_limit_is_logged_once_for_as_long_as_it_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="actors.reporting.status_reporter"):
        reporting = Reporting()
        reporting.tell(RESOLVED)
        caplog.clear()
        for limited in ((7,), (7,), (), (7,)):
            reporting.tell(QosWindowElapsed(limited=limited))
    lines = [each.getMessage() for each in caplog.records if each.name == "actors.reporting.status_reporter"]
    assert lines == ["policy dns is at its limit: further calls of this second are not redirected"] * 2


def test_a_flapping_backend_causes_a_few_lines_and_the_last_one_shows_the_present_state(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = replace(ACTIVE, state=PolicyState.NO_BACKEND, message="no Pod")
    flaps = [replace(RESOLVED, conditions=(each,)) for each in (ACTIVE, lost) * 50]
    with caplog.at_level(logging.INFO, logger="actors.reporting.status_reporter"):
        reporting = Reporting()
        reporting.tell(*flaps)
        lines = [each.getMessage() for each in caplog.records if each.name == "actors.reporting.status_reporter"]
        assert len(lines) <= change_log.BURST + 1
        monkeypatch.setattr(TokenBucket, "take", lambda _self, _now: True)  # later
        reporting.tell(ActorsReported(actors=()))
    assert caplog.messages[-1].startswith("policy dns is NoBackend: no Pod (")
    assert caplog.messages[-1].endswith(" changes before this one not logged, because they are frequent)")
