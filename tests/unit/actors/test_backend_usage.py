"""What the closer reads: which Pods are there, and which backends are not usable."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from actors.messages.desired import ApplyDesiredState, DesiredFrontend, DesiredPolicy
from actors.writing.backend_usage import BackendUsage
from bpf.maps.packing import unpack_address, unpack_member
from config.domain.addresses import Address, Endpoint, Frontend, Protocol
from config.domain.ids import PolicyKey, PolicyKind

ONE, TWO, OTHER = (ip_address(f"10.1.0.{i}") for i in (1, 2, 3))
DNS = Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP)


class Maps:
    """Stands for PinnedMaps: rows in dictionaries."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {"backend_pods": {}, "unusable": {}}
        self.revision = 0
        self.is_full = False

    def __getitem__(self, name: str) -> Any:
        return _Map(self, self.rows[name])

    def backend_pods(self) -> set[Address]:
        return set(map(unpack_address, self.rows["backend_pods"]))

    def unusable(self) -> set[tuple[Frontend, Endpoint]]:
        return set(map(unpack_member, self.rows["unusable"]))

    def usage_revision(self) -> int:
        return self.revision

    def write_usage_revision(self, revision: int) -> None:
        self.revision = revision


class _Map:
    def __init__(self, maps: Maps, rows: dict[bytes, bytes]) -> None:
        self._maps, self._rows = maps, rows

    def update(self, key: bytes, value: bytes) -> None:
        if self._maps.is_full:
            raise OSError(7, "Argument list too long")
        self._rows[key] = value

    def delete(self, key: bytes) -> None:
        del self._rows[key]


def policy(name: str = "p", *backends: Address, unusable: tuple[Address, ...] = ()) -> DesiredPolicy:
    endpoints = tuple(Endpoint(address, 53) for address in backends)
    return DesiredPolicy(
        key=PolicyKey(PolicyKind.LOCAL_REDIRECT, name),
        policy_id=1,
        in_force=True,
        frontends=(DesiredFrontend(frontend=DNS, backends=endpoints),) if endpoints else (),
        unusable=frozenset((DNS, Endpoint(address, 53)) for address in unusable),
    )


def message(
    *policies: DesiredPolicy,
    there: tuple[Address, ...] | None = None,
    removed: tuple[DesiredPolicy, ...] = (),
    complete: bool = False,
) -> ApplyDesiredState:
    return ApplyDesiredState(
        complete=complete,
        upserted=policies,
        removed=tuple(each.key for each in removed),
        received_at=0.0,
        pod_addresses=None if there is None else frozenset(there),
    )


def begun(*policies: DesiredPolicy, there: tuple[Address, ...]) -> tuple[Maps, BackendUsage]:
    """The maps of a new build and their owner, after the first complete state."""
    maps = Maps()
    usage = BackendUsage(maps)  # type: ignore[arg-type]
    usage.apply(message(*policies, there=there, complete=True))
    return maps, usage


def test_in_a_new_build_every_pod_has_a_row() -> None:
    maps, _ = begun(policy("p", ONE), there=(ONE, OTHER))
    assert maps.backend_pods() == {ONE, OTHER}


def test_later_only_backends_get_a_row_and_keep_it_without_their_policy() -> None:
    maps, usage = begun(policy("p", ONE), there=(ONE,))
    usage.apply(message(there=(ONE, TWO, OTHER)))
    assert maps.backend_pods() == {ONE}
    usage.apply(message(policy("p", ONE, TWO)))
    assert maps.backend_pods() == {ONE, TWO}
    usage.apply(message(removed=(policy("p"),)))
    assert maps.backend_pods() == {ONE, TWO}


def test_the_row_of_a_pod_goes_with_the_pod() -> None:
    maps, usage = begun(policy("p", ONE, TWO), there=(ONE, TWO))
    usage.apply(message(policy("p", ONE), there=(ONE,)))
    assert maps.backend_pods() == {ONE}


def test_unusable_backends_follow_their_policy() -> None:
    maps, usage = begun(policy("p", TWO, unusable=(ONE,)), there=(ONE, TWO))
    assert maps.unusable() == {(DNS, Endpoint(ONE, 53))}
    usage.apply(message(policy("p", ONE, unusable=(TWO,))))
    assert maps.unusable() == {(DNS, Endpoint(TWO, 53))}
    usage.apply(message(removed=(policy("p"),)))
    assert maps.unusable() == set()


def test_a_frontend_goes_from_one_policy_to_another() -> None:
    maps, usage = begun(policy("old", unusable=(ONE,)), policy("new"), there=(ONE,))
    usage.apply(message(policy("new", unusable=(ONE,)), policy("old")))
    assert maps.unusable() == {(DNS, Endpoint(ONE, 53))}


def test_after_a_restart_rows_that_are_no_longer_right_are_removed() -> None:
    maps, _ = begun(policy("p", OTHER, unusable=(ONE, TWO)), there=(ONE, TWO, OTHER))
    usage = BackendUsage(maps)  # type: ignore[arg-type]
    usage.apply(message(policy("p", unusable=(TWO,)), there=(TWO,), complete=True))
    assert maps.unusable() == {(DNS, Endpoint(TWO, 53))}
    assert maps.backend_pods() == {TWO}


def test_the_revision_grows_with_each_change_and_with_nothing_else() -> None:
    maps, usage = begun(policy("p", ONE), there=(ONE,))
    assert maps.revision == 1
    usage.apply(message(policy("p", ONE), there=(ONE, OTHER)))
    assert maps.revision == 1
    usage.apply(message(policy("p", unusable=(ONE,))))
    assert maps.revision == 2
    again = BackendUsage(maps)  # type: ignore[arg-type]
    again.apply(message(there=(), complete=True))
    assert maps.revision == 3


def test_a_full_map_is_no_failure_and_is_filled_when_there_is_room(caplog: Any) -> None:
    maps, usage = begun(there=())
    maps.is_full = True
    usage.apply(message(policy("p", ONE), there=(ONE,)))
    usage.apply(message(policy("p", ONE, TWO), there=(ONE, TWO)))
    assert [each.getMessage().partition(";")[0] for each in caplog.records] == [
        "cannot note all backends for the closer, so stale sockets may stay open"
    ]
    maps.is_full = False
    usage.apply(message())
    assert maps.backend_pods() == {ONE, TWO}


def test_a_backend_that_found_no_room_gets_its_row_although_its_policy_has_not_changed_since() -> None:
    maps, usage = begun(policy("p"), there=(ONE,))
    maps.is_full = True
    usage.apply(message(policy("p", unusable=(ONE,))))
    maps.is_full = False
    usage.apply(message(policy("other")))
    assert maps.unusable() == {(DNS, Endpoint(ONE, 53))}


def test_a_backend_that_found_no_room_gets_no_row_once_it_is_usable_again() -> None:
    maps, usage = begun(policy("p"), there=(ONE,))
    maps.is_full = True
    usage.apply(message(policy("p", unusable=(ONE,))))
    maps.is_full = False
    usage.apply(message(policy("p", ONE)))
    assert maps.unusable() == set()


def test_pods_that_are_gone_lose_their_rows_while_another_map_is_full() -> None:
    maps, usage = begun(policy("p", ONE), there=(ONE, TWO))
    maps.is_full = True
    usage.apply(message(policy("p", unusable=(TWO,)), there=(TWO,)))
    assert maps.backend_pods() == {TWO}
