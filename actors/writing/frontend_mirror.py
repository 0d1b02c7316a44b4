"""What the maps `frontends` and `backends` hold, as seen by the agent that writes them. Pure.

FrontendWriter owns the only instance and changes it with each write. Others read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set as AbstractSet

from actors.writing.slots import Slots
from bpf.maps.rows import FrontendRow
from config.domain.addresses import Endpoint, Frontend


class FrontendMirror:
    def __init__(self, backend_slots: int) -> None:
        """`backend_slots` is the size of the map `backends`."""
        self.rows: dict[Frontend, FrontendRow] = {}
        self.backends: dict[Frontend, tuple[Endpoint, ...]] = {}
        """Frontend -> the backends in the slots that its row names."""
        self.reduced: dict[Frontend, tuple[Endpoint, ...]] = {}
        """Frontends that temporarily work with a part of their backends -> all the backends that they had."""
        self.slots = Slots(backend_slots)
        """Which slots no row names. A row's slots are taken before it is noted."""
        self._places: dict[int, Frontend] = {}
        """Index of a frontend's first slot -> the frontend."""
        self._owned: defaultdict[int, set[Frontend]] = defaultdict(set)
        """Policy id -> its frontends."""

    @property
    def policy_ids(self) -> AbstractSet[int]:
        """Policies that have frontends."""
        return self._owned.keys()

    def owned_by(self, policy_id: int) -> frozenset[Frontend]:
        return frozenset(self._owned.get(policy_id, ()))

    def row_at(self, slot: int) -> FrontendRow:
        """Returns the row whose first slot this is. Raises KeyError if there is none."""
        return self.rows[self._places[slot]]

    def all_backends(self, frontend: Frontend) -> tuple[Endpoint, ...]:
        """Returns the backends of a frontend, including those that a reduced row leaves out. A frontend that has no row
        has none."""
        return self.reduced.get(frontend, self.backends.get(frontend, ()))

    def note(self, row: FrontendRow, backends: tuple[Endpoint, ...]) -> None:
        """The frontend has no other row."""
        self.rows[row.frontend] = row
        self.backends[row.frontend] = backends
        self._places[row.first] = row.frontend
        self._owned[row.policy_id].add(row.frontend)

    def forget(self, frontend: Frontend) -> None:
        """The row is no longer there, and its slots are free."""
        row = self.rows.pop(frontend)
        del self.backends[frontend], self._places[row.first]
        self.reduced.pop(frontend, None)
        self._owned[row.policy_id].discard(frontend)
        if not self._owned[row.policy_id]:
            del self._owned[row.policy_id]
        self.slots.release(row.first, row.count)
