"""Generates LocalRedirectPolicies that are nearly right: good ones in which up to two fields have another value."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.cluster.api import Json
from tests.cluster.crd_cases import DELETE, GOOD, changed

_words = st.sampled_from(
    ["", "a", "A", "a b", "a/b", "-a", "a" * 64, "80", "TCP", "UDP", "ClientIP", "In", "None", "*"]
)
_addresses = st.sampled_from(
    [
        *("10.0.0.1", "10.0.0.256", "10.0.0.01", "127.1.2.3", "169.254.1.1", "0.0.0.0", "0.1.2.3", "255.255.255.255"),
        *(
            "224.0.0.1",
            "240.0.0.1",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "febf::",
            "fec0::",
            "ff02::1",
        ),
        *("fd00::1", "::127.0.0.1", "0::1", "1::", "fd00::1/64", "[::1]", "2001:db8::10.0.0.1"),
    ]
) | st.ip_addresses().map(str)
_scalars = st.none() | st.booleans() | st.integers(-1, 70000) | st.just(1.5) | _words | _addresses
_keys = st.sampled_from(["a", "port", "name", "protocol", "key", "operator", "values", "matchLabels", "ip", "toPorts"])
_values = st.just(DELETE) | st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=6
)


def _paths(value: Any, prefix: str = "") -> list[str]:
    """The paths of all fields in a manifest, without those by which the API server finds its kind."""
    found = []
    for key, inner in value.items():
        if prefix or key not in ("apiVersion", "kind"):
            path = f"{prefix}{key}"
            found += [path, *(_paths(inner, f"{path}/") if isinstance(inner, dict) and "/" not in key else [])]
    return [path for path in found if not path.startswith("metadata/annotations/")]


@st.composite
def _policies(draw: st.DrawFn) -> Json:
    policy = GOOD[draw(st.sampled_from(sorted(set(GOOD) - {"as large as it may be"})))]
    for _ in range(draw(st.integers(0, 2))):
        paths = [path for path in _paths(policy) if "/" in path and "matchLabels/" not in path]
        values = _addresses | _values
        policy = changed(policy, {draw(st.sampled_from(paths)): draw(values)})
    return policy


policies = _policies()
