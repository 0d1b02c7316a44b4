"""Maps that are too small, or almost: policies that fit are in force, and change without a gap (P10, promise 2)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.messages.desired import ApplyDesiredState, BackendPod, DesiredPolicy
from actors.messages.reports import DesiredStateApplied
from actors.writing.backend_usage import BackendUsage
from actors.writing.clocks import read_clock
from actors.writing.lease import LeaseKeeper
from actors.writing.map_tables import MapTables
from actors.writing.map_writer import MapWriter
from actors.writing.policy_write import PolicyWrite
from actors.writing.room import Room
from bpf.lifecycle.datapath import Datapath
from bpf.maps.hashes import filter_bits
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import POLICY_ID, pack_backend_cgroup, pack_policy
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import FrontendRow, PolicyRow
from config.domain.addresses import Endpoint, Frontend
from config.domain.ids import NamespacedName
from tests.lab.lab import Lab
from tests.lab.processes import wait_until
from tests.lab.rows import backends, desired, frontend, small_datapath, write
from tests.unit.held import held
from tests.unit.peers import Peer, fence

SLOTS = 12
FRONTENDS = 10
SIZE = Room(policies=16384, frontends=FRONTENDS, backends=SLOTS, backend_cgroups=16384)


@pytest.fixture(scope="module")
def datapath(lab: Lab) -> Iterator[Datapath]:
    with small_datapath(lab, "room", max_frontends=FRONTENDS, max_backends=SLOTS, max_affinity=2048) as made:
        yield made


class Watched:
    """The real maps. After each single write they are checked as a program would see them at that moment."""

    def __init__(self, datapath: Datapath, monkeypatch: pytest.MonkeyPatch) -> None:
        self.maps = datapath.open_maps()
        self.tables = MapTables(self.maps)
        self.apply(dict.fromkeys(self.tables.policy_ids))
        self.removed: list[int] = []
        """Numbers of the frontends that were removed."""
        self.seen: dict[int, list[str]] = {}
        """Number of a frontend -> its backends after each write, without repetitions."""
        for method in ("update", "update_many", "delete"):
            monkeypatch.setattr(KernelMap, method, self._watching(getattr(KernelMap, method)))

    def apply(self, targets: dict[int, PolicyWrite | None]) -> set[int]:
        """Returns the policy ids that were refused."""
        return set(self.tables.apply(targets, known=set()))

    def install(self, *writes: PolicyWrite) -> set[int]:
        return self.apply({each.policy.policy_id: each for each in writes})

    def frontends(self) -> dict[int, str]:
        """Number of a frontend -> letters of its backends, as they are in the kernel."""
        return {number_of(row): letters_of(self.maps.backends_of(row)) for row in self.maps.frontend_rows()}

    def forget(self) -> None:
        self.removed.clear()
        self.seen.clear()
        self._look(list(self.maps.frontend_rows()))

    def _watching(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(written: KernelMap, *arguments: Any) -> Any:
            before = {row.frontend for row in self.maps.frontend_rows()} if written is self.maps["frontends"] else set()
            result = method(written, *arguments)
            rows = list(self.maps.frontend_rows())
            self.removed += sorted(number_of_frontend(each) for each in before - {row.frontend for row in rows})
            self._look(rows)
            return result

        return watched

    def _look(self, rows: list[FrontendRow]) -> None:
        bits = self.maps["filter"].lookup(bytes(4)) or b""
        for row in rows:
            assert len(self.maps.backends_of(row)) == row.count > 0, "a row names only backends of its own generation"
            assert all(bits[bit // 8] >> bit % 8 & 1 for bit in filter_bits(row.frontend))
            seen = self.seen.setdefault(number_of(row), [])
            if seen[-1:] != [letters_of(self.maps.backends_of(row))]:
                seen.append(letters_of(self.maps.backends_of(row)))


def number_of_frontend(each: Any) -> int:
    return int(each.address) - int(frontend(0).address)


def number_of(row: FrontendRow) -> int:
    return number_of_frontend(row.frontend)


def letters_of(found: tuple[Endpoint, ...]) -> str:
    return "".join(chr(int(each.address) - int(backends("\0")[0].address)) for each in found)


@pytest.fixture
def watched(datapath: Datapath, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    made = Watched(datapath, monkeypatch)
    yield made
    monkeypatch.undo()
    made.apply(dict.fromkeys(made.tables.policy_ids))
    assert made.tables.used == Room(), "nothing leaks"
    made.maps.close()


PADDING = "abcdefghijkl"
CHANGES: dict[str, tuple[int, PolicyWrite, PolicyWrite, list[int], list[str]]] = {
    # case: free slots, before, after, frontends that were removed meanwhile, what callers saw of the first frontend
    "room beside it": (2, write(1, "abc"), write(1, "ac"), [], ["abc", "ac"]),
    "one slot is free, and three become two": (1, write(1, "abc"), write(1, "ac"), [], ["abc", "a", "ac"]),
    "no slot is free, and three become two": (0, write(1, "abc"), write(1, "ac"), [], ["abc", "a", "ac"]),
    "the first goes": (0, write(1, "abc"), write(1, "bc"), [], ["abc", "bc"]),
    "the last goes": (0, write(1, "abc"), write(1, "ab"), [], ["abc", "ab"]),
    "one is replaced, with a free slot": (1, write(1, "abc"), write(1, "abd"), [], ["abc", "a", "abd"]),
    "one is replaced, without": (0, write(1, "abc"), write(1, "abd"), [10], ["abc", "a", "abd"]),
    "all are replaced, with room for one": (1, write(1, "ab"), write(1, "cd"), [10], ["ab", "cd"]),
    "it grows, and leaves a slot free": (2, write(1, "abc"), write(1, "abcd"), [], ["abc", "a", "abcd"]),
    "it grows by all that is free": (1, write(1, "abc"), write(1, "abcd"), [10], ["abc", "a", "abcd"]),
    "another limit": (0, write(1, "abc"), write(1, "abc", limit=5), [], ["abc"]),
    "two frontends, one of which makes room for the other": (
        1,
        write(1, "ab", "cdef"),
        write(1, "abgh", "cd"),
        [],
        ["ab", "a", "abgh"],
    ),
    "two frontends, one backend goes": (2, write(1, "abc", "abc"), write(1, "ac", "ac"), [], ["abc", "ac"]),
}


@pytest.mark.parametrize(("free", "before", "after", "removed", "seen"), CHANGES.values(), ids=CHANGES)
def test_p10_a_policy_in_force_changes_without_a_gap_if_any_order_of_writes_allows_it(
    watched: Watched, free: int, before: PolicyWrite, after: PolicyWrite, removed: list[int], seen: list[str]
) -> None:
    padding = write(9, PADDING[: SLOTS - free - before.need.backends])
    assert watched.install(before, padding) == set()
    assert watched.tables.used.backends == SLOTS - free
    watched.forget()
    assert watched.install(after) == set()
    assert watched.removed == removed
    assert watched.seen[10] == seen
    assert watched.seen.get(90, [""])[-1] == PADDING[: padding.need.backends], "the other policy is as it was"
    assert {row.limit for row in watched.maps.frontend_rows() if row.policy_id == 1} == {after.policy.limit}


def test_one_pod_that_turns_not_ready_under_many_policies_costs_none_of_them_its_frontends(watched: Watched) -> None:
    """The new rows of all policies together need more slots than are free, as with 1,000 policies of 2 ports and 20
    Pods in 65,536 rows."""
    assert watched.install(*(write(i, "abc") for i in range(1, 5))) == set()
    watched.forget()
    assert watched.install(*(write(i, "ac") for i in range(1, 5))) == set()
    assert watched.frontends() == {i * 10: "ac" for i in range(1, 5)}
    assert watched.removed == []


def test_scattered_free_slots_are_joined(watched: Watched) -> None:
    assert watched.install(*(write(i, "ab") for i in range(1, 7))) == set()
    watched.apply({2: None, 4: None, 6: None})
    watched.forget()
    assert watched.install(write(7, "abcdef")) == set()
    assert watched.frontends() == {10: "ab", 30: "ab", 50: "ab", 70: "abcdef"}
    assert watched.removed == [], "the frontends that were moved stay installed all the time"


def test_a_frontend_whose_new_slots_overlap_its_old_ones_moves_without_being_removed(watched: Watched) -> None:
    assert watched.install(write(1, "a"), write(2, PADDING[:10]), write(3, "a")) == set()
    watched.apply({1: None, 3: None})
    watched.forget()
    assert watched.install(write(4, "ab")) == set()
    assert watched.frontends() == {20: PADDING[:10], 40: "ab"}
    assert watched.removed == []


def test_a_policy_that_does_not_fit_is_refused_as_a_whole(watched: Watched) -> None:
    assert watched.install(write(1, PADDING[:8])) == set()
    assert watched.install(write(2, "ab", "abc")) == {2}
    assert watched.frontends() == {10: PADDING[:8]}
    assert watched.install(write(1, PADDING[:8], "abcde")) == {1}, "also if it was in force until then"
    assert watched.frontends() == {}


def test_old_cgroups_make_room_for_new_ones_and_a_policy_that_does_not_fit_is_refused(watched: Watched) -> None:
    maps, most = watched.maps, watched.maps["backend_cgroups"].max_entries
    assert most == SIZE.backend_cgroups
    held = frozenset(range(1, most + 1))
    for policy_id in (0, 2):  # rows that a former agent has left; they are read when the agent starts
        maps["backend_cgroups"].update_many(
            [(pack_backend_cgroup(each, policy_id), bytes(4)) for each in held][: most // 2]
        )
    watched.tables = MapTables(maps)
    refused = watched.tables.apply({1: write(1, "ab", cgroups=frozenset({1}))}, known=set())
    assert "the kernel map backend_cgroups (16384 rows, set by datapath.max_backends)" in refused[1].message
    assert watched.frontends() == {}
    targets = {0: None, 2: write(2, "a", cgroups=frozenset({5})), 1: write(1, "ab", cgroups=frozenset({1, 2}))}
    assert watched.apply(targets) == set()
    assert maps.backend_cgroups() == {(5, 2), (1, 1), (2, 1)}


def has_memory(written: KernelMap, key: bytes) -> bool:
    """Writes a row of zeros. The kernel takes memory for each CPU from a reserve that it fills in the background, so
    very many rows at once can exhaust it for a moment."""
    try:
        written.add(key, bytes(written.value_size))
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return False
        raise
    return True


def test_a_full_map_of_policies_refuses_one_more(watched: Watched) -> None:
    maps, most = watched.maps, watched.maps["policies"].max_entries
    others = [POLICY_ID.pack(policy_id) for policy_id in range(100, 100 + most)]
    maps["policies"].update_many([(key, pack_policy(PolicyRow(name="other", limit=0))) for key in others])
    for key in others:
        wait_until(lambda key=key: has_memory(maps["counters"], key), "the kernel has memory for a row")  # type: ignore[misc]
    watched.tables = MapTables(maps)
    refused = watched.tables.apply({1: write(1, "a")}, known=set())
    assert "the kernel map policies (16384 rows, set by datapath.max_frontends)" in refused[1].message
    assert watched.apply({100: None, 1: write(1, "a")}) == set(), "a policy that goes makes room in the same round"


LETTERS = st.sets(st.sampled_from("abcdef"), min_size=1, max_size=5).map("".join)
ROUNDS = st.lists(
    st.dictionaries(st.integers(1, 6), st.none() | st.lists(LETTERS, min_size=1, max_size=3), min_size=1, max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(rounds=ROUNDS)
def test_whatever_is_desired_what_fits_is_in_force_and_what_is_refused_is_not(
    watched: Watched, rounds: list[dict[int, list[str] | None]]
) -> None:
    watched.apply(dict.fromkeys(watched.tables.policy_ids))
    wanted: dict[int, PolicyWrite] = {}
    for targets in rounds:
        writes = {each: write(each, *letters) if letters else None for each, letters in targets.items()}
        refused = watched.apply(writes)
        wanted = {
            each: target for each, target in (wanted | writes).items() if target is not None and each not in refused
        }
        installed = {
            number_of_frontend(each.frontend): letters_of(each.backends)
            for target in wanted.values()
            for each in target.policy.frontends
        }
        assert watched.frontends() == installed
        left = SIZE.minus(watched.tables.used)
        for policy_id in refused:
            target = writes[policy_id]
            assert target and target.need.exceeds(left)
        assert MapTables(watched.maps).used == watched.tables.used, "the mirror matches the maps"


# --- the policies that wait for room ----------------------------------------------------------------------------------


MISSING = BackendPod(key=NamespacedName("default", "missing"), uid="none", config_hash="")


def applied(
    *policies: DesiredPolicy, removed: tuple[DesiredPolicy, ...] = (), complete: bool = False
) -> ApplyDesiredState:
    gone = tuple(each.key for each in removed)
    return ApplyDesiredState(complete=complete, upserted=policies, removed=gone, received_at=0.0)


class Writing:
    """A MapWriter on the small maps, and what it reports of policies that do not fit."""

    def __init__(self, datapath: Datapath) -> None:
        self.reporter = Peer("StatusReporter")
        self.resolver = Peer("ConflictResolver")
        self.ref = MapWriter.start(datapath=datapath, lease=LeaseKeeper(0, read_clock()))
        self.maps = datapath.maps
        self.apply(complete=True)

    def apply(
        self, *policies: DesiredPolicy, removed: tuple[DesiredPolicy, ...] = (), complete: bool = False
    ) -> set[int]:
        """Returns the policy ids that have frontends afterwards."""
        self.ref.tell(applied(*policies, removed=removed, complete=complete))
        fence(self.ref)
        report = self.reporter.heard()[-1]
        assert isinstance(report, DesiredStateApplied)
        self.failed = {fault.key.name for fault in report.faults if fault.failed}
        return {row.policy_id for row in self.maps.frontend_rows()}


@pytest.fixture
def writing(datapath: Datapath) -> Iterator[Writing]:
    made = Writing(datapath)
    yield made
    made.apply(complete=True)
    made.ref.stop()


def test_rows_that_become_free_go_to_waiting_policies_in_the_same_round(writing: Writing) -> None:
    assert writing.apply(desired(1, PADDING[:8]), desired(2, PADDING[:6])) == {1}
    assert writing.failed == {"policy2"}
    assert writing.apply(desired(1, "abc")) == {1, 2}
    assert writing.failed == set()


def test_the_longest_waiting_policy_is_first_and_a_new_one_is_last(writing: Writing) -> None:
    first = desired(1, PADDING[:10])
    writing.apply(first)
    writing.apply(desired(5, "abcdefg"))
    writing.apply(desired(3, "abcdefg"))
    assert writing.apply(desired(2, "abcdefg"), removed=(first,)) == {5}
    assert writing.apply(desired(4, "ab"), desired(5, "abc")) == {3, 4, 5}, "4 fits beside those that were before it"
    assert writing.failed == {"policy2"}


def test_a_policy_in_force_that_outgrows_the_map_makes_room_for_another(writing: Writing) -> None:
    assert writing.apply(desired(1, PADDING[:8]), desired(2, PADDING[:6])) == {1}
    assert writing.apply(desired(1, PADDING[:8], "abcdef")) == {2}
    assert writing.failed == {"policy1"}
    assert writing.apply(desired(1, "abcdef")) == {1, 2}


def test_a_frontend_that_another_policy_takes_over_stays_installed_all_the_time(
    writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desired(1, "abc")
    second = replace(desired(2, "bc"), frontends=(replace(desired(2, "bc").frontends[0], frontend=frontend(10)),))
    assert writing.apply(first) == {1}
    removed: list[Frontend] = []
    monkeypatch.setattr(PinnedMaps, "remove_frontend", lambda _maps, each: removed.append(each))
    assert writing.apply(second, removed=(first,)) == {2}
    assert removed == []
    monkeypatch.undo()


def test_a_thousand_policies_that_came_and_went_leave_nothing_in_memory(
    datapath: Datapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise a fixed number of removed backends stays in memory, on purpose.
    monkeypatch.setattr("actors.writing.address_filter.RETIRED", 0)
    # The test delivers the messages to the actor itself.
    writer = MapWriter(datapath=datapath, lease=LeaseKeeper(0, read_clock()))
    writer.started()
    writer.on_receive(applied(complete=True))
    before = list(held(writer))
    for policy_id in range(1, 1001):
        policy = desired(policy_id, "ab", "cd", limit=policy_id % 2, excluded=(MISSING,) if policy_id % 3 else ())
        too_much = desired(policy_id + 1, PADDING)
        writer.on_receive(applied(policy, too_much))
        assert list(held(writer)) != before
        writer.on_receive(applied(removed=(policy, too_much)))
    assert list(held(writer)) == before
    writer.stopped()


def test_what_the_closer_must_know_waits_for_room_and_pods_that_are_gone_do_not(datapath: Datapath) -> None:
    maps = datapath.open_maps()
    usage = BackendUsage(maps)
    pods = frozenset(each.address for each in backends("ab"))
    usage.apply(ApplyDesiredState(complete=True, received_at=0.0, pod_addresses=pods))
    assert maps.backend_pods() == pods
    many, few = (
        frozenset((frontend(number), backend) for backend in backends(PADDING) for number in numbers)
        for numbers in ((1, 2, 3), (1,))
    )
    room = maps["unusable"].max_entries
    assert len(few) < room < len(many)
    here = frozenset({backends("a")[0].address})
    too_much = (desired(1, unusable=many),)
    usage.apply(ApplyDesiredState(complete=False, upserted=too_much, received_at=0.0, pod_addresses=here))
    assert maps.backend_pods() == here
    second = frozenset((frontend(4), backend) for backend in backends("ab"))
    usage.apply(ApplyDesiredState(complete=False, upserted=(desired(2, unusable=second),), received_at=0.0))
    usage.apply(ApplyDesiredState(complete=False, upserted=(desired(1, unusable=few),), received_at=0.0))
    assert maps.unusable() == few | second
