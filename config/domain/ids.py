"""The keys that identify objects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class PolicyKind(StrEnum):
    LOCAL_REDIRECT = "LocalRedirectPolicy"
    BALANCING = "BalancingPolicy"


@dataclass(frozen=True, slots=True, order=True)
class PolicyKey:
    """Identity of a policy object; both kinds are cluster-scoped."""

    kind: PolicyKind
    name: str


@dataclass(frozen=True, slots=True, order=True)
class NamespacedName:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


ObjectKey: TypeAlias = PolicyKey | NamespacedName | str
"""The key of a policy, of a Service or Pod, or of a Node (its name)."""
