"""A collection of the API that is listed and watched: its path, its selectors, and how its objects are read. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from config.domain.ids import PolicyKind
from k8s.objects.model import KubeObject
from k8s.objects.policy import API_VERSION
from k8s.objects.raw import Raw

Reduce: TypeAlias = Callable[[Raw], KubeObject]
"""Raises ObjectError."""

_PLURALS = {PolicyKind.LOCAL_REDIRECT: "localredirectpolicies", PolicyKind.BALANCING: "balancingpolicies"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One list and watch."""

    kind: str
    path: str
    field_selector: str = ""
    label_selector: str = ""
    metadata_only: bool = False
    """Objects come as PartialObjectMetadata. We use only the labels of a Node, and its status changes all the time."""
    optional: bool = False
    """Its CRD may be absent, which means that there are no objects, and may be installed later."""
    with_status: bool = False
    """The status of a policy is read, too."""
    from_cache: bool = False
    """The list comes from the API server's own cache in one piece, rather than from etcd in pages.

    This is for what every agent lists: an API server before 1.32 that has to read etcd reads all Pods of the cluster to
    find those of one node. Lists in pages are for collections without a selector, where the server reads only what it
    returns, and for the controller, since only one of its processes reads at a time."""

    @property
    def name(self) -> str:
        """RESOURCE.GROUP, as kubectl writes it: `pods`, `localredirectpolicies.balancing.elf.io`."""
        parts = self.path.strip("/").split("/")
        return f"{parts[-1]}.{parts[1]}" if parts[0] == "apis" else parts[-1]

    @property
    def group_version(self) -> str:
        """`balancing.elf.io/v1beta1`; `v1` for the core."""
        parts = self.path.strip("/").split("/")
        return "/".join(parts[1:3]) if parts[0] == "apis" else parts[1]

    @property
    def selectors(self) -> dict[str, str | int]:
        """The parameters of a request that choose among the objects of the path."""
        pairs = (("fieldSelector", self.field_selector), ("labelSelector", self.label_selector))
        return {name: value for name, value in pairs if value}

    def __str__(self) -> str:
        selectors = ", ".join(map(str, self.selectors.values()))
        return f"{self.path} ({selectors})" if selectors else self.path


def policies_path(kind: PolicyKind) -> str:
    return f"/apis/{API_VERSION}/{_PLURALS[kind]}"
