"""How far `run.py detach` (k8s/detach.yaml) has replaced the agents of a DaemonSet, and which nodes remain. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from k8s.objects.raw import Raw


class Remaining(NamedTuple):
    """The nodes that have not detached."""

    waiting: tuple[tuple[str, str], ...] = ()
    """Nodes to wait for, each with what is in the way."""
    not_reporting: tuple[str, ...] = ()
    """Nodes whose kubelet does not report, where waiting is useless."""


def unfinished(daemon_set: Raw) -> str:
    """How far the patched DaemonSet is, in words; "" when it is done."""
    status = daemon_set.get("status", {})
    if status.get("observedGeneration", 0) < daemon_set["metadata"]["generation"]:
        return "the DaemonSet controller has not seen the patch yet"
    desired = status.get("desiredNumberScheduled", 0)
    # Until every Pod has the patched template, some of the ready Pods may still be agents.
    done = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return "" if done >= desired else f"{done} of {desired} nodes are done"


def remaining(
    daemon_set: Raw, pods: Sequence[Raw], detach: list[str], does_not_report: Callable[[str], bool]
) -> Remaining:
    """From the Pods that the DaemonSet selects. `detach` is the command that the patch gives them. `does_not_report` is
    called only for nodes that are not done."""
    found = {_node_name(pod): _obstacle(pod, detach) for pod in pods}
    undone = {node: obstacle for node, obstacle in sorted(found.items()) if obstacle}
    not_reporting = tuple(node for node in undone if does_not_report(node))
    waiting = [each for each in undone.items() if each[0] not in not_reporting]
    absent = daemon_set.get("status", {}).get("desiredNumberScheduled", 0) - len(found)
    if absent > 0:
        waiting.append((f"({absent} more)", "no Pod yet"))
    return Remaining(tuple(waiting), not_reporting)


def _node_name(pod: Raw) -> str:
    return str(pod["spec"].get("nodeName") or "(not scheduled yet)")


def _obstacle(pod: Raw, detach: list[str]) -> str:
    """Why this Pod's node is not done; "" when it is."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"]:
        return f"Pod {name} is Terminating"
    if all(container.get("command") != detach for container in pod["spec"]["containers"]):
        return f"Pod {name} is still an agent"
    if any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ())):
        return ""
    states = [each.get("state", {}).get("waiting", {}).get("reason") for each in status.get("containerStatuses", ())]
    return f"Pod {name} is not ready: {', '.join(filter(None, states)) or status.get('phase', 'Pending')}"


def kubelet_is_silent(node: Raw) -> bool:
    """Whether the node's kubelet does not report. One that reports `Ready: False` still runs Pods with hostNetwork."""
    conditions = node.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "Unknown" for each in conditions)
