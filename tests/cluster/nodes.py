"""A Kubernetes of several real nodes, whose Pods reach each other by routes.

    with Cluster(archives) as cluster:
        first, second, third = cluster.members
        cluster.kubectl("get", "nodes")
        second.cut()

The control plane has a sandbox of its own, so that the API outlives any node, and so has each node: network, mounts and
cgroups, of which a node sees its own part only, as on another machine. A bridge in the control plane's network connects
them. Each node has the others' Pod ranges in its routes, as with kindnet, or in a cloud whose network routes Pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.cluster import image_store
from tests.cluster.control_plane import WholeControlPlane
from tests.cluster.machine import GATEWAY, Cni, Machine, Place, Proxy, routes_to
from tests.cluster.progress import run
from tests.cluster.sandbox import Sandbox

NETWORKS: tuple[tuple[Cni, Proxy], ...] = (("bridge", "nftables"), ("ptp", "iptables-nft"), ("ptp", "iptables-legacy"))
"""What Pods of the first, second and third node are connected by, and what stands for Services there. One cluster may
have all of it at once, since no node cares how another one does it."""


SWITCH_MAC = "02:00:00:00:00:01"
"""A bridge without an address of its own has the lowest of its ports' addresses. When that port's node dies, the other
nodes know the API server by an address that is gone, until ARP notices some ten seconds later: too late for their
leases, so the control plane takes all of them for dead."""


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
        """Nothing leaves the node for another one or for the API server, and nothing arrives."""
        self._set_port("down")

    def connect(self) -> None:
        self._set_port("up")

    def _set_port(self, *state: str) -> None:
        run("ip", "-n", self._cluster.netns, "link", "set", self.switch_port, *state)

    def power_off(self) -> None:
        """The node is gone from one moment to the next, with all that runs on it."""
        run("ip", "-n", self._cluster.netns, "link", "delete", self.switch_port)
        self.sandbox.halt()

    def power_on(self) -> None:
        """Starts the node again, with the files that it had. Returns before it is Ready."""
        self.sandbox.boot()
        self._start()


class Cluster(WholeControlPlane):
    """Context manager. Of nodes and their Pods, `members` has the rest."""

    _host = GATEWAY.address
    _addresses = ("127.0.0.1", "10.96.0.1", "fd00:96::1", GATEWAY.address, GATEWAY.address6)
    # Longer than any node is silent on a busy machine.
    _grace = "10s"

    def __init__(self, archives: Sequence[Path], *, networks: Sequence[tuple[Cni, Proxy]] = NETWORKS) -> None:
        """`archives` are the images that every node has, `networks` those of each node."""
        super().__init__()
        self._archives = archives
        self.netns = self.sandbox.netns
        self.members = [Member(self, number, *network) for number, network in enumerate(networks, 1)]
        self.places = [member.place for member in self.members]

    def _placement_flags(self) -> list[str]:
        return [f"--advertise-address={GATEWAY.address}", "--kubelet-preferred-address-types=InternalIP"]

    def _start(self) -> None:
        images = image_store.unpacked(self._archives)
        super()._start()
        self._open_switch()
        self._start_controllers()
        for member in self.members:
            member.open(images)
        self.wait_usable(*(member.node_name for member in self.members))

    def _open_switch(self) -> None:
        ip = f"-n {self.netns}"
        for arguments in (
            f"{ip} link add nodes address {SWITCH_MAC} type bridge",
            f"{ip} addr add {GATEWAY.address}/24 dev nodes",
            f"{ip} addr add {GATEWAY.address6}/64 dev nodes nodad",
            f"{ip} link set nodes up",
            *(line for place in self.places for line in routes_to(self.netns, place)),
        ):
            run("ip", *arguments.split())

    def close(self) -> None:
        for member in self.members:
            member.sandbox.close()
        super().close()

    def logs(self, *names: str, lines: int = 15) -> str:
        """Those of the control plane and of all nodes."""
        sandboxes = (self.sandbox, *(member.sandbox for member in self.members))
        return "\n".join(each.logs(*names, lines=lines) for each in sandboxes)
