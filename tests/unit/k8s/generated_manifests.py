"""Hypothesis' strategies for manifests: mostly right, and anything may be missing or wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.datetimes()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            scalars.filter(lambda key: key == key),  # noqa: PLR0124  (not a NaN)
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def fields(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly right fields, each of which may be missing or anything."""
    return st.fixed_dictionaries({}, optional={name: value | anything for name, value in known.items()}) | anything


names = st.sampled_from(["a", "dns", "web-1", "A", "", "a" * 300])
ports = st.lists(
    fields(port=st.sampled_from([80, "80", 0, 65536, 53]), protocol=st.sampled_from(["TCP", "UDP", "tcp"]), name=names),
    max_size=3,
)
selectors = fields(
    matchLabels=st.dictionaries(names, names, max_size=2),
    matchExpressions=st.lists(
        fields(key=names, operator=st.sampled_from(["In", "Exists", "x"]), values=st.lists(names, max_size=2)),
        max_size=2,
    ),
)
metadata = fields(
    name=names,
    namespace=names,
    uid=names,
    creationTimestamp=st.datetimes() | st.just("2026-01-01T00:00:00Z"),
    annotations=fields(**{"balancing.elf.io/serviceId": st.sampled_from(["7", 7, "0"])}),
    labels=st.dictionaries(names, names),
)
addresses = st.sampled_from(["10.0.0.1", "fd00::1", "::ffff:1.2.3.4", "x", "fe80::1%e"]) | st.ip_addresses().map(str)
policies = fields(
    apiVersion=st.just("balancing.elf.io/v1beta1"),
    kind=st.sampled_from(["LocalRedirectPolicy", "BalancingPolicy"]),
    metadata=metadata,
    spec=fields(
        enabled=st.booleans(),
        frontend=fields(addressMatcher=fields(ip=addresses, toPorts=ports))
        | fields(serviceMatcher=fields(serviceName=names, namespace=names, toPorts=ports)),
        backend=fields(endpointSelector=selectors, toPorts=ports, namespace=names),
        config=fields(redirectQosLimit=st.integers(), nodeLabelSelector=selectors, sessionAffinity=names),
    ),
)
others = fields(
    apiVersion=st.just("v1"),
    kind=st.sampled_from(["Service", "Pod", "Node"]),
    metadata=metadata,
    spec=fields(clusterIPs=st.lists(addresses), ports=ports, nodeName=st.just("n"), hostNetwork=st.booleans()),
    status=fields(podIPs=st.lists(fields(ip=addresses)), conditions=st.lists(fields(type=st.just("Ready")))),
)
