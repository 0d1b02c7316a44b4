"""Which decisions `run.py monitor` shows, and how."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from bpf.explaining.call import parse_client
from bpf.maps.rows import PassReason
from bpf.monitoring.filters import is_chosen
from bpf.monitoring.named_decision import NamedDecision
from bpf.monitoring.printing import as_text, document, lost_as_text
from config.domain.addresses import Endpoint, Frontend, Protocol

REDIRECT = NamedDecision(
    time="2026-11-26T01:02:03.456Z",
    hook="sendmsg4",
    client="shop/cart-1",
    client_netns=77,
    cgroup=Path("/sys/fs/cgroup/kubepods/burstable/pod1/ctr"),
    pid=4321,
    command="nginx",
    frontend=Frontend(ip_address("10.96.0.10"), 53, Protocol.UDP),
    policy="dns",
    reason=None,
    backend=Endpoint(ip_address("10.1.0.5"), 53),
)
PASS = replace(REDIRECT, reason=PassReason.FROM_HOST, backend=None, client="", command="", policy="")
MOUNT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("client", "line", "chosen"),
    [
        pytest.param("shop/cart-1", REDIRECT, True, id="the Pod"),
        pytest.param("shop/cart", REDIRECT, False, id="another Pod"),
        pytest.param("host", REDIRECT, False, id="not from the host"),
        pytest.param("host", replace(PASS, client="host"), True, id="from the host"),
        pytest.param("pid:4321", REDIRECT, True, id="the process"),
        pytest.param("pid:432", REDIRECT, False, id="another process"),
        pytest.param("cgroup:/sys/fs/cgroup/kubepods", REDIRECT, True, id="a cgroup by its directory"),
        pytest.param("cgroup:kubepods/burstable", REDIRECT, True, id="a cgroup below the mount"),
        pytest.param("cgroup:/kubepods/burstable", REDIRECT, True, id="the same with a slash"),
        pytest.param("cgroup:kubepods/burst", REDIRECT, False, id="a part of a name"),
        pytest.param("cgroup:kubepods", replace(REDIRECT, cgroup=None), False, id="a cgroup that is gone"),
    ],
)
def test_from_chooses_by_the_caller(client: str, line: NamedDecision, chosen: bool) -> None:
    assert is_chosen(line, None, parse_client(client), MOUNT) is chosen


def test_policy_and_caller_must_both_fit() -> None:
    assert is_chosen(REDIRECT, None, None, MOUNT)
    assert is_chosen(REDIRECT, "dns", parse_client("pid:4321"), MOUNT)
    assert not is_chosen(REDIRECT, "web", parse_client("pid:4321"), MOUNT)
    assert not is_chosen(REDIRECT, "dns", parse_client("pid:1"), MOUNT)


def test_a_line_of_text_says_who_calls_what_and_what_happens() -> None:
    when = "2026-11-26T01:02:03.456Z  sendmsg4"
    caller = "shop/cart-1 (nginx 4321)"
    assert as_text(REDIRECT) == f"{when}  {caller}  10.96.0.10:53/UDP  dns  redirected to 10.1.0.5:53"
    assert as_text(PASS) == f"{when}  netns 77 (pid 4321)  10.96.0.10:53/UDP  -  passed: from_host"
    assert lost_as_text(3).startswith("3 decisions are not shown")


def test_a_line_of_json_has_null_where_there_is_nothing() -> None:
    passed, redirected = document(PASS), document(REDIRECT)
    assert (passed["verdict"], passed["reason"], passed["backend"]) == ("pass", "from_host", None)
    assert (redirected["verdict"], redirected["reason"], redirected["backend"]) == ("redirect", None, "10.1.0.5:53")
