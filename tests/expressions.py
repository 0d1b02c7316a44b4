"""The expressions of the alerts and of the dashboard in k8s/chart/files, and the metrics that they name."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client.parser import text_string_to_metric_families

FILES = Path(__file__).parents[1] / "k8s" / "chart" / "files"
ALERTS = FILES / "alerts.yaml"
DASHBOARD = FILES / "dashboard.json"
OF_CONTROLLER_ONLY = frozenset({"localredirect_api_writes_total"})


class Selected(NamedTuple):
    """What an expression asks for. `label` and `value` are "" for a metric as such."""

    metric: str
    label: str = ""
    value: str = ""


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panel_expressions() -> Iterator[tuple[str, str]]:
    """Title of a panel, and one of its expressions, in which Grafana's variables have values."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield (
                panel["title"],
                target["expr"].replace("$__rate_interval", "5m").replace("$policy", ".*").replace("$node", ".*"),
            )


def selected() -> set[Selected]:
    """All that the alerts and panels name: metrics, and values of their labels."""
    expressions = [alert["expr"] for alert in alerts()] + [expression for _, expression in panel_expressions()]
    found = set()
    for metric, matchers in re.findall(r"\b(localredirect_\w+)(?:\{([^}]*)\})?", "\n".join(expressions)):
        found.add(Selected(metric))
        for label, values in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
            found |= {Selected(metric, label, value) for value in values.split("|") if value not in ("", ".*")}
    return found


def exported(scraped: str) -> set[Selected]:
    """What the text of an endpoint has, in the same form."""
    found = set()
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            found.add(Selected(sample.name))
            found |= {Selected(sample.name, label, value) for label, value in sample.labels.items()}
    return found


def complaints(scraped: str) -> str:
    """What `promtool check metrics` says of the text of an endpoint; "" if nothing."""
    done = subprocess.run(["promtool", "check", "metrics"], input=scraped, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
