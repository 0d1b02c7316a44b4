"""The Pods of this node, read once from the source that the configuration names, for commands that name a Pod."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from config.domain.ids import NamespacedName
from config.input.parsing import FileFault
from config.settings import RedirectSettings, Settings
from k8s.api.errors import ApiError, SourceConfigError, Unreachable
from k8s.objects.manifests import read_manifest
from k8s.objects.metadata import ObjectError
from k8s.objects.model import Pod
from k8s.objects.pod import parse_pod
from k8s.sources.manifest_files import is_json, is_manifest, read_file
from k8s.sources.resources import pods_of_node


class NoSuchPod(Exception):
    """The source says that this node has no such Pod. The text is for the operator."""


class SourceUnreadable(Exception):
    """The source cannot be read. The text says why."""


def find_pod(name: NamespacedName, settings: Settings) -> Pod:
    """Raises NoSuchPod and SourceUnreadable."""
    if settings.source.kind == "directory":
        return _in_directory(name, settings.source.directory, settings.node_name, settings.redirect)
    return _in_cluster(name, settings.source.kubeconfig, settings.node_name)


def pod_names(settings: Settings) -> dict[str, NamespacedName]:
    """The Pods of this node: uid, or a static Pod's config hash -> name. Raises SourceUnreadable."""
    if settings.source.kind == "directory":
        pods = list(_pods_in_directory(settings.source.directory, settings.node_name, settings.redirect))
    else:
        pods = _pods_in_cluster(settings.source.kubeconfig, settings.node_name)
    return {uid: pod.key for pod in pods for uid in (pod.uid, pod.config_hash) if uid}


def _pods_in_cluster(kubeconfig: str, node: str) -> list[Pod]:
    """The Pods of this node."""
    from k8s.api.client import Api  # noqa: PLC0415  (as in _in_cluster)

    listed = pods_of_node(node)
    try:
        answer = Api(kubeconfig).get(listed.path, listed.selectors)
    except (ApiError, Unreachable, SourceConfigError) as error:
        msg = f"cannot list the Pods of this node at the API server: {error}"
        raise SourceUnreadable(msg) from error
    found = []
    for item in answer.get("items") or []:
        with contextlib.suppress(ObjectError):
            found.append(parse_pod(item))
    return found


def _in_cluster(name: NamespacedName, kubeconfig: str, node: str) -> Pod:
    # Imported late, because the official client takes a second to import and a directory does not need it.
    from k8s.api.client import Api  # noqa: PLC0415

    path = f"/api/v1/namespaces/{name.namespace}/pods"
    try:
        # A list, so that a Pod that is not there is an empty answer and not an error.
        answer = Api(kubeconfig).get(path, {"fieldSelector": f"metadata.name={name.name}"})
        items = answer.get("items") or []
        pod = parse_pod(items[0]) if items else None
    except (ApiError, Unreachable, SourceConfigError, ObjectError) as error:
        msg = f"cannot read Pod {name} from the API server: {error}"
        raise SourceUnreadable(msg) from error
    if pod is None:
        msg = f"there is no Pod {name} in the cluster"
        raise NoSuchPod(msg)
    if pod.node != node:
        where = f"runs on node {pod.node}" if pod.node else "is not scheduled yet"
        msg = f"Pod {name} {where}, and this is node {node}; ask the agent of its node"
        raise NoSuchPod(msg)
    return pod


def _in_directory(name: NamespacedName, directory: Path, node: str, redirect: RedirectSettings) -> Pod:
    for pod in _pods_in_directory(directory, node, redirect):
        if pod.key == name:
            return pod
    msg = f"there is no Pod {name} of node {node} in the manifests of {directory}"
    raise NoSuchPod(msg)


def _pods_in_directory(directory: Path, node: str, redirect: RedirectSettings) -> Iterator[Pod]:
    """The Pods of this node."""
    try:
        files = sorted(path for path in directory.iterdir() if is_manifest(path.name))
    except OSError as error:
        msg = f"source.directory cannot be read: {error}"
        raise SourceUnreadable(msg) from error
    for path in files:
        try:
            found = read_manifest(
                read_file(path),
                is_json=is_json(path.name),
                kinds=frozenset({"Pod"}),
                node_name=node,
                redirect=redirect,
            )
        except (FileFault, OSError):  # the agent's log and `run.py validate` say what is wrong with it
            continue
        yield from (pod for pod in found.objects.values() if isinstance(pod, Pod))
