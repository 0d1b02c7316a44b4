"""What the agent reports of the closer."""

from __future__ import annotations

import pytest

from actors.reporting.closer_state import closer_report
from bpf.maps.closer_faults import describe_fault
from bpf.maps.packing import pack_closer, unpack_closer
from bpf.maps.rows import CloserFault, CloserRow

NOW = 1_000_000_000_000
HEALTHY = CloserRow(alive_ns=NOW - 500_000_000, fault=CloserFault.NONE)


@pytest.mark.parametrize(
    ("row", "enabled", "state", "message"),
    [
        pytest.param(HEALTHY, True, "running", "", id="running"),
        pytest.param(HEALTHY, False, "disabled", "redirect.close_stale_sockets is false: ", id="disabled"),
        pytest.param(
            CloserRow(alive_ns=0, fault=CloserFault.NONE), True, "absent", "does not run on this node: ", id="never ran"
        ),
        pytest.param(
            CloserRow(alive_ns=NOW - 60_000_000_000, fault=CloserFault.NONE),
            True,
            "absent",
            "was last alive 60 s ago: ",
            id="ended or hangs",
        ),
        *(
            pytest.param(
                CloserRow(alive_ns=NOW, fault=fault), True, "failing", f"{describe_fault(fault)}: ", id=fault.name
            )
            for fault in CloserFault
            if fault
        ),
    ],
)
def test_the_state_of_the_closer_follows_from_its_row_and_the_clock(
    row: CloserRow, enabled: bool, state: str, message: str
) -> None:
    found = closer_report(row, enabled=enabled, now_ns=NOW)
    assert found.state == state
    assert message in found.message
    assert bool(found.message) is (state != "running")


def test_a_fault_of_a_later_version_is_a_fault() -> None:
    row = pack_closer(HEALTHY)[:8] + (99).to_bytes(8, "little")
    assert unpack_closer(row).fault == CloserFault.FAILED
