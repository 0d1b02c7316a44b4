"""Every file that repeats the version agrees with `config.version`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from config.version import VERSION

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["Dockerfile", *(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))]


def text(path: str) -> str:
    return (ROOT / path).read_text()


def test_the_chart_has_the_version_as_its_own_and_as_the_images_tag() -> None:
    chart = yaml.safe_load(text("k8s/chart/Chart.yaml"))
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_manifests_have_the_version_as_label_and_tag() -> None:
    manifests = text("k8s/install.yaml")
    assert set(re.findall(r"app\.kubernetes\.io/version: (.*)", manifests)) == {f'"{VERSION}"'}
    assert set(re.findall(r"image: (.*)", manifests)) == {f"localhost/localredirect:{VERSION}"}


def test_the_image_has_the_version_as_label() -> None:
    assert re.findall(r"image\.version=(\S+)", text("Dockerfile")) == [VERSION]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_that_build_the_image_give_the_version_as_the_tag(path: str) -> None:
    assert set(re.findall(r"REGISTRY/localredirect:(\S+)", text(path))) <= {VERSION}


def test_the_changelog_begins_with_the_version() -> None:
    """Changes since a release stand above it, below `Unreleased`."""
    released = [
        each for each in re.findall(r"^## \[(.*?)\]", text("CHANGELOG.md"), re.MULTILINE) if each != "Unreleased"
    ]
    assert released[0] == VERSION
