"""What `--to` and `--from` of `run.py explain` and `monitor` mean."""

from __future__ import annotations

import pytest

from bpf.explaining.call import ClientKind, WrongUsage, parse_call, parse_client


@pytest.mark.parametrize(
    ("text", "frontend", "hooks"),
    [
        ("10.96.0.10:53/UDP", "10.96.0.10:53/UDP", ("connect4", "sendmsg4")),
        ("10.96.0.10:53/udp", "10.96.0.10:53/UDP", ("connect4", "sendmsg4")),
        ("10.96.0.10:80/TCP", "10.96.0.10:80/TCP", ("connect4",)),
        ("[fd00::10]:80/TCP", "[fd00::10]:80/TCP", ("connect6",)),
        ("[::ffff:10.96.0.10]:53/UDP", "10.96.0.10:53/UDP", ("connect6", "sendmsg4")),
    ],
)
def test_a_call_has_the_frontend_of_the_maps_and_the_hooks_that_see_it(
    text: str, frontend: str, hooks: tuple[str, ...]
) -> None:
    call = parse_call(text)
    assert (str(call.frontend), call.hooks) == (frontend, hooks)


def test_a_call_to_a_mapped_address_prints_as_it_was_given() -> None:
    assert str(parse_call("[::ffff:10.0.0.1]:53/UDP")) == "[::ffff:a00:1]:53/UDP"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:53",
        "10.0.0.1:0/UDP",
        "10.0.0.1:65536/UDP",
        "10.0.0.1:53/SCTP",
        "[10.0.0.1]:53/UDP",
        "fd00::1:53/UDP",
        "dns:53/UDP",
        "[fe80::1%eth0]:53/UDP/x",
        "10.0.0.1:٥٣/UDP",
    ],
)
def test_any_other_call_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(WrongUsage, match=r"^--to: .* is wrong; it must be IP:PORT/PROTO, such as"):
        parse_call(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("host", ClientKind.HOST),
        ("pid:42", ClientKind.PROCESS),
        ("cgroup:/sys/fs/cgroup/kubepods", ClientKind.CGROUP),
        ("kube-system/node-local-dns-x7f2p", ClientKind.POD),
        ("host/host", ClientKind.POD),
    ],
)
def test_a_client_is_one_of_four_kinds(text: str, kind: ClientKind) -> None:
    assert parse_client(text).kind == kind


@pytest.mark.parametrize(
    "text", ["", "web", "/web", "default/", "a/b/c", "pid:", "pid:-1", "pid:x", "cgroup:", "Pod:a/b"]
)
def test_any_other_client_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(WrongUsage, match=r"it must be NAMESPACE/POD, host, pid:N or cgroup:PATH$"):
        parse_client(text)
