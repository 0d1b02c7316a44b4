"""`make bench`: runs every measurement and prints the tables."""

from __future__ import annotations

import sys

from tests.bench import cluster, events, health, hooks
from tests.bench.losses import measuring
from tests.cluster import ready
from tests.kernel_ready import obstacles
from tests.lab import manifests
from tests.lab.lab import VIP, Lab, PodProcess
from tests.lab.processes import wait_until

LOOKUPS = 5000


def lookups(client: PodProcess, backend: PodProcess) -> list[tuple[str, str]]:
    """Measures both in turn, so that a drift of the machine affects both alike."""
    rates: dict[str, list[float]] = {"redirected": [], "direct": []}
    lost = 0
    for _ in range(4):
        for name, address in (("redirected", VIP), ("direct", backend.address)):
            result = client.do("burst", targets=[(address, 53)], calls=LOOKUPS, threads=1)
            lost += LOOKUPS - result["tally"].get(backend.name, 0)
            rates[name].append(LOOKUPS / result["seconds"])
    redirected, direct = (sum(each) / len(each) for each in rates.values())
    text = f"{redirected:.0f}/s, {redirected / direct:.3f} of direct ({direct:.0f}/s), {lost} lost"
    return [("UDP lookups through the VIP, new socket each", text)]


def main() -> int:
    reasons = [*obstacles(), *ready.obstacles()]
    if reasons:
        print("the bench cannot run: " + "; ".join(reasons), file=sys.stderr)
        return 1
    rows: list[tuple[str, str]] = []
    with Lab() as lab:
        backend, client, other = (lab.pod(name) for name in ("backend", "client", "other"))
        backend.do("serve", address=backend.address, port=53, protocol="UDP")
        lab.write("pod", manifests.pod(backend))
        lab.write("policy", manifests.policy("vip"))
        agent = lab.agent(log__level="warning")
        wait_until(lambda: agent.states() == {"vip": "Active"}, "active")
        rows += hooks.measure(lab, agent, backend, (client, other))
        rows += lookups(client, backend)
        agent.terminate()
        agent.command("detach")
        lab.remove("pod")
        lab.remove("policy")
        rows += events.many_frontends(lab)
        rows += events.measure(lab)
        rows += health.measure(lab)
    ready.build_all()
    rows += cluster.measure()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name.ljust(width)}  {text}")
    print(f"\n{measuring.measure()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
