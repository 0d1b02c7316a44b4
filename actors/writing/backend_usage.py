"""The maps `backend_pods`, `unusable` and `usage_revision`, which tell the closer what is out of use (P20).

MapWriter owns the instance, and calls `apply` after the frontends' rows are written: when the closer closes a socket,
the client connects again, and must not be redirected to the same backend.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import TypeAlias

from actors.messages.desired import ApplyDesiredState
from bpf.maps.packing import PRESENT, pack_address, pack_member
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Address, Endpoint, Frontend
from config.domain.ids import PolicyKey

_log = logging.getLogger(__name__)

_Pair: TypeAlias = tuple[Frontend, Endpoint]


class BackendUsage:
    """Mirror of these maps, which are read once."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self._pods = maps.backend_pods()
        self._unusable = maps.unusable()
        self._revision = maps.usage_revision()
        self._unusable_of: dict[PolicyKey, frozenset[_Pair]] = {}
        self._pod_addresses: frozenset[Address] = frozenset()
        """ApplyDesiredState.pod_addresses, as it was sent last."""
        self._is_new = not self._pods
        """Whether the maps are being filled for the first time. Then all Pods get a row, because an earlier build may
        have redirected sockets to Pods that no policy selects now."""

    def apply(self, message: ApplyDesiredState) -> None:
        before = set(self._pods), set(self._unusable)
        try:
            self._apply_unusable(message)
            self._apply_pods(message)
        except OSError as error:  # a full map
            _log.warning("cannot note all backends for the closer, so stale sockets may stay open: %s", error)
        if before != (self._pods, self._unusable):
            self._revision += 1
            self._maps.write_usage_revision(self._revision)

    def _apply_unusable(self, message: ApplyDesiredState) -> None:
        changed = {policy.key: policy.unusable for policy in message.upserted} | dict.fromkeys(
            message.removed, frozenset[_Pair]()
        )
        if message.complete:
            self._unusable_of.clear()
            former = set(self._unusable)
        else:
            former = set(chain.from_iterable(self._unusable_of.get(key, ()) for key in changed))
        self._unusable_of.update(changed)
        for key in message.removed:
            del self._unusable_of[key]
        wanted = set(chain.from_iterable(changed.values()))
        # A pair that moves from one policy to another within the message must stay.
        for pair in (former - wanted) & self._unusable:
            self._maps["unusable"].delete(pack_member(*pair))
            self._unusable.discard(pair)
        for pair in wanted - self._unusable:
            self._maps["unusable"].update(pack_member(*pair), PRESENT)
            self._unusable.add(pair)

    def _apply_pods(self, message: ApplyDesiredState) -> None:
        if message.pod_addresses is not None:
            self._pod_addresses = message.pod_addresses
        backends = {
            backend.address
            for policy in message.upserted
            for desired in policy.frontends
            for backend in desired.backends
        }
        wanted = self._pod_addresses if self._is_new else (self._pods | backends) & self._pod_addresses
        self._is_new = False
        for address in self._pods - wanted:
            self._maps["backend_pods"].delete(pack_address(address))
            self._pods.discard(address)
        for address in wanted - self._pods:
            self._maps["backend_pods"].update(pack_address(address), PRESENT)
            self._pods.add(address)
