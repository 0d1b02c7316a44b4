"""Which sockets are stale, decided from what the agent wrote about backends. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from config.domain.addresses import Address, Endpoint, Frontend, Protocol


class Usage(NamedTuple):
    """What the agent wrote into the maps `backend_pods` and `unusable`."""

    pods: AbstractSet[Address]
    """Addresses of the Pods that are or were backends and are still there."""
    unusable: AbstractSet[tuple[Frontend, Endpoint]]
    """Backends that a policy in force selects for the frontend and that are out of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Peers whose sockets may be stale. The kernel is asked about these sockets only."""

    gone: AbstractSet[Address] | None = frozenset()
    """Addresses of Pods that are gone. None: all addresses that no Pod has."""
    unusable: AbstractSet[Endpoint] = frozenset()

    def __or__(self, other: Candidates) -> Candidates:
        gone = None if self.gone is None or other.gone is None else self.gone | other.gone
        return Candidates(gone=gone, unusable=self.unusable | other.unusable)

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """TCP only if a Pod is gone. While a Pod is there but not usable, its TCP connections stay: it may be about to
        end them in good order."""
        return (Protocol.UDP,) if self.gone == frozenset() else (Protocol.UDP, Protocol.TCP)

    def include(self, protocol: Protocol, peer: Endpoint, usage: Usage) -> bool:
        """Whether a socket of this protocol, connected to `peer`, may be stale."""
        if peer.address not in usage.pods:
            return self.gone is None or peer.address in self.gone
        return protocol == Protocol.UDP and peer in self.unusable


def all_candidates(usage: Usage) -> Candidates:
    """For a look at all sockets: addresses that no Pod has, and backends that are not usable."""
    return Candidates(gone=None, unusable={backend for _, backend in usage.unusable})


def new_candidates(before: Usage, now: Usage) -> Candidates:
    """Backends that went out of use between the two."""
    return Candidates(gone=before.pods - now.pods, unusable={backend for _, backend in now.unusable - before.unusable})


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
