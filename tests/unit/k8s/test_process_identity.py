"""The namespace and the identity with which a process of the controller takes part in the election."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k8s.status import process_identity
from k8s.status.process_identity import new_identity, own_namespace


def kubeconfig(folder: Path, namespace: str = "") -> str:
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize(
    ("variable", "account", "context", "found"),
    [
        ("mine", "account", "context", "mine"),
        ("", "account\n", "context", "account"),
        ("", "", "context", "context"),
        ("", "", "", "elf"),
    ],
)
def test_the_namespace_comes_from_the_variable_or_else_the_account_or_else_the_context(
    variable: str, account: str, context: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", variable)
    file = tmp_path / "namespace"
    if account:
        file.write_text(account)
    monkeypatch.setattr(process_identity, "_NAMESPACE_FILE", file)
    assert own_namespace(kubeconfig(tmp_path, context)) == found


def test_without_any_configuration_the_namespace_is_elf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    monkeypatch.setattr(process_identity, "_NAMESPACE_FILE", tmp_path / "absent")
    assert own_namespace(str(tmp_path / "nowhere")) == "elf"


def test_no_two_processes_have_one_identity() -> None:
    assert new_identity() != new_identity()
