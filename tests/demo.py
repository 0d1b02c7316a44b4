"""`make demo`: both of our users' example policies redirect real connections on this machine's kernel, step by step.

Network namespaces and cgroups stand for a node's Pods and for a remote cluster that answers at the same addresses.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path

import yaml

from bpf.errors import DatapathError
from tests.kernel_ready import obstacles
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import CLUSTER_IP, VIP, Lab, Manifest
from tests.lab.processes import ROOT, wait_until

FRONTENDS = ((VIP, 8080), (VIP, 80), (CLUSTER_IP, 8080), (CLUSTER_IP, 80))
METRICS = ("redirects_total", "passes_total", "backends", "policy_state", "program_attached")


class Demo:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.failed = 0
        self.policies: dict[str, Manifest] = {}
        self.remote = lab.remote
        self.backend = lab.pod("local-pod")
        self.client = lab.pod("client")
        for process in (self.remote, self.backend):
            process.do("serve", address="0.0.0.0", port=80, protocol="TCP")
        # Port 8080 has a remote server at one address only. At the other one nobody answers without the policy.
        self.remote.do("serve", address=VIP, port=8080, protocol="TCP")
        for name in ("address-frontend", "service-frontend"):
            self.policies[name] = yaml.safe_load((ROOT / "k8s" / "examples" / f"{name}.yaml").read_text())

    def run(self) -> None:
        began = time.monotonic()
        service = manifests.service(ports=(("p1", 8080, "TCP"), ("p2", 80, "TCP")))
        service["spec"]["clusterIPs"] = [CLUSTER_IP]
        self.lab.write("service", service)
        self.lab.write("pod", manifests.pod(self.backend))
        say("1. Before: no policy. The remote cluster answers, or nobody does.")
        normal = {frontend: self.call(frontend) for frontend in FRONTENDS}
        for frontend in FRONTENDS:
            self.show(frontend, self.is_normal(normal, frontend))

        say(
            "2. The agent starts, with the two example policies. The local Pod answers; getpeername shows the frontend."
        )
        self.lab.write("policies", *self.policies.values())
        agent = self.lab.agent()
        self.expect_all_local()

        say("3. The local Pod is no longer Ready: calls take the normal way again.")
        self.lab.write("pod", manifests.pod(self.backend, ready=False))
        wait_until(lambda: not agent.inspect("frontends"), "the frontends are gone")
        for frontend in FRONTENDS:
            self.show(frontend, self.is_normal(normal, frontend))

        say("4. The Pod is Ready again: so is the redirect.")
        self.lab.write("pod", manifests.pod(self.backend))
        wait_until(lambda: len(agent.inspect("frontends")) == len(FRONTENDS), "the frontends are back")
        self.expect_all_local()

        self.limit(agent)

        say("6. The agent is killed (kill -9) and started again, while the client calls without a pause.")
        self.client.do("load_start", address=VIP, port=80, protocol="TCP", threads=2)
        agent.kill()
        wait_until(lambda: sum(self.client.do("load_tally")["tally"].values()) > 200, "200 calls without an agent")
        agent.start()
        tally = self.client.do("load_stop")["tally"]
        self.check(set(tally) == {"local-pod"}, f"{sum(tally.values())} calls, answered by: {tally}")
        self.expect_all_local()

        say("7. What is installed (run.py inspect), and the main metrics.")
        for view in ("policies", "frontends"):
            print(agent.command("inspect", view).stdout)
        for line in agent.fetch("/metrics").splitlines():
            if line.startswith(tuple(f"localredirect_{name}" for name in METRICS)) and not line.endswith(" 0.0"):
                print("   " + line)

        say("8. The agent is stopped, and everything taken out of the kernel (run.py detach).")
        self.check(agent.terminate() == 0, "stopped by SIGTERM, exit code 0")
        lines = agent.command("detach").stdout.splitlines()
        self.check(bool(lines), f"{len(lines)} links, programs and maps removed")
        for frontend in FRONTENDS:
            self.show(frontend, self.is_normal(normal, frontend))
        print(f"\n{time.monotonic() - began:.0f} s")

    def limit(self, agent: Agent) -> None:
        say("5. A limit of 5 redirects a second for the address policy: 40 calls, the rest pass to the remote.")
        limited = copy.deepcopy(self.policies["address-frontend"])
        limited["spec"]["config"] = {"redirectQosLimit": 5}
        self.lab.write("policies", limited, self.policies["service-frontend"])
        wait_until(lambda: any(row["limit"] == 5 for row in agent.inspect("qos")), "the limit is installed")
        began = time.monotonic()
        answers = [self.call((VIP, 80))[0] for _ in range(40)]
        windows = int(time.monotonic() - began) + 2
        local = answers.count("local-pod")
        text = f"{local} of 40 calls reached the local Pod, {answers.count('remote')} the remote"
        self.check(5 <= local <= 5 * windows and local + answers.count("remote") == 40, text)
        self.lab.write("policies", *self.policies.values())
        wait_until(lambda: not agent.inspect("qos"), "the limit is gone")

    def call(self, frontend: tuple[str, int]) -> tuple[str, str]:
        """Who answered, and the peer that getpeername showed. If the call failed: "nobody", and the error."""
        answer = self.client.do("tcp", address=frontend[0], port=frontend[1])
        if "error" in answer:
            return "nobody", answer["error"].split(":")[0]
        return answer["who"], "{}:{}".format(*answer["peer"])

    def is_normal(self, normal: dict[tuple[str, int], tuple[str, str]], frontend: tuple[str, int]) -> bool:
        return self.call(frontend) == normal[frontend] and normal[frontend][0] in {"remote", "nobody"}

    def expect_all_local(self) -> None:
        for frontend in FRONTENDS:
            self.show(frontend, self.call(frontend) == ("local-pod", f"{frontend[0]}:{frontend[1]}"))

    def show(self, frontend: tuple[str, int], as_expected: bool) -> None:
        who, peer = self.call(frontend)
        self.check(as_expected, f"{f'{frontend[0]}:{frontend[1]}':<18} answered by {who:<10} getpeername: {peer}")

    def check(self, holds: bool, text: str) -> None:
        print(f"   {'ok  ' if holds else 'FAIL'} {text}")
        self.failed += not holds


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def leftovers(lab: Lab) -> list[Path]:
    places = (lab.bpffs, lab.cgroup, lab.folder, *Path("/run/netns").glob(f"{lab.prefix}-*"))
    return [place for place in places if place.exists()]


def main() -> int:
    reasons = obstacles()
    if reasons:
        print("the demo cannot run: " + "; ".join(reasons), file=sys.stderr)
        return 1
    lab = Lab()
    try:
        with lab:
            demo = Demo(lab)
            demo.run()
    except (AssertionError, DatapathError) as error:
        print(f"the demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("the demo was interrupted, and has cleaned up", file=sys.stderr)
        return 1
    left = leftovers(lab)
    print("Nothing is left behind." if not left else f"Left behind: {', '.join(map(str, left))}")
    print(
        "Every step showed what it should."
        if not demo.failed
        else f"{demo.failed} steps did not show what they should."
    )
    return 1 if left or demo.failed else 0


if __name__ == "__main__":
    sys.exit(main())
