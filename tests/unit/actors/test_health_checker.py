"""HealthChecker among its peers: which actor it sends what."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from actors.health.health_checker import HealthChecker
from actors.messages.checks import (
    CheckCount,
    CheckedPod,
    ChecksSelected,
    HealthChanged,
    HealthChecksCounted,
    PolicyChecks,
)
from actors.messages.resync import ResyncDesiredState
from config.domain.checks import HealthCheck, TcpProbe
from config.domain.ids import NamespacedName
from tests.unit.objects import KEY
from tests.unit.peers import Peer, fence

POD = NamespacedName("ns", "pod")


def test_at_its_start_it_asks_what_to_check_and_a_stop_ends_its_thread() -> None:
    resolver = Peer("ConflictResolver")
    checker = HealthChecker.start()
    assert resolver.next() == ResyncDesiredState()
    fence(checker)
    checker.stop()
    assert checker.actor_stopped.is_set()


def test_changes_of_a_pods_health_go_to_the_resolver_and_counts_to_the_exporter() -> None:
    resolver, exporter = Peer("ConflictResolver"), Peer("MetricsExporter")
    checker = HealthChecker.start()
    assert resolver.next() == ResyncDesiredState()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])
        check = HealthCheck(
            probe=TcpProbe(), port=port, interval=0.05, timeout=0.05, failure_threshold=1, success_threshold=1
        )
        pod = CheckedPod(key=POD, uid="u", address=ip_address("127.0.0.1"), why_out_of_use="")
        checker.tell(ChecksSelected(complete=True, policies=(PolicyChecks(key=KEY, check=check, pods=(pod,)),)))
        out = resolver.next()
        assert isinstance(out, HealthChanged)
        assert (out.policy, out.check, out.pod, out.uid) == (KEY, check, POD, "u")
        assert out.why_out_of_use == f"its tcp check of port {port} failed: Connection refused"
        server.listen()
        back = resolver.next()
        assert isinstance(back, HealthChanged)
        assert (back.pod, back.why_out_of_use) == (POD, "")
        assert back.received_at - out.received_at > 0.9
    first = exporter.next()
    assert first == HealthChecksCounted(counts=(CheckCount(policy=KEY, successes=0, failures=1),))
