"""`make cluster`: runs one node or several with our images, to try things on, until Ctrl-C or SIGTERM.

python -m tests.cluster [NODES]
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installation import Installation
from tests.cluster.machine import Machine
from tests.cluster.node import Node
from tests.cluster.nodes import NETWORKS, Cluster
from tests.cluster.processes import write_script
from tests.cluster.progress import step
from tests.cluster.ready import build_all, obstacles

USAGE = """
A Kubernetes is up, with these images (imagePullPolicy: IfNotPresent or Never):
{images}

    {kubectl} get pods -A
    {helm} list

To run the agent on it, from the image above (the cgroup stands for the whole node here):

    {helm} install localredirect k8s/chart -n elf --create-namespace --wait {values}

KUBECONFIG={kubeconfig} works in the network namespace {netns}.
{nodes}
Ctrl-C ends it and leaves nothing behind.
"""
NODE_USAGE = """
{name}: Pods by {cni}, Services by {proxy}; cgroups of Pods below {cgroup}, logs in {folder}
    {enter} bash           a shell on the node: its network, its mounts, in no Pod's cgroup
"""


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    if not 1 <= count <= len(NETWORKS):
        print(f"NODES is {count}, and there can be 1 to {len(NETWORKS)}", file=sys.stderr)
        return 2
    reasons = obstacles()
    for reason in reasons:
        print(f"the cluster cannot run: {reason}", file=sys.stderr)
    if reasons:
        return 1
    signal.signal(signal.SIGTERM, _interrupt)  # clean up as after Ctrl-C
    try:
        archives = build_all()
        if count == 1:
            with Node() as node:
                with step("loading images"):
                    for archive in archives:
                        node.load_image(archive)
                serve(node, [node])
        else:
            with Cluster(archives, networks=NETWORKS[:count]) as cluster:
                serve(cluster, cluster.members)
    except KeyboardInterrupt:
        pass
    return 0


def serve(plane: ControlPlane, machines: Sequence[Machine]) -> None:
    helm = [str(binaries.helm()), f"--kubeconfig={plane.kubeconfig}"]
    nodes = (
        NODE_USAGE.format(
            name=each.node_name,
            cni=each.cni,
            proxy=each.proxy,
            cgroup=each.cgroup,
            folder=each.folder,
            enter=write_script(each.folder / "bin" / "enter", each.sandbox.enter()),
        )
        for each in machines
    )
    folder = plane.folder / "bin"
    usage = USAGE.format(
        images="\n".join(f"    {name}" for name in machines[0].images()),
        kubectl=write_script(folder / "kubectl", plane.kubectl_command()),
        helm=write_script(folder / "helm", [*plane.sandbox.enter(mounts=False), *helm]),
        values=" ".join(Installation(machines[0]).helm_values()),
        netns=plane.sandbox.netns,
        kubeconfig=plane.kubeconfig,
        nodes="".join(nodes),
    )
    print(usage, flush=True)
    signal.pause()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
