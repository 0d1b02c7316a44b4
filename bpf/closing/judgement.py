"""Which sockets are stale: decided from what the agent says of backends. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from config.domain.addresses import Address, Endpoint, Frontend, Protocol


class Usage(NamedTuple):
    """What the agent says, as it stands in the maps `backend_pods` and `unusable`."""

    pods: AbstractSet[Address]
    """Addresses of the Pods that are or were backends and are still there."""
    unusable: AbstractSet[tuple[Frontend, Endpoint]]
    """Backends that a policy in force selects for the frontend and that are out of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Peers that make a socket stale, if it was redirected there. It says in which sockets a look is worth while."""

    gone: AbstractSet[Address] | None = frozenset()
    """Addresses of Pods that are gone. None: all addresses that no Pod has."""
    unusable: AbstractSet[Endpoint] = frozenset()

    def __or__(self, other: Suspicion) -> Suspicion:
        gone = None if self.gone is None or other.gone is None else self.gone | other.gone
        return Suspicion(gone=gone, unusable=self.unusable | other.unusable)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """A TCP connection to a Pod that is there, but not usable, goes on: the Pod may be about to end it in order."""
        return (Protocol.UDP,) if self.gone == frozenset() else (Protocol.UDP, Protocol.TCP)

    def falls_on(self, protocol: Protocol, peer: Endpoint, usage: Usage) -> bool:
        if peer.address not in usage.pods:
            return self.gone is None or peer.address in self.gone
        return protocol == Protocol.UDP and peer in self.unusable


def suspicion_of_all(usage: Usage) -> Suspicion:
    return Suspicion(gone=None, unusable={backend for _, backend in usage.unusable})


def suspicion_after(before: Usage, now: Usage) -> Suspicion:
    """Of what went out of use in between."""
    return Suspicion(gone=before.pods - now.pods, unusable={backend for _, backend in now.unusable - before.unusable})


def is_stale(frontend: Frontend, backend: Endpoint, usage: Usage, *, in_use: bool) -> bool:
    """Whether a socket that was redirected from the frontend to the backend must be closed (P20).

    `in_use`: new calls to the frontend are sent to the backend. A backend is not out of use when its policy is deleted,
    disabled or changed: while the Pod is there and the policy does not call it unusable, open sockets stay (P10).
    """
    if in_use:
        return False
    if backend.address not in usage.pods:
        return True
    return frontend.protocol == Protocol.UDP and (frontend, backend) in usage.unusable
