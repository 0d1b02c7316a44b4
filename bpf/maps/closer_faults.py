"""What the closer's faults mean for an operator. The closer logs it, and the agent shows it in /status."""

from __future__ import annotations

from bpf.maps.rows import CloserFault

_DESCRIPTIONS = {
    CloserFault.NONE: "",
    CloserFault.NO_RIGHT: "the closer lacks CAP_SYS_ADMIN or CAP_NET_ADMIN; give its container both",
    CloserFault.NOT_SUPPORTED: "this kernel cannot list or close sockets; it needs CONFIG_INET_DIAG, "
    "CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY",
    CloserFault.NO_NAMESPACES: "the closer finds no network namespaces of Pods; mount the node's /run/netns into its "
    "container",
    CloserFault.FAILED: "the closer failed, and its log says why; it tries again",
}


def describe_fault(fault: CloserFault) -> str:
    """What is wrong and what to do; "" when there is no fault."""
    return _DESCRIPTIONS[fault]
