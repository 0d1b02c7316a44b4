"""Every message between actors: the only thing that actors share.

Facts are about objects, in the past tense; commands are imperative; ticks say that a time has come. All are frozen
values. Repeating any of them is harmless unless its docstring says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bpf.rows import Endpoint, Frontend
from k8s.objects import NamespacedName, Node, Pod, PodQuery, Policy, PolicyKey, PolicyStatus, Service
from k8s.source import SourceEvent, Trouble
from k8s.status import Write, WriteAnswer


class SourceName(StrEnum):
    """The three streams of facts; also the `source` label of metrics."""

    POLICIES = "policies"
    SERVICES = "services"
    ENDPOINTS = "endpoints"


class PolicyState(StrEnum):
    ACTIVE = "Active"
    NO_BACKEND = "NoBackend"
    NO_FRONTEND = "NoFrontend"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    DISABLED = "Disabled"
    NODE_NOT_SELECTED = "NodeNotSelected"
    FAILED = "Failed"


class Acceptance(StrEnum):
    """Reasons of the condition `Accepted` in a policy's status; it holds with the first alone."""

    ACCEPTED = "Accepted"
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    DISABLED = "Disabled"


class Message:
    """Base of all messages; the test of dispatch tables walks its subclasses."""

    __slots__ = ()


# --- PolicyWatcher, ServiceWatcher, EndpointWatcher -> ConflictResolver: facts ----------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUpserted(Message):
    """A policy of either kind was seen, valid or not."""

    policy: Policy
    generation: int
    received_at: float
    """time.monotonic() when the event reached the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRemoved(Message):
    key: PolicyKey
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUpserted(Message):
    service: Service
    generation: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRemoved(Message):
    key: NamespacedName
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodUpserted(Message):
    """A Pod of this node; in the controller, one that a policy selects."""

    pod: Pod
    generation: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRemoved(Message):
    key: NamespacedName
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUpserted(Message):
    """This agent's own Node; in the controller, any."""

    node: Node
    generation: int
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved(Message):
    name: str
    received_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSynced(Message):
    """Ends a first listing and every new one: what this source told under an older generation is gone.

    To ConflictResolver, StatusReporter and MetricsExporter. `wanted` is, for SERVICES and ENDPOINTS, the revision of
    the newest `WatchServices` or `WatchPods` that the listing covers.
    """

    source: SourceName
    generation: int
    wanted: int = 0
    as_of: float = 0.0
    """time.monotonic() at which the oldest part of the listing was asked of where it comes from."""


# --- ConflictResolver, MapWriter -> watchers --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchServices(Message):
    """ConflictResolver -> ServiceWatcher: the Services that policies name, all of them."""

    names: frozenset[NamespacedName]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPods(Message):
    """ConflictResolver -> EndpointWatcher, in the controller: the Pods that policies select, by all their selectors."""

    queries: frozenset[PodQuery]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncSource(Message):
    """To a watcher: tell everything again, under a new generation.

    By whoever lost its facts (a restarted resolver), and by MapWriter, whose lease ran out: then what is told must have
    been read at `since` or later.
    """

    since: float = 0.0
    """time.monotonic(); 0: as it is known."""


