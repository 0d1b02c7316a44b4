"""QosTicker: which policies reached their limit, and the lease probes that each tick sends."""

from __future__ import annotations

import pytest

from actors.framework.messages import TickElapsed
from actors.messages.reports import QosWindowElapsed
from actors.messages.upkeep import LeaseProbe
from actors.writing import qos_ticker
from actors.writing.qos_ticker import QosTicker
from actors.writing.qos_windows import QosReading, limited_in
from bpf.maps.rows import PolicyRow, Window
from tests.unit.peers import Peer, fence


@pytest.mark.parametrize(
    ("window", "limit", "limited"),
    [
        pytest.param(Window(second=100, calls=11), 10, True, id="over the limit"),
        pytest.param(Window(second=100, calls=10), 10, False, id="exactly at the limit: every call was redirected"),
        pytest.param(Window(second=99, calls=11), 10, False, id="in an earlier second"),
        pytest.param(Window(second=101, calls=11), 10, False, id="in a later second"),
        pytest.param(Window(second=100, calls=11), 0, False, id="no limit"),
    ],
)
def test_a_policy_is_limited_in_a_second_with_more_calls_than_its_limit(
    *, window: Window, limit: int, limited: bool
) -> None:
    found = limited_in(100, QosReading({7: window}, {7: PolicyRow(name="dns", limit=limit)}))
    assert found == ({7} if limited else set())


def test_a_window_without_a_policy_is_ignored() -> None:
    assert limited_in(100, QosReading({7: Window(second=100, calls=11)}, {})) == set()


def test_seconds_are_compared_as_the_kernel_keeps_them_modulo_32_bits() -> None:
    policies = {7: PolicyRow(name="dns", limit=1)}
    assert limited_in(2**32 + 5, QosReading({7: Window(second=5, calls=2)}, policies)) == {7}


def test_each_tick_sends_a_probe_to_every_watcher_and_reports_the_policies_at_their_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(qos_ticker, "TICK_SECONDS", 3600.0)
    monkeypatch.setattr("actors.writing.qos_ticker.time.monotonic_ns", lambda: 101_200_000_000)
    watchers = [Peer(name) for name in ("PolicyWatcher", "ServiceWatcher", "EndpointWatcher")]
    reporter = Peer("StatusReporter")
    windows = {1: Window(second=100, calls=5), 2: Window(second=101, calls=5), 3: Window(second=98, calls=5)}
    policies = {policy_id: PolicyRow(name=f"p{policy_id}", limit=2) for policy_id in windows}
    ref = QosTicker.start(read=lambda: QosReading(windows, policies))
    for _ in range(2):
        ref.tell(TickElapsed())
    fence(ref)
    for watcher in watchers:
        assert watcher.heard() == [LeaseProbe(sent_ns=101_200_000_000)] * 2
    assert reporter.heard() == [QosWindowElapsed(limited=(1, 2))] * 2
