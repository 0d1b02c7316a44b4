"""What the closer uses of the attached build: its maps, and the program that knows redirected sockets."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bpf import libbpf
from bpf.build import FIND_REDIRECT
from bpf.closing.sock_diag import ConnectedSocket
from bpf.closing.staleness import Usage
from bpf.lifecycle import pins
from bpf.lifecycle.attachments import builds_by_program
from bpf.lifecycle.opened_maps import has_our_rows
from bpf.maps.packing import (
    ONLY_KEY,
    pack_closer,
    pack_frontend,
    pack_number,
    pack_redirect_query,
    unpack_number,
    unpack_redirect_answer,
)
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import CloserFault, CloserRow
from config.domain.addresses import Endpoint, Frontend

_HOOK = "connect4"
"""One hook is enough to look at: all of them are attached within milliseconds."""
_ETHERNET_HEADER = bytes(14)
_MAPS = ("members", "backend_pods", "unusable", "usage_revision", "stale_closed", "closer")
"""All that the closer uses. It opens no others."""


def attached_program(bpffs: Path) -> int:
    """Id of the program that the pinned link holds; 0 when there is no link."""
    try:
        with libbpf.opened_pin(bpffs / pins.LINKS / _HOOK) as link:
            return libbpf.link_info(link).program_id
    except FileNotFoundError:
        return 0


def build_of_program(bpffs: Path, program_id: int) -> str:
    """The build that an attached program belongs to; "" when its rows are laid out in another way than ours.

    The build's rows are complete: the agent attaches it once MapWriter has written all that the policies ask for. While
    another build takes over, the rows of the former one stay as they are.
    """
    build = builds_by_program(bpffs, _HOOK).get(program_id, "")
    return build if build and has_our_rows(bpffs, build) else ""


class Installed:
    """Maps and program of one build. Raises OSError when one of them is missing."""

    def __init__(self, directory: Path) -> None:
        self._maps = PinnedMaps(directory / "maps", _MAPS)
        self._find_redirect = libbpf.open_pin(directory / "programs" / FIND_REDIRECT)
        self._revision: int | None = None
        """The `usage_revision` that `_usage` was read after; None before the first reading."""
        self._usage = Usage(frozenset(), frozenset())

    def close(self) -> None:
        self._maps.close()
        os.close(self._find_redirect)

    def usage(self) -> Usage:
        """What the agent says now."""
        # Read before the rows: a change that happens meanwhile has a later revision, and is read the next time.
        revision = self._maps.usage_revision()
        if revision != self._revision:
            self._usage = Usage(pods=frozenset(self._maps.backend_pods()), unusable=frozenset(self._maps.unusable()))
            self._revision = revision
        return self._usage

    def is_in_use(self, frontend: Frontend, backend: Endpoint) -> bool:
        return self._maps.is_member(frontend, backend)

    def redirected_from(self, found: ConnectedSocket) -> Frontend | None:
        """The frontend that the socket's program called; None when it was not redirected to its peer.

        This thread must be in the network namespace of the socket.
        """
        query = pack_redirect_query(found.protocol, peer=found.peer, local=found.local)
        answered, packet = libbpf.test_run(self._find_redirect, _ETHERNET_HEADER + query)
        return unpack_redirect_answer(packet[len(_ETHERNET_HEADER) :]) if answered else None

    def count_closed(self, frontend: Frontend) -> None:
        """If the map is full, this socket is not counted; nothing else depends on it."""
        key = pack_frontend(frontend)
        before = unpack_number(self._maps["stale_closed"].lookup(key))
        try:
            self._maps["stale_closed"].update(key, pack_number(before + 1))
        except OSError:
            return

    def report(self, fault: CloserFault) -> None:
        """Says that the closer is alive, and what keeps it from working."""
        row = CloserRow(alive_ns=time.monotonic_ns(), fault=fault)
        self._maps["closer"].update(ONLY_KEY, pack_closer(row))
