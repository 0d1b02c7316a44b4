"""The addresses of a cluster's nodes and of their Pods. Pure."""

from __future__ import annotations

from dataclasses import dataclass

POD_RANGES = "10.244.0.0/16,fd00:244::/96"
"""Of the Pods of all nodes."""
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Place:
    """Where a node is in the network of all nodes. Nodes have the numbers 1 to 99."""

    number: int

    @property
    def address(self) -> str:
        return f"10.90.0.{self.number}"

    @property
    def address6(self) -> str:
        return f"fd00:90::{self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def pods6(self) -> str:
        return f"fd00:244::{self.number}:0/112"

    @property
    def switch_port(self) -> str:
        """The other end of the node's interface, on the bridge that connects all nodes."""
        return f"node{self.number}"


GATEWAY = Place(254)
"""The nodes' default gateway. In a Cluster the control plane has this address; for a single node no host has it."""
UPSTREAM_DNS = Place(1).address
"""The resolver that the nodes' own /etc/resolv.conf names. Nothing listens there unless a test starts it."""


def addresses_of(place: Place, device: str) -> list[str]:
    """Arguments of `ip` that give a node its addresses, set its device up, and add its default routes."""
    return [
        f"addr add {place.address}/24 dev {device}",
        f"addr add {place.address6}/64 dev {device} nodad",
        f"link set {device} up",
        f"route add default via {GATEWAY.address} dev {device}",
        f"-6 route add default via {GATEWAY.address6} dev {device}",
    ]


def routes_to(place: Place) -> list[str]:
    """Arguments of `ip` that route calls to a node's Pods by way of that node."""
    return [
        f"route add {place.pods} via {place.address}",
        f"-6 route add {place.pods6} via {place.address6}",
    ]
