"""Whether the source that the configuration names gives the agent what it needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from config.domain.ids import PolicyKind
from config.settings import Settings
from k8s.api.errors import ApiError, Unreachable
from k8s.api.resource import policies_path
from k8s.api.trouble import SourceConfigError

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
    from k8s.api.client import Api  # noqa: PLC0415  (as above)

    needed = {
        "localredirectpolicies": (policies_path(PolicyKind.LOCAL_REDIRECT), ""),
        "services": ("/api/v1/services", ""),
        "pods": ("/api/v1/pods", f"spec.nodeName={settings.node_name}"),
        "nodes": ("/api/v1/nodes", f"metadata.name={settings.node_name}"),
    }
    faults = []
    try:
        api = Api(settings.source.kubeconfig)
        for name, (path, selector) in needed.items():
            found = _fault(api, path, selector)
            if found:
                faults.append(f"{name}: {found}")
    except (SourceConfigError, Unreachable) as error:
        faults.append(f"cannot connect to the API server: {error}")
    return faults, f"the API server lets us list {', '.join(needed)}"


def _fault(api: Api, path: str, selector: str) -> str:
    """Why the collection cannot be listed; "" if it can. Raises Unreachable."""
    parameters: dict[str, str | int] = {"limit": 1} | ({"fieldSelector": selector} if selector else {})
    try:
        answer = api.get(path, parameters)
    except ApiError as error:
        return str(error)
    if path == "/api/v1/nodes" and not answer.get("items"):
        return f"there is no Node {selector.removeprefix('metadata.name=')} (node_name, NODE_NAME)"
    return ""
