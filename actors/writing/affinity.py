"""Which affinity rows are of no more use (P13). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from bpf.rows import AffinityRow, FrontendRow
from config.domain.addresses import Endpoint, Frontend


def expired_rows(
    held: Iterable[AffinityRow],
    frontends: Mapping[Frontend, FrontendRow],
    backends: Mapping[Frontend, tuple[Endpoint, ...]],
    now_ns: int,
) -> Iterator[AffinityRow]:
    """Rows past their frontend's time-out, or whose frontend or backend is gone."""
    for row in held:
        frontend = frontends.get(row.frontend)
        alive = (
            frontend is not None
            and now_ns - row.last_used_ns <= frontend.affinity_seconds * 1_000_000_000
            and row.backend in backends[row.frontend]
        )
        if not alive:
            yield row
