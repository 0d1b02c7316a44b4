"""What an actor is sent about policies: what changed, and nothing where there is nothing to say."""

from __future__ import annotations

from actors.messages.checks import PolicyChecks
from actors.resolving.last_sent import LastSent, UnsentChange
from config.domain.ids import PolicyKey, PolicyKind
from tests.unit.actors.checks import checked, policy_checks
from tests.unit.objects import KEY

OTHER = PolicyKey(PolicyKind.LOCAL_REDIRECT, "other")
NOTHING, SOMETHING, ELSE = PolicyChecks(key=KEY), policy_checks(checked("a")), policy_checks(checked("b"))


def sent(
    *, complete: bool = False, values: tuple[PolicyChecks, ...] = (), removed: tuple[PolicyKey, ...] = ()
) -> LastSent[PolicyChecks]:
    subject = LastSent(lambda key: PolicyChecks(key=key))
    subject.change(complete=complete, values=values, removed=removed)
    return subject


def test_what_was_sent_is_not_sent_again() -> None:
    subject = sent(values=(SOMETHING,))
    assert subject.change(complete=False, values=(SOMETHING,), removed=()) is None
    assert subject.change(complete=False, values=(ELSE,), removed=()) == UnsentChange(False, (ELSE,), ())
    assert subject.change(complete=False, values=(NOTHING,), removed=()) == UnsentChange(False, (NOTHING,), ())


def test_nothing_is_sent_about_a_policy_that_never_had_anything() -> None:
    subject = sent()
    assert subject.change(complete=False, values=(NOTHING,), removed=()) is None
    assert subject.change(complete=False, values=(), removed=(KEY, OTHER)) is None


def test_everything_is_sent_when_it_is_asked_for_even_if_it_is_nothing() -> None:
    subject = sent(values=(SOMETHING,))
    assert subject.change(complete=True, values=(SOMETHING,), removed=()) == UnsentChange(True, (SOMETHING,), ())
    assert subject.change(complete=True, values=(NOTHING,), removed=()) == UnsentChange(True, (), ())


def test_a_removed_policy_is_sent_once_and_forgotten() -> None:
    subject = sent(values=(SOMETHING,))
    assert subject.change(complete=False, values=(), removed=(KEY,)) == UnsentChange(False, (), (KEY,))
    assert subject.change(complete=False, values=(), removed=(KEY,)) is None
    assert subject._sent == {}
