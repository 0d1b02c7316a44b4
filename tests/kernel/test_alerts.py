"""What alerts and panels name exists at the endpoint of a real agent, and Prometheus' own tool accepts the endpoint."""

from __future__ import annotations

from tests.expressions import OF_CONTROLLER_ONLY, Selected, complaints, exported, selected
from tests.lab import manifests
from tests.lab.agent import Agent
from tests.lab.lab import VIP, Lab, Manifest, PodProcess
from tests.lab.processes import wait_until


def checked_policy() -> Manifest:
    made = manifests.policy("dns")
    made["spec"]["backend"]["healthCheck"] = {"tcp": {}, "port": 80}
    return made


def test_every_metric_and_label_that_an_alert_or_a_panel_names_is_exported(
    lab: Lab, agent: Agent, client: PodProcess, pods: list[PodProcess]
) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", checked_policy())
    named = {each for each in selected() if each.metric not in OF_CONTROLLER_ONLY}
    wait_until(lambda: client.do("udp", address=VIP, port=53)["who"] == "pod0", "calls are redirected")

    def missing() -> set[Selected]:
        return named - exported(agent.fetch("/metrics"))

    wait_until(lambda: not missing(), lambda: f"all of them are exported; missing: {missing()}")


def test_promtool_has_no_complaint_about_an_agents_metrics(lab: Lab, agent: Agent, pods: list[PodProcess]) -> None:
    lab.write("pod", manifests.pod(pods[0]))
    lab.write("policies", checked_policy())
    wait_until(lambda: 'localredirect_redirects_total{policy="dns"}' in agent.fetch("/metrics"), "the policy is known")
    assert complaints(agent.fetch("/metrics")) == ""
