"""Parts of the messages that say how a policy stands. Pure."""

from __future__ import annotations

from k8s.objects.model import PolicySpec


def also(remark: str) -> str:
    """The end of a sentence that a remark follows; "" for no remark."""
    return f"; {remark}" if remark else ""


def redirected(frontends: str, where: str, spec: PolicySpec) -> str:
    """What happens to calls to these frontends, depending on the policy's mode and percentage (P21)."""
    share = "" if spec.percentage == 100 else f" for {spec.percentage} % of the clients"
    if not spec.shadow:
        return f"{frontends} redirected {where}{share}"
    return f"{frontends} would be redirected {where}{share}; clients take the normal way: spec.config.mode is Shadow"