# --- ConflictResolver -> MapWriter ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredFrontend:
    frontend: Frontend
    backends: tuple[Endpoint, ...]
    """Usable ones, not empty, sorted by `bpf.rows.endpoint_order`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPod:
    """A Pod whose processes are not redirected (P12)."""

    key: NamespacedName
    uid: str
    config_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPolicy:
    """What one existing policy asks of the kernel.

    Out of force (invalid, in conflict, disabled, not for this node): `in_force` False, no frontends, no pods; its
    counters stay, unless `service_id` is another policy's.
    """

    key: PolicyKey
    uid: str = ""
    """Of the object: one of the same name and another uid is another policy, whose counters begin at zero."""
    service_id: int
    in_force: bool
    limit: int = 0
    affinity_seconds: int = 0
    redirect_from_host: bool = True
    frontends: tuple[DesiredFrontend, ...] = ()
    excluded: tuple[BackendPod, ...] = ()
    """Selected Pods, ready or not; empty when skipRedirectFromBackend is false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDesiredState(Message):
    """Changed policies, after every change; all of them when `complete`.

    With `complete`, what is installed and not named here goes. Sent only when all sources are synced.
    """

    complete: bool
    upserted: tuple[DesiredPolicy, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    received_at: float
    """Of the oldest event that led here."""
    as_of: float = 0.0
    """As of LeaseProbe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncDesiredState(Message):
    """MapWriter, StatusWriter, StatusReporter or MetricsExporter -> ConflictResolver, at their start: send everything
    again.

    The answer is a complete ApplyDesiredState (in the controller, ApplyVerdicts) and a complete PoliciesResolved, once
    all sources are synced.
    """


# --- ConflictResolver, PolicyWatcher -> StatusWriter (the controller alone) -------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """What there is to say of one policy in the whole cluster."""

    key: PolicyKey
    uid: str
    generation: int
    """The one that was judged."""
    reason: Acceptance
    message: str
    """One sentence."""
    frontend: str
    """What the policy matches: `namespace/name` of a Service, or an IP; "" for one that can't be read."""
    frontends: tuple[str, ...]
    nodes_ready: int
    nodes_selected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyVerdicts(Message):
    """ConflictResolver -> StatusWriter: verdicts that changed, and policies that are gone; all when `complete`."""

    complete: bool
    verdicts: tuple[PolicyVerdict, ...] = ()
    removed: tuple[PolicyKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusSeen(Message):
    """PolicyWatcher -> StatusWriter: what the API holds of a policy, told before the policy itself."""

    key: PolicyKey
    uid: str
    status: PolicyStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatusGone(Message):
    """PolicyWatcher -> StatusWriter: the API holds no such policy, or no longer."""

    key: PolicyKey


# --- conditions: ConflictResolver, MapWriter -> StatusReporter, MetricsExporter ---------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCondition:
    key: PolicyKey
    service_id: int
    state: PolicyState
    reason: str
    """CamelCase word, as in Kubernetes conditions."""
    message: str
    """One sentence: what the user must know."""
    frontends: tuple[Frontend, ...] = ()
    backends: tuple[Endpoint, ...] = ()
    usable_pods: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesResolved(Message):
    """ConflictResolver: conditions as decided; LocalRedirectPolicies only."""

    complete: bool
    conditions: tuple[PolicyCondition, ...] = ()
    removed: tuple[PolicyKey, ...] = ()
    conflicts: int = 0
    """Policies, of both kinds, that are out of force because an older one holds what they claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFault:
    """Why one policy is not, or not wholly, in the kernel."""

    key: PolicyKey
    failed: bool
    """True: out of force, state Failed. False: in force, `message` is a warning (a Pod's cgroup was not found)."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredStateApplied(Message):
    """MapWriter, after every write: all present faults, and what was taken to write it."""

    faults: tuple[WriteFault, ...]
    attached: bool
    """All hooks are attached."""
    seconds: float
    """Event received to kernel written; negative when no event led here."""
    lease_withheld: str = ""
    """Why the lease ran out and is not renewed yet, in one sentence; "" when it is renewed."""


# --- ticks and requests to the maps' owner ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TickElapsed(Message):
    """An actor's own clock thread -> that actor; `due` is time.monotonic() at which the tick was due."""

    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseProbe(Message):
    """QosTicker -> each watcher -> ConflictResolver -> MapWriter: travels the way of facts, so a stuck actor stops it.

    The resolver passes a round on when all three watchers have passed it on, and what they told before is decided;
    MapWriter renews the lease as of `sent_ns`. One that ran out is renewed only when `as_of` is later than its end.
    """

    round: int
    sent_ns: int
    """CLOCK_MONOTONIC when QosTicker sent it."""
    passed_by: SourceName | None = None
    as_of: float = 0.0
    """By the resolver: the oldest `as_of` of the sources' newest listings; 0 while one has ended none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QosWindowElapsed(Message):
    """QosTicker -> StatusReporter: policies that reached their limit in the window that ended."""

    limited: tuple[int, ...]
    """Service ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepAffinity(Message):
    """AffinityAger -> MapWriter: remove rows that expired, or whose backend or frontend is gone."""

    now_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsRemoved(Message):
    """MapWriter -> AffinityAger: backends went away, rows that name them are of no use."""


# --- Supervisor -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorFailed(Message):
    """An actor -> Supervisor: it stopped, or ends now. Phase is `start`, `handle` or `thread`."""

    name: str
    phase: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReport:
    name: str
    state: str
    """`running`, `restarting` or `stuck`."""
    restarts: int
    mailbox: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsReported(Message):
    """Supervisor -> StatusReporter, MetricsExporter, each second."""

    actors: tuple[ActorReport, ...]


# --- MetricsExporter -> StatusReporter --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServed(Message):
    """Whether the address of /metrics can be listened on: sent with each attempt, the last of which succeeds."""

    fault: str
    """Why not; "" when it is served."""


# --- watchers -> StatusReporter, MetricsExporter: observations --------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHeard(Message):
    """A watcher -> StatusReporter, MetricsExporter: how its source stands (`k8s.source.Heard`), when that changes and
    about each second in which something was heard; or a new listing began, or a part was listed anew (then
    `relist_reason` says why)."""

    source: SourceName
    heard_at: float | None
    trouble: Trouble | None = None
    relist_reason: str = ""


# --- Supervisor -> every actor ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Message):
    """Asked with a time-out; answered with the actor's name by `AgentActor` itself."""


# --- an actor -> itself -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush(Message):
    """ConflictResolver -> itself: all facts that waited are in the indexes now; decide once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinitySliceDue(Message):
    """MapWriter -> itself: the next rows of the sweep, behind what waits already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDelivered(Message):
    """A watcher's reader thread -> that watcher."""

    event: SourceEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEnded(Message):
    """StatusWriter's writing thread -> StatusWriter, and from there -> MetricsExporter."""

    write: Write
    answer: WriteAnswer
