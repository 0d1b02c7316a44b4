"""The agent stops, starts and is replaced, and connections do not notice (promises 1 and 2, P10)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import REMOTE, VIP, Lab, PodProcess
from tests.lab.processes import wait_until


@pytest.fixture
def fresh_agent(lab: Lab, pods: list[PodProcess]) -> Iterator[Agent]:
    """Started for one test. Both of its policies are in force."""
    lab.write("pods", *map(manifests.pod, pods[:2]))
    lab.write("policies", manifests.policy("vip", ports=((53, "UDP"), (80, "TCP")), backend_port=53))
    policy = manifests.policy("web", ports=((80, "TCP"),), backend_port=80)
    lab.write("policies", manifests.policy("dns"), policy)
    made = lab.agent(datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    wait_until(lambda: len(made.inspect("frontends")) == 2, "both frontends")
    yield made
    made.kill()
    made.command("detach")


def test_kill_9_and_restart_under_load_fail_no_call_and_move_no_connection(
    fresh_agent: Agent, client: PodProcess
) -> None:
    kept = client.do("keep", key="k", address=VIP, port=80)
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    fresh_agent.kill()
    before = fresh_agent.inspect("programs")
    fresh_agent.start()
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1"}, tally
    assert fresh_agent.inspect("programs") == before, "the pins were adopted"
    assert "adopting" in fresh_agent.log.read_text()
    assert client.do("use", key="k") == kept


def test_sigterm_leaves_the_programs_and_detach_leaves_nothing(
    lab: Lab, fresh_agent: Agent, client: PodProcess
) -> None:
    assert fresh_agent.terminate() == 0
    assert client.do("udp", address=VIP, port=53)["who"] != REMOTE
    removed = fresh_agent.command("detach").stdout
    assert "removed link connect4" in removed
    assert client.do("udp", address=VIP, port=53)["who"] == REMOTE
    assert not lab.bpffs.exists()
    for view in ("policies", "frontends", "backends", "affinity", "qos", "programs"):
        assert fresh_agent.inspect(view) == []


def test_a_second_agent_says_so_and_leaves_the_first_alone(lab: Lab, fresh_agent: Agent, client: PodProcess) -> None:
    second = Agent(lab, {})
    result = second.command()
    assert result.returncode == 1
    assert "another agent" in result.stderr
    assert fresh_agent.fetch("/readyz") == "ok\n"
    assert client.do("udp", address=VIP, port=53)["who"] != REMOTE


def test_a_stopped_agent_loses_its_lease_and_gets_it_back(lab: Lab, fresh_agent: Agent, client: PodProcess) -> None:
    fresh_agent.terminate()
    short = lab.agent(datapath__lease_seconds=3, datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    assert short.process
    short.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == REMOTE, "the lease is over")
    short.process.send_signal(signal.SIGCONT)
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] != REMOTE, "the lease is back")
    passes = {row["policy"]: row["passes"]["lease"] for row in short.inspect("policies")}
    assert passes["dns"] >= 1
    short.terminate()


def test_an_agent_that_was_stopped_sends_no_call_to_a_pod_that_was_deleted_meanwhile(
    lab: Lab, fresh_agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    """A listing that began after the end of the lease renews it, and not the first probe
    (docs/decisions/0006-lease.md)."""
    fresh_agent.terminate()
    short = lab.agent(datapath__lease_seconds=3, datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    assert short.process
    for gone, stays in ((0, 1), (1, 0)):
        lab.write("pods", *map(manifests.pod, pods[:2]))
        wait_until(lambda: len(short.inspect("backends")) == 4, "both Pods serve")
        short.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == REMOTE, "the lease is over")
        # Write many files, so that it takes long to read what has happened.
        for number in range(150):
            lab.write(f"noise{number}", *[manifests.pod(pods[2], ready=False)])
        lab.write("pods", manifests.pod(pods[stays]))
        client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
        short.process.send_signal(signal.SIGCONT)
        wait_until(lambda: not short.status()["datapath"]["lease_withheld"], "the lease is renewed", 30)
        # The load as well: its threads may not have had their turn since the first call that was redirected.
        wait_until(lambda: len(client.do("load_tally")["tally"]) > 1, "calls are redirected again")
        tally = client.do("load_stop")["tally"]
        assert set(tally) == {REMOTE, f"pod{stays}"}, (gone, tally)
    assert short.fetch("/readyz") == "ok\n"
    short.terminate()


def test_another_build_is_replaced_without_a_gap(lab: Lab, fresh_agent: Agent, client: PodProcess) -> None:
    """Other map sizes make another build, as other programs do. Open sockets still see the frontend (P15)."""
    kept = client.do("keep", key="upgrade", address=VIP, port=80)
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    old = {row["build"] for row in fresh_agent.inspect("programs")}
    redirects = ("connect", "sendmsg")
    kept_links = {row["link_id"] for row in fresh_agent.inspect("programs") if row["hook"].startswith(redirects)}
    fresh_agent.terminate()
    bigger = lab.agent(datapath__max_frontends=100, datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1"}, tally
    assert {row["build"] for row in bigger.inspect("programs")}.isdisjoint(old)
    assert kept_links < {row["link_id"] for row in bigger.inspect("programs")}, "swapped in place"
    assert client.do("use", key="upgrade") == kept
    assert client.do("udp", address=VIP, port=53)["source"] == [VIP, 53]
    bigger.terminate()


def test_while_a_build_is_compiled_for_longer_than_the_lease_calls_take_the_normal_way_and_the_log_says_why(
    lab: Lab, fresh_agent: Agent, client: PodProcess
) -> None:
    """Nobody watches the Pods meanwhile, so nobody renews the lease of the attached build."""
    fresh_agent.terminate()
    former = lab.agent(datapath__lease_seconds=1)
    former.terminate()
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    bigger = lab.agent(datapath__lease_seconds=1, datapath__max_frontends=200)
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] != REMOTE, "redirects are back")
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1", REMOTE}, tally
    assert "lost its lease while this build was compiled" in bigger.log.read_text()
    bigger.terminate()


def test_fifty_changes_a_second_under_load_fail_nothing_and_reach_no_removed_backend(
    lab: Lab, fresh_agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    for i in range(100):
        lab.write("pods", manifests.pod(pods[0]), manifests.pod(pods[1], ready=i % 2 == 0))
        wait_until(lambda i=i: len(fresh_agent.inspect("backends")) == 2 + 2 * (i % 2 == 0), "the change is installed")  # type: ignore[misc]
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1"}, tally
    assert client.do("burst", targets=[(VIP, 53)], calls=200, threads=2)["tally"] == {"pod0": 200}


def test_a_policy_that_does_not_fit_in_a_map_fails_until_there_is_room(
    lab: Lab, fresh_agent: Agent, client: PodProcess
) -> None:
    fresh_agent.terminate()
    fresh_agent.command("detach")
    small = lab.agent(datapath__max_frontends=2, datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    lab.write("more", manifests.policy("zmore", ip="169.254.0.91"))
    wait_until(lambda: small.states().get("zmore") == "Failed", "it does not fit")
    assert "max_frontends" in small.message("zmore")
    assert client.do("udp", address=VIP, port=53)["who"] != REMOTE
    assert client.do("udp", address="169.254.0.91", port=53)["who"] == REMOTE
    lab.write("policies", manifests.policy("dns"))
    wait_until(lambda: small.states().get("zmore") == "Active", "there is room now")
    assert client.do("udp", address="169.254.0.91", port=53)["who"] != REMOTE
    small.terminate()


def test_a_policy_changes_without_a_failed_call_in_a_map_that_has_no_room_for_both_versions(
    lab: Lab, fresh_agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    fresh_agent.terminate()
    fresh_agent.command("detach")
    lab.write("policies", manifests.policy("dns"))
    lab.write("pods", *map(manifests.pod, pods))
    small = lab.agent(datapath__max_backends=4, datapath__cgroup=str(lab.cgroup), datapath__bpffs=str(lab.bpffs))
    wait_until(lambda: len(small.inspect("backends")) == 3, "three backends in a map of four")
    client.do("load_start", address=VIP, port=53, protocol="UDP", threads=2)
    for ready in (False, True) * 10:
        lab.write("pods", *map(manifests.pod, pods[:1]), manifests.pod(pods[1], ready=ready), manifests.pod(pods[2]))
        wait_until(lambda ready=ready: len(small.inspect("backends")) == 2 + ready, "the change is installed")  # type: ignore[misc]
    tally = client.do("load_stop")["tally"]
    assert set(tally) == {"pod0", "pod1", "pod2"}, tally
    small.wait_states({"dns": "Active"})
    small.terminate()
