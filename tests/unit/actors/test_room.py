"""Which policies get room in the kernel maps, and which backends can stay where they are."""

from __future__ import annotations

import pytest

from actors.writing.room import Room, admit

SIZE = Room(policies=10, frontends=10, backends=10, backend_cgroups=10)
NOTHING = Room()


def room(backends: int, *, frontends: int = 1, cgroups: int = 0) -> Room:
    return Room(policies=1, frontends=frontends, backends=backends, backend_cgroups=cgroups)


@pytest.mark.parametrize(
    ("used", "present", "needs", "refused"),
    [
        pytest.param(0, {}, {1: room(10)}, set(), id="exactly as much as is free"),
        pytest.param(0, {}, {1: room(11)}, {1}, id="more than is free"),
        pytest.param(6, {1: room(6)}, {1: room(6)}, set(), id="a policy may use the room that it has"),
        pytest.param(
            8, {1: room(4), 2: room(4)}, {1: room(6), 2: NOTHING}, set(), id="room that another leaves is free"
        ),
        pytest.param(9, {1: room(3)}, {2: room(2), 1: room(3)}, {2}, id="a policy keeps its room whatever the order"),
        pytest.param(
            10, {1: room(5), 2: room(5)}, {1: room(6), 2: room(4)}, set(), id="a policy that shrinks comes first"
        ),
        pytest.param(10, {1: room(5), 2: room(5)}, {1: room(6), 2: room(6)}, {2}, id="the first of two that grow"),
        pytest.param(8, {1: room(8)}, {2: room(2), 1: room(9)}, {2}, id="growing comes before new"),
        pytest.param(0, {}, {2: room(6), 1: room(6), 3: room(4)}, {1}, id="in order; a smaller policy may still fit"),
        pytest.param(6, {1: room(6)}, {1: room(11), 2: room(10)}, {1}, id="a refused policy leaves its room"),
    ],
)
def test_policies_keep_their_room_and_what_is_free_goes_to_others_in_order(
    used: int, present: dict[int, Room], needs: dict[int, Room], refused: set[int]
) -> None:
    have = {policy_id: present.get(policy_id, NOTHING) for policy_id in needs}
    assert admit(SIZE, Room(backends=used), have, needs).keys() == refused


@pytest.mark.parametrize(
    ("need", "name", "key", "rows"),
    [
        pytest.param(Room(1, 11, 0, 0), "frontends", "datapath.max_frontends", "11 rows", id="frontends"),
        pytest.param(Room(1, 1, 12, 0), "backends", "datapath.max_backends", "12 rows", id="backends"),
        pytest.param(Room(1, 1, 1, 13), "backend_cgroups", "datapath.max_backends", "13 rows", id="cgroups"),
        pytest.param(Room(11, 0, 0, 0), "policies", "datapath.max_frontends", "11 rows", id="policies"),
    ],
)
def test_the_message_names_the_map_and_the_key(need: Room, name: str, key: str, rows: str) -> None:
    (message,) = admit(SIZE, NOTHING, {1: NOTHING}, {1: need}).values()
    assert f"the kernel map {name} (10 rows, set by {key})" in message
    assert rows in message
    assert "retries" in message
