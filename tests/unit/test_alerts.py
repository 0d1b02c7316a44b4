"""The alerts and the dashboard that the chart brings: they fire when they should, are explained, and can be drawn.

tests/kernel/test_alerts.py compares them with what a real agent exports, test_controller_wiring.py with what a
controller exports.
"""

from __future__ import annotations

import re
import subprocess
from itertools import combinations
from pathlib import Path

import yaml

from actors.messages.reports import PolicyState
from actors.reporting.closer_state import CloserState
from bpf.maps.rows import PassReason
from tests.expressions import ALERTS, FILES, alerts, dashboard, panel_expressions, selected

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "alert_cases.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", str(CASES))


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    tests = yaml.safe_load(CASES.read_text())["tests"]
    firing = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each.get("exp_alerts")}
    assert firing == {alert["alert"] for alert in alerts()}


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    sections = re.findall(r"^## (LocalRedirect\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()], "in the same order"
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS.name}#{alert['alert'].lower()}"


def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression, "labels": {"panel": title}}
        for number, (title, expression) in enumerate(panel_expressions())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(path))


def test_states_and_reasons_that_expressions_name_exist() -> None:
    reasons = {each.value for each in selected() if each.label == "reason"}
    for metric, possible in (("policy_state", PolicyState), ("closer_state", CloserState)):
        states = {
            each.value for each in selected() if (each.metric, each.label) == (f"localredirect_{metric}", "state")
        }
        assert states and states <= {state.value for state in possible}, metric
    assert reasons and reasons <= {reason.label for reason in PassReason}


def test_every_metric_is_used_by_an_alert_or_a_panel() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## Reasons")[0], re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    used = {each.metric.removeprefix("localredirect_").removesuffix("_bucket") for each in selected()}
    assert documented - {"policy_conflicts"} == used, "policy_state says more than policy_conflicts"


def test_panels_do_not_overlap_and_each_has_its_own_number() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_panel_asks_the_chosen_data_source_and_nodes() -> None:
    board = dashboard()
    variables = {each["name"] for each in board["templating"]["list"]}
    assert variables == {"datasource", "node", "policy"}
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables, panel["title"]
            assert target["datasource"] == panel["datasource"]
            assert len(panel["targets"]) == len({each["refId"] for each in panel["targets"]})


def test_files_of_the_chart_are_read_as_they_are() -> None:
    """Helm puts them into its output as text, so a tab or a template in the JSON would break it."""
    assert "\t" not in ALERTS.read_text()
    assert "{{" not in re.sub(r"\{\{\w+\}\}", "", (FILES / "dashboard.json").read_text()), "legends only"
