"""`run.py explain` and the programs decide alike: generated rows in real maps, and real calls of real processes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import ClassVar

import pytest

from bpf import libbpf
from bpf.cgroups.hierarchy import ancestors
from bpf.explaining.call import parse_call, parse_client
from bpf.explaining.checks import AGENT, Explanation, Verdict, explain
from bpf.explaining.clients import find_client
from bpf.explaining.facts import Attached, Client
from bpf.explaining.installed import read_attached, read_facts
from bpf.lifecycle.datapath import Datapath
from bpf.maps import hashes, packing
from bpf.maps.pinned_maps import PinnedMaps
from bpf.maps.rows import AffinityRow, FrontendFlag, FrontendRow, PolicyRow
from config.domain.addresses import Endpoint, Frontend, Protocol
from tests.lab.affinity import pack_affinity
from tests.lab.lab import Lab, PodProcess
from tests.lab.rows import small_datapath, write_filter
from tests.lab.worker import CLOCK_MONOTONIC_COARSE

CASES = 500
SEED = 1010
POLICY_ID = 7
NANOSECONDS = 10**9
ZERO = bytes(4)


@pytest.fixture(scope="module")
def datapath(lab: Lab) -> Iterator[Datapath]:
    """Attached to a cgroup of its own, without the hooks that would hide from a program where it was redirected."""
    with small_datapath(lab, "explained", max_frontends=8, max_backends=8, max_affinity=8) as made:
        made.attach_all()
        for family in "46":
            with libbpf.opened_pin(made.bpffs / "links" / f"getpeername{family}") as link:
                libbpf.link_detach(link)
        yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    process: PodProcess
    cookie: int
    ancestors: tuple[int, ...]

    @classmethod
    def of(cls, process: PodProcess) -> Caller:
        assert process.cgroup
        path, top_level = ancestors(process.cgroup)
        assert top_level == 0, "the tests need the whole hierarchy"
        return cls(process=process, cookie=process.do("cookie")["cookie"], ancestors=path)


@pytest.fixture(scope="module")
def callers(lab: Lab, datapath: Datapath, pods: list[PodProcess]) -> list[Caller]:
    del datapath  # it makes the cgroup
    places = [
        ("backend", "explained/kubepods/burstable/podb/ctr", pods[0]),
        ("other", "explained/kubepods/podo/ctr/nested/deeper", pods[1]),
        ("daemon", "explained/daemon", None),
        ("top", "explained", None),
    ]
    return [Caller.of(lab.process(name, cgroup=cgroup, beside=beside)) for name, cgroup, beside in places]


class Case:
    """Writes rows that a random generator chooses, for one call of one client."""

    _known: ClassVar[dict[tuple[str, tuple[str, ...]], Attached]] = {}

    def __init__(self, generator: random.Random, maps: PinnedMaps, callers: list[Caller]) -> None:
        self._generator, self._maps = generator, maps
        self.caller, self._other = generator.sample(callers, 2)
        self.mapped = generator.random() < 0.2
        family = 4 if self.mapped else generator.choice((4, 6))
        self.protocol = generator.choice((Protocol.UDP, Protocol.UDP, Protocol.TCP))
        address = ip_address(f"10.200.0.{generator.randint(1, 250)}" if family == 4 else "fd20::7")
        self.frontend = Frontend(address, generator.choice((53, 80)), self.protocol)
        self._backends = [
            Endpoint(ip_address(f"10.78.0.{i}" if family == 4 else f"fd78::{i}"), 5353) for i in range(1, 4)
        ]
        self._generation = generator.randint(2, 2**40)
        self._has_row = self._often()
        self._write_agent()
        self._write_rows()

    def _often(self) -> bool:
        return self._generator.random() < 0.85

    def _write_agent(self) -> None:
        choose, now = self._generator.choice, time_ns()
        host = choose((self.caller.cookie, self._other.cookie, self._other.cookie, 1))
        self._maps.write_config(host_netns=host, lease_ns=choose((0, 100 * NANOSECONDS)))
        self._maps.renew_lease(now if self._often() else choose((0, now - 200 * NANOSECONDS)))
        agents = (0, self._other.ancestors[-1], self.caller.ancestors[-2])
        agent = choose(agents) if self._often() else self.caller.ancestors[-1]
        self._maps["agent_cgroup"].update(ZERO, agent.to_bytes(8, "little"))

    def _write_rows(self) -> None:
        choose, maps = self._generator.choice, self._maps
        for name in ("frontends", "members", "backend_cgroups", "windows", "affinity", "counters", "policies"):
            for key, _ in list(maps[name].items()):
                maps[name].delete(key)
        write_filter(maps, hashes.filter_bits(self.frontend) if self._has_row else self._some_bits())
        maps["policies"].update(
            packing.POLICY_ID.pack(POLICY_ID), packing.pack_policy(PolicyRow(name="generated", limit=0))
        )
        maps.write_zeroes("counters", POLICY_ID)
        limit = choose((0, 0, 5))
        self._write_window()
        self._write_cgroups()
        if not self._has_row:
            return
        used = self._backends[: self._generator.randint(1, 2)]
        first, of_backends = choose((0, 3)), choose((self._generation, self._generation - 1))
        maps["backends"].update_many(packing.pack_backends(of_backends, first, used))
        maps.write_members((self.frontend, each) for each in used)
        level = len(self.caller.ancestors) - 1
        skip_from, skip_to = choose(
            ((1, 0), (level, level), (level - 1, level), (0, 9), (level + 1, level + 2), (1, 1))
        )
        self._write_affinity(used)
        maps.write_frontend(
            FrontendRow(
                generation=self._generation,
                frontend=self.frontend,
                flags=choose((FrontendFlag(0), FrontendFlag.NO_HOST)) | self._mode(),
                policy_id=POLICY_ID,
                first=first,
                count=len(used),
                backends_generation=of_backends,
                limit=limit,
                affinity_seconds=choose((0, 100)),
                skip_from=skip_from,
                skip_to=skip_to,
                percentage=100 if self._often() else choose((1, 50, 99)),
                cgroup_bits=self._cgroup_bits,
            )
        )

    def _mode(self) -> FrontendFlag:
        return FrontendFlag(0) if self._often() else FrontendFlag.SHADOW

    def _some_bits(self) -> tuple[int, ...]:
        """Those that let a call without a row through the first filter, through both, or through none."""
        bits = hashes.filter_bits(self.frontend)
        return self._generator.choice(((), bits[:1], bits))

    def _write_window(self) -> None:
        """Seconds are far in the past or in the future, so that the test does not depend on when it runs."""
        now = time_ns() // NANOSECONDS
        window = self._generator.choice((None, (now - 5, 100), (now + 5000, 4), (now + 5000, 5), (now + 5000, 9)))
        if window is not None:
            second, calls = window
            value = (second << 32 | calls).to_bytes(8, "little")
            self._maps["windows"].update(packing.POLICY_ID.pack(POLICY_ID), value)

    def _write_cgroups(self) -> None:
        choose = self._generator.choice
        chosen = (
            (choose(self._other.ancestors), POLICY_ID),
            (choose(self.caller.ancestors), POLICY_ID + 1),
            (choose(self.caller.ancestors), choose((POLICY_ID, POLICY_ID + 1))),
        )
        self._cgroup_bits = hashes.cgroup_bits(cgroup for cgroup, policy_id in chosen if policy_id == POLICY_ID)
        for cgroup, policy_id in chosen:
            self._maps["backend_cgroups"].update(packing.pack_backend_cgroup(cgroup, policy_id), packing.PRESENT)

    def _write_affinity(self, used: list[Endpoint]) -> None:
        choose, now = self._generator.choice, time_ns()
        for client in choose(((), (self.caller.cookie,), (self.caller.cookie,), (2**40,))):
            row = AffinityRow(
                client_netns=client,
                frontend=self.frontend,
                backend=choose((used[-1], self._backends[-1])),
                generation=choose((self._generation, self._generation - 1)),
                last_used_ns=choose((now, now, now - 50 * NANOSECONDS, now - 200 * NANOSECONDS)),
            )
            self._maps["affinity"].update(*pack_affinity(row))

    def explain(self, datapath: Datapath) -> Explanation:
        address = f"::ffff:{self.frontend.address}" if self.mapped else str(self.frontend.address)
        call = parse_call(f"{bracketed(address)}:{self.frontend.port}/{self.protocol}")
        assert call.frontend == self.frontend
        name = parse_client(f"pid:{self.caller.process.pid}")
        client = find_client(name, self._maps.config().host_netns)
        attached = self._attached(datapath, call.hooks, client)
        return explain(read_facts(self._maps, call, client, attached))

    def _attached(self, datapath: Datapath, hooks: tuple[str, ...], client: Client) -> Attached:
        """Read once for each caller, since it is the same in all cases."""
        key = (self.caller.process.name, hooks)
        if key not in self._known:
            self._known[key] = read_attached(datapath.bpffs, hooks, client)
        return self._known[key]

    def call(self) -> tuple[str | None, Endpoint | None]:
        """What the programs did: `redirect`, the reason of a pass, or None for what is not counted; and where a UDP
        socket was sent."""
        answer = self.caller.process.do(
            "peer",
            address=str(self.frontend.address),
            port=self.frontend.port,
            protocol=self.protocol.name,
            mapped=self.mapped,
        )
        assert "error" not in answer, answer
        counted = self._maps.counters()[POLICY_ID]
        found = {reason.label: number for reason, number in counted.passes.items() if number}
        found |= {"redirect": counted.redirects} if counted.redirects else {}
        assert sum(found.values()) <= 1
        peer = answer.get("peer")
        return next(iter(found), None), Endpoint(ip_address(peer[0]), peer[1]) if peer else None


def bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def time_ns() -> int:
    return time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)


def test_explain_says_what_the_programs_do_with_generated_rows_and_callers(
    datapath: Datapath, callers: list[Caller]
) -> None:
    generator = random.Random(SEED)
    maps = datapath.maps
    seen: set[str | None] = set()
    for number in range(CASES):
        case = Case(generator, maps, callers)
        explained = case.explain(datapath)
        did, peer = case.call()
        context = f"case {number}: {explained}"
        expected = "redirect" if explained.verdict == Verdict.REDIRECT else explained.reason
        if explained.verdict == Verdict.NO_MATCH or explained.reason == AGENT:
            assert did is None, context
        else:
            assert did == expected, context
        if peer is not None and explained.verdict == Verdict.REDIRECT:
            assert peer in explained.backends, context
        elif peer is not None:
            assert peer == Endpoint(case.frontend.address, case.frontend.port), context
        seen |= {expected} | {"affinity" for _ in (explained.affinity,) if explained.affinity}
    expected_reasons = {"no_frontend", "agent", "lease", "from_host", "from_backend", "percentage", "qos", "shadow"}
    assert seen >= {"redirect", "affinity"} | expected_reasons


def test_a_call_that_meets_a_replaced_row_starts_over_and_passes_when_that_does_not_end(
    datapath: Datapath, callers: list[Caller]
) -> None:
    """Of the two places that the row names, one has another frontend's backend by now. Without starting over, half of
    the calls would pass."""
    maps, caller = datapath.maps, callers[0]
    frontend = Frontend(ip_address("10.200.0.251"), 53, Protocol.UDP)
    backend = Endpoint(ip_address("10.78.0.1"), 5353)
    maps.write_config(host_netns=1, lease_ns=0)
    maps["agent_cgroup"].update(ZERO, bytes(8))
    write_filter(maps, hashes.filter_bits(frontend))
    rows = [*packing.pack_backends(5, 0, [backend]), *packing.pack_backends(6, 1, [backend])]
    maps["backends"].update_many(rows)
    row = FrontendRow(generation=5, frontend=frontend, policy_id=POLICY_ID, first=0, count=2, backends_generation=5)
    for key, _ in list(maps["frontends"].items()):
        maps["frontends"].delete(key)
    maps.write_frontend(row)

    def peer() -> str:
        return str(caller.process.do("peer", address=str(frontend.address), port=53, protocol="UDP")["peer"][0])

    assert {peer() for _ in range(20)} == {str(backend.address)}
    whole = packing.pack_frontend_row(row)
    half_written = whole[:-16] + (4).to_bytes(8, "little") + whole[-8:]
    maps["frontends"].update(packing.pack_frontend(frontend), half_written)
    assert peer() == str(frontend.address)
