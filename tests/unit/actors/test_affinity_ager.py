"""When affinity rows are swept, and which of them are useless."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from actors.framework.messages import Message, TickElapsed
from actors.messages.upkeep import BackendsRemoved, SweepAffinity
from actors.writing import affinity_ager
from actors.writing.affinity import expired_rows
from actors.writing.affinity_ager import SWEEP_TICKS, AffinityAger
from bpf.maps.rows import AffinityRow, FrontendRow
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.unit.peers import Peer, fence

TICK = TickElapsed()
GONE = BackendsRemoved()


@pytest.mark.parametrize(
    ("messages", "sweeps"),
    [
        pytest.param([TICK] * (SWEEP_TICKS - 1), 0, id="not before ten seconds"),
        pytest.param([TICK] * SWEEP_TICKS, 1, id="after ten seconds"),
        pytest.param([TICK] * SWEEP_TICKS * 3, 3, id="every ten seconds"),
        pytest.param([GONE], 0, id="a removal waits for the tick"),
        pytest.param([GONE, GONE, GONE, TICK], 1, id="many removals are swept once"),
        pytest.param([GONE, TICK, TICK, TICK], 1, id="and not once more"),
        pytest.param([TICK] * 9 + [GONE, TICK, TICK], 1, id="a sweep for a removal restarts the ten seconds"),
    ],
)
def test_rows_are_swept_every_ten_seconds_and_soon_after_backends_were_removed(
    messages: list[Message], sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity_ager, "TICK_SECONDS", 3600.0)
    writer = Peer("MapWriter")
    ref = AffinityAger.start()
    for message in messages:
        ref.tell(message)
    fence(ref)
    heard = writer.heard()
    assert len(heard) == sweeps
    assert all(isinstance(message, SweepAffinity) and message.now_ns > 0 for message in heard)


FRONTEND = Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP)
BACKEND = Endpoint(ip_address("10.0.0.5"), 53)
INSTALLED = FrontendRow(
    generation=1, frontend=FRONTEND, policy_id=7, first=0, count=1, backends_generation=1, affinity_seconds=10
)
NOW_NS = 100_000_000_000


@pytest.mark.parametrize(
    ("age_seconds", "frontends", "backends", "expired"),
    [
        pytest.param(10, {FRONTEND: INSTALLED}, {FRONTEND: (BACKEND,)}, False, id="within its timeout"),
        pytest.param(11, {FRONTEND: INSTALLED}, {FRONTEND: (BACKEND,)}, True, id="past its timeout"),
        pytest.param(1, {FRONTEND: INSTALLED}, {FRONTEND: ()}, True, id="the backend no longer exists"),
        pytest.param(1, {}, {}, True, id="the frontend no longer exists"),
    ],
)
def test_p13_a_row_is_useful_within_its_timeout_while_its_backend_exists(
    *,
    age_seconds: int,
    frontends: dict[Frontend, FrontendRow],
    backends: dict[Frontend, tuple[Endpoint, ...]],
    expired: bool,
) -> None:
    used = NOW_NS - age_seconds * 1_000_000_000
    row = AffinityRow(client_netns=1, frontend=FRONTEND, backend=BACKEND, generation=7, last_used_ns=used)
    assert list(expired_rows([row], frontends, backends, NOW_NS)) == ([row] if expired else [])
