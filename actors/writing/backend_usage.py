"""The maps `backend_pods`, `unusable` and `usage_revision`, which tell the closer what is out of use (P20).

MapWriter owns the instance, and calls `apply` after the frontends' rows are written: when the closer closes a socket,
the client connects again, and must not be redirected to the same backend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

from actors.messages.desired import ApplyDesiredState
from bpf.maps.kernel_map import KernelMap
from bpf.maps.packing import PRESENT, pack_address, pack_member
from bpf.maps.pinned_maps import PinnedMaps
from config.domain.addresses import Address, Endpoint, Frontend
from config.domain.ids import PolicyKey

_log = logging.getLogger(__name__)

_Pair: TypeAlias = tuple[Frontend, Endpoint]
_Key = TypeVar("_Key")


class BackendUsage:
    """Mirror of these maps, which are read once."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps
        self._pods = _Keys(maps["backend_pods"], maps.backend_pods(), pack_address)
        self._unusable = _Keys(maps["unusable"], maps.unusable(), lambda pair: pack_member(*pair))
        self._revision = maps.usage_revision()
        self._unusable_of: dict[PolicyKey, frozenset[_Pair]] = {}
        self._pod_addresses: frozenset[Address] = frozenset()
        """ApplyDesiredState.pod_addresses, as it was sent last."""
        self._is_new = not self._pods.present
        """Whether the maps are being filled for the first time. Then all Pods get a row, because an earlier build may
        have redirected sockets to Pods that no policy selects now."""
        self._lacks_room = False

    def apply(self, message: ApplyDesiredState) -> None:
        before = self._pods.present.copy(), self._unusable.present.copy()
        self._unusable.change(*self._unusable_change(message))
        self._pods.change(*self._pods_change(message))
        if before != (self._pods.present, self._unusable.present):
            self._revision += 1
            self._maps.write_usage_revision(self._revision)
        self._warn(self._unusable.error or self._pods.error)

    def _warn(self, error: OSError | None) -> None:
        """Logs only the first of several failures in a row, since each message tries again."""
        if error is not None and not self._lacks_room:
            _log.warning(
                "cannot note all backends for the closer, so stale sockets may stay open; retrying with each change: "
                "%s",
                error,
            )
        self._lacks_room = error is not None

    def _unusable_change(self, message: ApplyDesiredState) -> tuple[AbstractSet[_Pair], AbstractSet[_Pair]]:
        """Returns the pairs that must go, and those that must be there."""
        changed = {policy.key: policy.unusable for policy in message.upserted} | dict.fromkeys(
            message.removed, frozenset[_Pair]()
        )
        if message.complete:
            self._unusable_of.clear()
            former = self._unusable.present | self._unusable.waiting
        else:
            former = set(chain.from_iterable(self._unusable_of.get(key, ()) for key in changed))
        self._unusable_of.update(changed)
        for key in message.removed:
            del self._unusable_of[key]
        wanted = set(chain.from_iterable(changed.values()))
        # A pair that moves from one policy to another within the message must stay.
        return former - wanted, wanted

    def _pods_change(self, message: ApplyDesiredState) -> tuple[AbstractSet[Address], AbstractSet[Address]]:
        """Returns the addresses that must go, and those that must be there."""
        if message.pod_addresses is not None:
            self._pod_addresses = message.pod_addresses
        backends = {
            backend.address
            for policy in message.upserted
            for desired in policy.frontends
            for backend in desired.backends
        }
        former = self._pods.present | self._pods.waiting
        wanted = self._pod_addresses if self._is_new else (former | backends) & self._pod_addresses
        self._is_new = False
        return former - wanted, wanted


class _Keys(Generic[_Key]):
    """The keys of one map, whose rows say nothing but that they are there."""

    def __init__(self, rows: KernelMap, present: set[_Key], pack: Callable[[_Key], bytes]) -> None:
        """`present` are the keys that the map has."""
        self._rows = rows
        self._pack = pack
        self.present = present
        self.waiting: set[_Key] = set()
        """Keys that must be there, and that the kernel refused to add. The next change tries again."""
        self.error: OSError | None = None
        """Why it refused, by the last change; None when it did not. Usually the map is full."""

    def change(self, gone: AbstractSet[_Key], wanted: AbstractSet[_Key]) -> None:
        """Removes the keys that are gone first, since they may leave room for those that are wanted."""
        self.waiting = (self.waiting - gone) | (wanted - self.present)
        self.error = None
        try:
            for key in gone & self.present:
                self._rows.delete(self._pack(key))
                self.present.discard(key)
            for key in list(self.waiting):
                self._rows.update(self._pack(key), PRESENT)
                self.present.add(key)
                self.waiting.discard(key)
        except OSError as error:
            self.error = error
