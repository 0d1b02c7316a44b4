"""Whether the source that the configuration names gives the agent what it needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from config.domain.ids import PolicyKind
from config.settings import Settings
from k8s.api.errors import ApiError, SourceConfigError, Unreachable
from k8s.api.resource import Resource
from k8s.sources.resources import ALL_SERVICES, node, pods_of_node, policies

if TYPE_CHECKING:
    from k8s.api.client import Api  # takes a second to import, and a directory does not need it


def access_faults(settings: Settings) -> tuple[list[str], str]:
    """What is missing, and a sentence that says what works, for when nothing is missing."""
    if settings.source.kind == "directory":
        directory = settings.source.directory
        readable = directory.is_dir() and os.access(directory, os.R_OK | os.X_OK)
        faults = [] if readable else [f"source.directory: {directory} is not a readable directory"]
        return faults, f"{directory} can be read"
    return _of_cluster(settings)


def _of_cluster(settings: Settings) -> tuple[list[str], str]:
    from k8s.api.client import Api  # noqa: PLC0415  (a directory does not need it, and it takes a second)

    name = settings.node_name
    listed = (policies(PolicyKind.LOCAL_REDIRECT), ALL_SERVICES, pods_of_node(name), node(name))
    needed = {each.name.partition(".")[0]: each for each in listed}
    faults = []
    try:
        api = Api(settings.source.kubeconfig)
        for plural, resource in needed.items():
            found = _fault(api, resource, name)
            if found:
                faults.append(f"{plural}: {found}")
    except (SourceConfigError, Unreachable) as error:
        faults.append(f"cannot connect to the API server: {error}")
    return faults, f"the API server lets us list {', '.join(needed)}"


def _fault(api: Api, resource: Resource, node_name: str) -> str:
    """Why the collection cannot be listed; "" if it can. Raises Unreachable."""
    try:
        answer = api.get(resource.path, {"limit": 1, **resource.selectors})
    except ApiError as error:
        return str(error)
    if resource.kind == "Node" and not answer.get("items"):
        return f"there is no Node {node_name} (node_name, NODE_NAME)"
    return ""
