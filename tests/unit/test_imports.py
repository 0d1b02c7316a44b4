"""Imports go one way (docs/architecture.md): read from the source, so that a late import counts as well."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GROUND = {"config", "config.domain", "config.input"}
OBJECTS = {"k8s.objects", *GROUND}
API = {"k8s.api", *OBJECTS}
K8S = {"k8s.sources", "k8s.status", *API}
MESSAGES = {"actors.framework", "actors.messages", *K8S}
ROWS = {"bpf", "bpf.maps", *GROUND}
KERNEL = {"bpf.cgroups", "bpf.lifecycle", *ROWS}
MAY_IMPORT: dict[str, set[str]] = {
    "config.domain": set(),
    "config.input": set(),
    "config": {"config.domain", "config.input"},
    "bpf": GROUND,
    "bpf.maps": ROWS - {"bpf.maps"},
    "bpf.cgroups": {"bpf", *GROUND},
    "bpf.lifecycle": KERNEL - {"bpf.lifecycle"},
    "bpf.inspecting": KERNEL,
    "bpf.closing": KERNEL - {"bpf.cgroups"},
    "bpf.explaining": KERNEL,
    "bpf.monitoring": KERNEL | {"bpf.explaining"},
    "k8s": set(),
    "k8s.objects": GROUND,
    "k8s.api": OBJECTS,
    "k8s.sources": API,
    "k8s.election": API,
    "k8s.status": API,
    "k8s.commands": {"k8s.sources", *API},
    "actors.framework": {"config"},
    "actors.messages": MESSAGES - {"actors.messages"},
    "actors.watching": MESSAGES,
    "actors.resolving": MESSAGES - {"k8s.sources", "k8s.status", "k8s.api"},
    "actors.writing": MESSAGES - K8S | KERNEL,
    "actors.health": MESSAGES - K8S | {"bpf.cgroups", *GROUND},
    "actors.reporting": MESSAGES | KERNEL | {"bpf.monitoring"},
    "actors.controller": MESSAGES | {"actors.resolving"},
    "actors.commands": KERNEL
    | API
    | {"actors.framework", "bpf.inspecting", "bpf.explaining", "bpf.monitoring", "k8s.commands"},
    "actors": MESSAGES
    | {
        "bpf.lifecycle",
        "k8s.election",
        "actors.watching",
        "actors.resolving",
        "actors.writing",
        "actors.health",
        "actors.reporting",
        "actors.controller",
    },
    "run": {
        "actors",
        "actors.commands",
        "actors.framework",
        "actors.messages",
        "actors.watching",
        "bpf",
        "bpf.closing",
        "bpf.explaining",
        "bpf.inspecting",
        "bpf.lifecycle",
        "k8s.api",
        "k8s.commands",
        *GROUND,
    },
}
"""Package -> others of ours that it may import. A package does not include those in it: `actors` is the wiring."""
HOMES = {"bcc": "bpf", "kubernetes": "k8s", "pykka": "actors"}
"""Library -> the one package that imports it. In bpf/, only the loader imports bcc."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in [
        *ROOT.glob("*.py"),
        *(file for top in ("actors", "bpf", "config", "k8s") for file in ROOT.glob(f"{top}/**/*.py")),
    ]
}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _package(module: str) -> str:
    """The innermost package that the module, or a name in it, belongs to."""
    parts = module.removesuffix(".__init__").split(".")
    return next((package for n in (2, 1) if (package := ".".join(parts[:n])) in MAY_IMPORT), "")


def _imports(path: Path) -> set[str]:
    """Names of the imported modules; of `from a import b` both `a` and `a.b`, as b may be a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides where it leads"
            module = str(node.module)
            found |= {name for alias in node.names if (name := f"{module}.{alias.name}") in MODULES} or {module}
    return found


def _defines_an_actor(path: Path) -> bool:
    """A class that derives from one named ...Actor or ...Watcher, the bases that we have."""
    classes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))
    bases = {ast.unparse(base).split(".")[-1].split("[")[0] for each in classes for base in each.bases}
    return any(base.endswith(("Actor", "Watcher")) for base in bases)


BASES = {"actors.framework.actor", "actors.watching.watcher"}
ACTORS = {name for name, path in MODULES.items() if name.startswith("actors.") and _defines_an_actor(path)} - BASES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module: str) -> None:
    package = _package(module)
    others = {found for name in _imports(MODULES[module]) if (found := _package(name))} - {package}
    assert others <= MAY_IMPORT[package], f"{package} may import {sorted(MAY_IMPORT[package])}"


def test_no_two_packages_import_each_other() -> None:
    for package, allowed in MAY_IMPORT.items():
        assert not {other for other in allowed if package in MAY_IMPORT[other]}, package


def test_every_package_says_what_it_is_for_and_what_it_may_import() -> None:
    for package in MAY_IMPORT.keys() - {"run"}:
        docstring = ast.get_docstring(ast.parse(MODULES[f"{package}.__init__"].read_text())) or ""
        assert "import" in docstring, f"{package}/__init__.py"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_library_is_imported_in_its_own_package_only(module: str) -> None:
    imported = {_top(name) for name in _imports(MODULES[module])}
    strangers = {library for library, home in HOMES.items() if library in imported and home != _top(module)}
    assert not strangers
    assert "bcc" not in imported or module == "bpf.lifecycle.loader"


@pytest.mark.parametrize("module", sorted(ACTORS))
def test_actors_share_only_messages_and_their_base(module: str) -> None:
    others = (_imports(MODULES[module]) & ACTORS) - {module}
    assert not others, f"{module} imports actors: it must send messages"
