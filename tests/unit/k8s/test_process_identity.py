"""The namespace and the identity with which a process of the controller takes part in the election."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8s.election import process_identity
from k8s.election.process_identity import new_identity, own_namespace
from tests.kubeconfig import write_kubeconfig


@pytest.mark.parametrize(
    ("variable", "account", "context", "found"),
    [
        ("mine", "account", "context", "mine"),
        ("", "account\n", "context", "account"),
        ("", "", "context", "context"),
        ("", "", "", "elf"),
    ],
    ids=["the variable", "the account", "the context", "none of them"],
)
def test_the_namespace_comes_from_the_variable_or_else_the_account_or_else_the_context(
    variable: str, account: str, context: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_NAMESPACE", variable)
    file = tmp_path / "namespace"
    if account:
        file.write_text(account)
    monkeypatch.setattr(process_identity, "_NAMESPACE_FILE", file)
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1", user={}, namespace=context)
    assert own_namespace(str(kubeconfig)) == found


def test_without_any_configuration_the_namespace_is_elf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    monkeypatch.setattr(process_identity, "_NAMESPACE_FILE", tmp_path / "absent")
    assert own_namespace(str(tmp_path / "nowhere")) == "elf"


def test_no_two_processes_have_one_identity() -> None:
    assert new_identity() != new_identity()
