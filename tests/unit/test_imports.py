"""Imports go one way (DESIGN section 8): read from the source, so that a late import counts as well."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "config": {"config"},
    "bpf": {"bpf", "config"},
    "k8s": {"k8s", "config"},
    "actors": {"actors", "bpf", "k8s", "config"},
    "run": {"run", "actors", "bpf", "k8s", "config"},
}
"""Package -> packages of ours that it may import."""
HOMES = {"bcc": "bpf", "kubernetes": "k8s", "pykka": "actors"}
"""Library -> the one package that imports it; of bpf/ it is the loader alone that imports bcc."""
SHARED = {"actors.base", "actors.messages"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in [*ROOT.glob("*.py"), *(file for package in ALLOWED for file in ROOT.glob(f"{package}/**/*.py"))]
}


def _package(module: str) -> str:
    return module.partition(".")[0]


def _imports(path: Path) -> set[str]:
    """Names of the imported modules; of `from a import b` both `a` and `a.b`, as b may be a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where it leads"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _defines_an_actor(path: Path) -> bool:
    """A class that derives from one named ...Actor or ...Watcher, the bases that we have."""
    classes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))
    bases = {ast.unparse(base).split(".")[-1].split("[")[0] for each in classes for base in each.bases}
    return any(base.endswith(("Actor", "Watcher")) for base in bases)


ACTORS = {name for name, path in MODULES.items() if name.startswith("actors.") and _defines_an_actor(path)} - SHARED


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_follow_the_arrows(module: str) -> None:
    imported = {_package(name) for name in _imports(MODULES[module])}
    assert imported & ALLOWED.keys() <= ALLOWED[_package(module)]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_library_is_imported_in_its_own_package_alone(module: str) -> None:
    imported = {_package(name) for name in _imports(MODULES[module])}
    strangers = {library for library, home in HOMES.items() if library in imported and home != _package(module)}
    assert strangers <= ({"pykka"} if module == "run" else set())
    assert "bcc" not in imported or module == "bpf.loader"


@pytest.mark.parametrize("module", sorted(ACTORS))
def test_actors_share_messages_and_their_base_alone(module: str) -> None:
    # The watchers' common base is an actor module too; it is no actor that runs.
    others = (_imports(MODULES[module]) & ACTORS) - {module, "actors.watcher"}
    assert not others, f"{module} imports actors: it must send messages"
