"""Two installations of the controller in one cluster: one of them leads."""

from __future__ import annotations

import logging

import pytest

from tests.unit.k8s.candidates import Candidates, LeaseServer, replace_clocks

BOTH = ("elf", "second")


class TwoInstallations:
    """Installations in the namespaces elf and second, with a process `a` and `b` each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = replace_clocks(monkeypatch)
        self.server = LeaseServer()
        self.both = [Candidates(self.clock, self.server, namespace) for namespace in BOTH]

    def run(self, seconds: int, *namespaces: str) -> None:
        for _ in range(seconds // 2):
            self.clock.now += 2
            for each in self.both:
                if each.namespace in namespaces:
                    for name in "ab":
                        each[name].try_once()

    def leading(self) -> list[str]:
        return [f"{each.namespace}/{name}" for each in self.both for name in each.leading()]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> TwoInstallations:
    return TwoInstallations(monkeypatch)


def test_of_two_installations_the_second_stands_by_and_says_who_leads(
    two: TwoInstallations, caplog: pytest.LogCaptureFixture
) -> None:
    two.run(10, "elf")
    with caplog.at_level(logging.INFO, logger="k8s.election.election"):
        two.run(60, *BOTH)
    assert two.leading() == ["elf/a"]
    assert "standing by, since the installation in namespace elf leads (a)" in caplog.text
    assert two.both[1]["b"].holder == "elf/a"
    assert two.both[1].lost == {"a": [], "b": []}


def test_when_the_first_installation_is_removed_the_second_takes_over(two: TwoInstallations) -> None:
    two.run(10, "elf")
    two.run(10, *BOTH)
    two.run(20, "second")
    assert two.leading() == ["second/a"]


def test_an_installation_that_gives_its_lease_up_is_followed_at_once(two: TwoInstallations) -> None:
    two.run(10, "elf")
    two.run(10, *BOTH)
    two.both[0]["a"].release()
    two.run(2, "second")
    assert two.leading() == ["second/a"]


def test_of_two_controllers_that_were_elected_at_once_the_later_one_ends(
    two: TwoInstallations, caplog: pytest.LogCaptureFixture
) -> None:
    two.server.may_list = False
    two.run(4, "elf")
    two.run(4, *BOTH)
    assert two.leading() == ["elf/a", "second/a"]
    two.server.may_list = True
    two.run(4, *BOTH)
    assert two.leading() == ["elf/a"]
    assert two.both[1].lost["a"] == ["the installation in namespace elf leads (a) and was elected first"]
    assert two.both[0].lost["a"] == []
    assert "a controller in namespace second leads as well" in caplog.text


def test_a_lease_that_was_left_behind_holds_nobody_up(two: TwoInstallations) -> None:
    two.run(10, "elf")
    two.clock.now += 3600
    two.run(2, "second")
    assert two.leading() == ["second/a"]


def test_without_the_right_to_list_leases_that_is_logged_once_and_only_the_own_namespace_counts(
    two: TwoInstallations, caplog: pytest.LogCaptureFixture
) -> None:
    two.server.may_list = False
    with caplog.at_level(logging.WARNING, logger="k8s.election.installations"):
        two.run(20, "elf")
    assert two.leading() == ["elf/a"]
    warnings = [each.getMessage() for each in caplog.records if each.name == "k8s.election.installations"]
    assert len(warnings) == 2, "one by each of the two processes"
    assert "the right to list leases.coordination.k8s.io" in warnings[0]
