"""A control plane that has a network of its own, with a bridge for its nodes."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.control_plane import API_ADDRESSES, WholeControlPlane
from tests.cluster.places import GATEWAY, Place, routes_to
from tests.cluster.processes import run

SWITCH = "nodes"
SWITCH_MAC = "02:00:00:00:00:01"
"""Without a MAC address of its own, a bridge has the lowest of its ports' addresses. When the node of that port dies,
the other nodes go on sending to this address, until ARP notices some ten seconds later. That is too late for their
leases, so the control plane would take all of them for dead."""


class SwitchedControlPlane(WholeControlPlane):
    """Context manager. Its nodes connect to the bridge SWITCH in the network namespace `netns`."""

    _host = GATEWAY.address
    _addresses = (*API_ADDRESSES, GATEWAY.address, GATEWAY.address6)

    def __init__(self, places: Sequence[Place]) -> None:
        """`places` are those of the nodes, whose Pods it reaches by routes."""
        super().__init__()
        self.netns = self.sandbox.netns
        self.places = list(places)

    def _placement_flags(self) -> list[str]:
        return [f"--advertise-address={GATEWAY.address}", "--kubelet-preferred-address-types=InternalIP"]

    def _start(self) -> None:
        super()._start()
        for arguments in (
            f"link add {SWITCH} address {SWITCH_MAC} type bridge",
            f"addr add {GATEWAY.address}/24 dev {SWITCH}",
            f"addr add {GATEWAY.address6}/64 dev {SWITCH} nodad",
            f"link set {SWITCH} up",
            *(line for place in self.places for line in routes_to(place)),
        ):
            run("ip", "-n", self.netns, *arguments.split())
        self._start_controllers()
