"""A complete single-node Kubernetes, in namespaces and cgroups of its own (tests.cluster.sandbox).

    with Node() as node:
        node.load_image(images.busybox())
        node.apply(...)
        node.wait_pod_ready("client")
        node.exec("client", "wget", "-O-", "http://server")

Control plane and node (tests.cluster.machine) have the same sandbox. It sees the machine's whole cgroup hierarchy.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.control_plane import API_ADDRESSES, WholeControlPlane
from tests.cluster.machine import Machine
from tests.cluster.places import Place

NODE_NAME = "node"
PLACE = Place(1)


class Node(WholeControlPlane, Machine):
    """Context manager. ControlPlane has the API server's part; here `url` and `port` are valid in the node's
    namespace."""

    _addresses = (*API_ADDRESSES, PLACE.address, PLACE.address6)

    def __init__(self, *, apiserver_flags: Sequence[str] = ()) -> None:
        WholeControlPlane.__init__(self, apiserver_flags=apiserver_flags)
        Machine.__init__(self, self, self.sandbox, NODE_NAME, PLACE)

    def _placement_flags(self) -> list[str]:
        return [f"--advertise-address={PLACE.address}", "--kubelet-preferred-address-types=InternalIP"]

    def _start(self) -> None:
        super()._start()
        self._start_controllers()
        self.start_machine()
        self.wait_usable(self.node_name)
