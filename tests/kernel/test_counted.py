"""A policy keeps its counters for as long as it exists, and no other policy gets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from actors.messages.desired import ApplyDesiredState, DesiredPolicy
from actors.messages.upkeep import AffinitySliceDue, SweepAffinity
from actors.writing.affinity import SWEEP_SLICE
from actors.writing.clocks import read_clock
from actors.writing.lease import LeaseKeeper
from actors.writing.map_writer import MapWriter
from bpf.lifecycle import pins
from bpf.lifecycle.datapath import Datapath
from bpf.lifecycle.detaching import detach
from bpf.maps.packing import POLICY_ID
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import AffinityRow
from config.domain.addresses import Endpoint
from tests.lab.affinity import pack_affinity
from tests.lab.lab import Lab
from tests.lab.rows import backends, desired, frontend, out_of_force, pins_of, prepare_small, small_datapath
from tests.unit.peers import Peer, fence

SIZES = {"max_frontends": 8, "max_backends": 8, "max_affinity": 4096}
DNS = desired(77, "ab", name="dns", uid="one", limit=9)


@pytest.fixture(scope="module")
def datapath(lab: Lab) -> Iterator[Datapath]:
    with small_datapath(lab, "counted", **SIZES) as made:
        yield made


class Counting:
    """A MapWriter, and counters that a test sets as the programs would."""

    def __init__(self, datapath: Datapath, *policies: DesiredPolicy) -> None:
        self.peers = [Peer(name) for name in ("StatusReporter", "ConflictResolver", "AffinityAger")]
        self.datapath = datapath
        self.maps = datapath.maps
        self.start(*policies)

    def start(self, *policies: DesiredPolicy) -> None:
        self.ref = MapWriter.start(datapath=self.datapath, lease=LeaseKeeper(0, read_clock()))
        self.apply(*policies, complete=True)

    def restart(self, *policies: DesiredPolicy) -> None:
        """Restarts the MapWriter on the same pins, as a restarted agent does."""
        self.ref.stop()
        self.start(*policies)

    def apply(self, *policies: DesiredPolicy, removed: tuple[DesiredPolicy, ...] = (), complete: bool = False) -> None:
        gone = tuple(each.key for each in removed)
        self.ref.tell(ApplyDesiredState(complete=complete, upserted=policies, removed=gone, received_at=0.0))
        fence(self.ref)

    def count(self) -> None:
        for policy_id in self.maps.counters():
            count(self.maps, policy_id, 7)

    def redirects(self) -> dict[str, int]:
        """Policy -> redirects, of each policy that has counters."""
        counters = self.maps.counters()
        policies = self.maps.counted_policies()
        assert counters.keys() == policies.keys()
        return {row.name: counters[policy_id].redirects for policy_id, row in policies.items()}


def count(maps: PinnedMaps, policy_id: int, redirects: int) -> None:
    """Counts on one CPU, as the programs do."""
    first_cpu = redirects.to_bytes(8, "little")
    maps["counters"].update(POLICY_ID.pack(policy_id), first_cpu.ljust(maps["counters"].value_size, b"\0"))


@pytest.fixture
def counting(datapath: Datapath) -> Iterator[Counting]:
    made = Counting(datapath)
    yield made
    made.apply(complete=True)
    assert made.redirects() == {}, "no policy, no rows"
    made.ref.stop()


ANOTHER = replace(desired(77, "cd", uid="two"), key=replace(DNS.key, name="web"))
CREATED_AGAIN = replace(DNS, uid="two")
WITHOUT_BACKENDS = replace(DNS, frontends=())


@pytest.mark.parametrize(
    ("after", "redirects"),
    [
        pytest.param([DNS], {"dns": 7}, id="the same"),
        pytest.param([replace(DNS, limit=0)], {"dns": 7}, id="changed"),
        pytest.param([WITHOUT_BACKENDS], {"dns": 7}, id="without backends"),
        pytest.param([out_of_force(DNS)], {"dns": 7}, id="disabled"),
        pytest.param([CREATED_AGAIN], {"dns": 0}, id="another object of the same name and number"),
        pytest.param([ANOTHER], {"web": 0}, id="another policy has taken over the number"),
        pytest.param(
            [ANOTHER, out_of_force(DNS)], {"web": 0}, id="another policy has the number, which this one has lost"
        ),
        pytest.param([out_of_force(ANOTHER)], {}, id="another policy asks for the number, and is out of force"),
        pytest.param([DNS, out_of_force(ANOTHER)], {"dns": 7}, id="another policy asks for the number in vain"),
        pytest.param([], {}, id="gone"),
    ],
)
@pytest.mark.parametrize("how", ["changes", "restarted", "complete"])
def test_counters_last_as_long_as_the_policy_and_begin_at_zero_for_another_one(
    counting: Counting, how: str, after: list[DesiredPolicy], redirects: dict[str, int]
) -> None:
    counting.apply(DNS)
    counting.count()
    if how == "restarted":
        counting.restart(*after)
    elif how == "complete":
        counting.apply(*after, complete=True)
    else:
        removed = () if any(each.key == DNS.key for each in after) else (DNS,)
        counting.apply(*after, removed=removed)
    assert counting.redirects() == redirects
    limits = {each.policy_id for each in after if each.in_force and each.limit}
    assert set(counting.maps.windows()) == limits


def test_a_policy_that_comes_back_into_force_goes_on_counting(counting: Counting) -> None:
    counting.apply(DNS)
    counting.count()
    counting.apply(out_of_force(DNS))
    assert counting.maps.policy_rows() == {}, "it is not shown as installed"
    counting.restart(out_of_force(DNS))
    counting.apply(DNS)
    assert counting.redirects() == {"dns": 7}


def test_a_policy_that_no_longer_fits_keeps_its_counters(counting: Counting) -> None:
    counting.apply(DNS)
    counting.count()
    counting.apply(replace(desired(77, "abcdefghi", uid="one"), key=DNS.key))
    assert counting.maps.policy_rows() == {}
    assert counting.redirects() == {"dns": 7}


def test_a_new_build_takes_over_the_counters_of_policies_that_still_exist(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: detach(pins_of(lab, "upgrade")))
    gone, disabled = desired(1, "a", name="gone"), desired(2, "a", name="disabled", uid="u")
    former = Counting(prepare_small(lab, "upgrade", **SIZES))
    former.apply(DNS, gone, disabled)
    former.apply(out_of_force(disabled))
    former.count()
    former.ref.stop()
    former.datapath.close()
    later = prepare_small(lab, "upgrade", **SIZES | {"max_frontends": 9})
    for policy_id in (1, 77):
        count(former.maps, policy_id, 9)  # the former programs go on counting until the new ones take over
    present = Counting(later, DNS, out_of_force(disabled))
    assert present.redirects() == {"dns": 9, "disabled": 7}
    assert pins.builds(later.bpffs) == [later.build]
    present.restart(DNS, out_of_force(disabled))
    assert present.redirects() == {"dns": 9, "disabled": 7}
    present.ref.stop()
    later.close()


# --- the affinity sweep -----------------------------------------------------------------------------------------------


def test_a_sweep_looks_at_a_few_rows_at_a_time(counting: Counting) -> None:
    """So messages that arrive meanwhile wait only for a few rows. The test delivers the messages to the actor
    itself."""
    of_nobody = Endpoint(backends("z")[0].address, 53)
    for client in range(3 * SWEEP_SLICE):
        row = AffinityRow(
            client_netns=client + 1, frontend=frontend(1), backend=of_nobody, generation=1, last_used_ns=0
        )
        counting.maps["affinity"].update(*pack_affinity(row))
    writer = MapWriter(datapath=counting.datapath, lease=LeaseKeeper(0, read_clock()))
    writer.started()
    writer.on_receive(SweepAffinity(now_ns=1))
    left = []
    for _ in range(3):
        writer.on_receive(AffinitySliceDue())
        left.append(sum(1 for _ in counting.maps["affinity"].items()))
    assert left == [2 * SWEEP_SLICE, SWEEP_SLICE, 0]
    writer.stopped()
