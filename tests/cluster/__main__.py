"""`make cluster`: runs a node with our images, to try things on, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.installation import Installation
from tests.cluster.node import Node
from tests.cluster.progress import step
from tests.cluster.ready import build_all, obstacles

USAGE = """
A Kubernetes node is up, with these images (imagePullPolicy: IfNotPresent or Never):
{images}

    {kubectl} get pods -A
    {helm} list
    {enter} bash           a shell on the node: its network, its mounts, in no Pod's cgroup

To run the agent on it, from the image above (the cgroup stands for the whole node here):

    {helm} install localredirect k8s/chart -n elf --create-namespace --wait {values}

It runs in the network namespace {netns}, where KUBECONFIG={kubeconfig} works;
its Pods' cgroups are below {cgroup}, its logs in {folder}.
Ctrl-C ends it and leaves nothing behind.
"""


def main() -> int:
    reasons = obstacles()
    for reason in reasons:
        print(f"the cluster cannot run: {reason}", file=sys.stderr)
    if reasons:
        return 1
    signal.signal(signal.SIGTERM, _interrupt)  # clean up as after Ctrl-C
    try:
        archives = build_all()
        with Node() as node:
            with step("loading images"):
                for archive in archives:
                    node.load_image(archive)
            print(_usage(node), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    return 0


def _usage(node: Node) -> str:
    helm = [str(binaries.helm()), f"--kubeconfig={node.kubeconfig}"]
    return USAGE.format(
        images="\n".join(f"    {name}" for name in node.images()),
        kubectl=_script(node.folder / "bin" / "kubectl", node.kubectl_command()),
        helm=_script(node.folder / "bin" / "helm", [*node.sandbox.enter(mounts=False), *helm]),
        values=" ".join(Installation(node).helm_values()),
        enter=_script(node.folder / "bin" / "enter", node.sandbox.enter()),
        netns=node.netns,
        kubeconfig=node.kubeconfig,
        cgroup=node.cgroup,
        folder=node.folder,
    )


def _script(path: Path, command: Sequence[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
    return path


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
