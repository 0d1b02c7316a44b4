"""A Kubernetes of several real nodes, whose Pods reach each other by routes.

    with Cluster(archives) as cluster:
        first, second, third = cluster.members
        cluster.kubectl("get", "nodes")
        second.cut()

The control plane has a sandbox of its own, so that the API outlives any node. Each node has a sandbox as well, with its
own network and mounts, and sees only its own part of the cgroup hierarchies, as on a separate machine. A bridge in the
control plane's network connects them. Each node has the others' Pod ranges in its routes, as with kindnet, or in a
cloud whose network routes Pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster import image_store
from tests.cluster.machine import Machine, Proxy
from tests.cluster.node_files import Cni
from tests.cluster.places import Place
from tests.cluster.processes import run
from tests.cluster.sandbox import Sandbox
from tests.cluster.switched import SwitchedControlPlane

NETWORKS: tuple[tuple[Cni, Proxy], ...] = (("bridge", "nftables"), ("ptp", "iptables-nft"), ("ptp", "iptables-legacy"))
"""The CNI plugin and the mode of kube-proxy on the first, second and third node. They may differ within a cluster,
since each node connects its own Pods and serves Services itself."""


class Member(Machine):
    """A node of a Cluster, named `node-1` and so on."""

    _lease_seconds = 4

    def __init__(self, cluster: Cluster, number: int, cni: Cni, proxy: Proxy) -> None:
        sandbox = Sandbox(namespaces=True, own_cgroups=True)
        super().__init__(cluster, sandbox, f"node-{number}", Place(number), cni=cni, proxy=proxy)
        self._cluster = cluster

    def open(self, images: Path) -> None:
        self.sandbox.open()
        image_store.copy(images, self.folder / "containerd")
        self._start()

    def _start(self) -> None:
        self.start_machine(switch=self._cluster.netns, neighbours=self._cluster.places)

    def cut(self) -> None:
        """Disconnects the node from the other nodes and from the API server."""
        self._set_port("down")

    def connect(self) -> None:
        self._set_port("up")

    def _set_port(self, *state: str) -> None:
        run("ip", "-n", self._cluster.netns, "link", "set", self.place.switch_port, *state)

    def power_off(self) -> None:
        """Ends the node at once, with everything that runs on it."""
        run("ip", "-n", self._cluster.netns, "link", "delete", self.place.switch_port)
        self.sandbox.halt()

    def power_on(self) -> None:
        """Starts the node again, with the files that it had. Returns before it is Ready."""
        self.sandbox.boot()
        self._start()


class Cluster(SwitchedControlPlane):
    """Context manager. `members` are the nodes; each offers what concerns itself and its Pods."""

    # Longer than any node is silent on a busy machine.
    _grace = "10s"

    def __init__(self, archives: Sequence[Path], *, networks: Sequence[tuple[Cni, Proxy]] = NETWORKS) -> None:
        """`archives` are the images that every node has. `networks` has an entry for each node."""
        super().__init__([Place(number) for number, _ in enumerate(networks, 1)])
        self._archives = archives
        self.members = [Member(self, number, *network) for number, network in enumerate(networks, 1)]

    def _start(self) -> None:
        images = image_store.unpacked(self._archives)
        super()._start()
        for member in self.members:
            member.open(images)
        self.wait_usable(*(member.node_name for member in self.members))

    def close(self) -> None:
        for member in self.members:
            member.sandbox.close()
        super().close()

    def logs(self, *names: str, lines: int = 15) -> str:
        """The logs of the control plane and of all nodes."""
        sandboxes = (self.sandbox, *(member.sandbox for member in self.members))
        return "\n".join(each.logs(*names, lines=lines) for each in sandboxes)
