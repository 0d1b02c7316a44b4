"""What README and docs point at is there (pages, headings, files, tests, maps, rules), and the settings that they show
are ones that the agent takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bpf.build import MAP_NAMES, SHARED_MAPS
from config.load import load

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("k8s/examples/*/README.md")])
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
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in DOCUMENTS and page not in reached:
            reached.add(page)
            waiting += [(page.parent / file).resolve() for file, _ in links(page) if file]
    assert {path for path in DOCUMENTS if ROOT / "docs" in path.parents} <= reached


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_code_blocks_begin_and_end_on_lines_of_their_own(path: Path) -> None:
    fences = [line.strip() for line in path.read_text().splitlines() if "```" in line]
    assert all(re.fullmatch(r"```\w*", fence) for fence in fences)
    assert len(fences) % 2 == 0


def test_the_readme_shows_lost_lookups_as_the_page_has_them() -> None:
    def rows(page: str) -> list[str]:
        return [line for line in (ROOT / page).read_text().splitlines() if re.search(r"\d of \d.*\d ms", line)]

    assert rows("README.md")
    assert set(rows("README.md")) <= set(rows("docs/lost-lookups.md"))


CODE = [
    ROOT / "run.py",
    *(
        path
        for folder in ("actors", "bpf", "config", "k8s", "tests")
        for path in sorted(ROOT.glob(f"{folder}/**/*"))
        if path.suffix in {".py", ".c", ".h", ".yaml"}
    ),
]
FOLDERS = "actors|bpf|config|docs|k8s|tests"


def named_paths(text: str) -> set[str]:
    """What looks like the path of a file or folder of the repository; of a pattern (`tests/unit/*.py`) the folder."""
    return {found.rstrip(".") for found in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*", text)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_files_that_a_page_names_are_there(path: Path) -> None:
    assert not {name for name in named_paths(path.read_text()) if not (ROOT / name).exists()}


def test_tests_that_a_page_names_are_there() -> None:
    named = {name for page in DOCUMENTS for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named <= {name for path in CODE for name in re.findall(r"def (test_\w+)\(", path.read_text())}


def test_pages_that_the_code_cites_are_there() -> None:
    cited = {name for path in CODE for name in re.findall(r"\bdocs/[\w/.-]+\.md\b", path.read_text())}
    assert not {name for name in cited if not (ROOT / name).exists()}


RULES = ROOT / "docs" / "rules.md"


def cited_rules() -> Iterator[tuple[str, str]]:
    """Rule and file, of comments, docstrings and names of tests (`test_p8_...`)."""
    for path in CODE:
        for number in re.findall(r"\bP(\d{1,2})\b|\btest_p(\d{1,2})_", path.read_text()):
            yield f"P{''.join(number)}", str(path.relative_to(ROOT))


def test_every_rule_that_the_code_cites_is_explained() -> None:
    explained = set(re.findall(r"^## (P\d+) ", RULES.read_text(), re.MULTILINE))
    assert not {f"{rule} in {file}" for rule, file in cited_rules() if rule not in explained}


def test_the_architecture_names_the_writer_of_every_kernel_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Kernel maps")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", table, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted((*MAP_NAMES, *SHARED_MAPS))
    for name, writers in rows:
        files = [ROOT / writer for writer in named_paths(writers)]
        assert files and all(name in file.read_text().lower() for file in files), name


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
