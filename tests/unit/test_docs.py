"""What README and docs point at is there, and the settings that they show are ones that the agent takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("k8s/examples/*/README.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
INSTALLATION = ROOT / "docs" / "installation.md"


def links(path: Path) -> list[tuple[str, str]]:
    """File and heading of every link within the repository."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text())
    return [(file, heading) for file, heading in found if "://" not in file]


def headings(path: Path) -> set[str]:
    """As GitHub makes them into anchors."""
    without_code = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for file, heading in links(path):
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {(path.parent / file).resolve() for path in DOCUMENTS for file, _ in links(path)}
    assert {path for path in DOCUMENTS if ROOT / "docs" in path.parents} <= reached


def config_maps() -> dict[str, str]:
    """Name -> the configuration in it, of those that docs/installation.md has for k8s/kustomization.yaml."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", INSTALLATION.read_text(), re.DOTALL | re.MULTILINE)
    patches = [each["patch"] for block in blocks for each in yaml.safe_load(block).get("patches", ())]
    objects: list[Any] = [yaml.safe_load(patch) for patch in patches]
    return {
        each["metadata"]["name"]: each["data"]["agent.yaml"]
        for each in objects
        if isinstance(each, dict) and each["kind"] == "ConfigMap"
    }


@pytest.mark.parametrize("name", ["balancing-agent", "balancing-controller"])
def test_a_configuration_that_is_shown_is_valid_and_keeps_what_the_pods_depend_on(name: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(config_maps()[name])
    shown = load(path, {})
    documents = yaml.safe_load_all((ROOT / "k8s" / "install.yaml").read_text())
    (installed,) = [
        each for each in documents if each and each["kind"] == "ConfigMap" and each["metadata"]["name"] == name
    ]
    path.write_text(installed["data"]["agent.yaml"])
    fresh = load(path, {})
    assert (shown.datapath.bpffs, shown.health, shown.metrics) == (fresh.datapath.bpffs, fresh.health, fresh.metrics)
    assert [str(each) for each in shown.redirect.address_cidrs] == ["169.254.0.0/16"]
