"""Messages, the actors' dispatch tables and the architecture page agree."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import actors
from actors.framework.actor import AgentActor
from actors.framework.messages import Message, Ping

for module in pkgutil.walk_packages(actors.__path__, "actors."):
    importlib.import_module(module.name)


def _subclasses(cls: type[AgentActor]) -> Iterator[type[AgentActor]]:
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


MESSAGES = sorted(
    {
        each
        for module in [value for name, value in sys.modules.items() if name.startswith("actors.")]
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Message) and each is not Message
    },
    key=lambda each: each.__name__,
)
ACTORS = sorted(
    (each for each in set(_subclasses(AgentActor)) if each.__module__.startswith("actors.")),
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.__name__)
def test_every_message_has_a_receiver(message: type[Message]) -> None:
    assert message is Ping or any(message in actor.HANDLERS for actor in ACTORS)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.__name__)
def test_every_message_is_a_frozen_slotted_value(message: type[Message]) -> None:
    assert vars(message)["__dataclass_params__"].frozen
    assert "__slots__" in vars(message)


@pytest.mark.parametrize("actor", ACTORS, ids=lambda each: each.__name__)
def test_a_table_names_messages_and_methods_that_exist(actor: type[AgentActor]) -> None:
    assert set(actor.HANDLERS) <= set(MESSAGES)
    for handler in actor.HANDLERS.values():
        assert callable(getattr(actor, handler))


def _page() -> str:
    return (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()


def _receivers_on_the_page() -> dict[str, set[str]]:
    """Message -> actors that its row in docs/architecture.md names as its receivers."""
    table = _page().partition("## Messages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", table, re.MULTILINE)
    names = {each.__name__ for each in ACTORS}
    return {
        message: names & set(re.findall(r"\w+", receivers))
        for messages, receivers in rows
        for message in re.findall(r"`(\w+)`", messages)
        if message[0].isupper()
    }


def test_the_architecture_page_says_who_receives_each_message() -> None:
    receivers = {
        message.__name__: {actor.__name__ for actor in ACTORS if message in actor.HANDLERS} - {"Watcher"}
        for message in MESSAGES
    }
    assert _receivers_on_the_page() == receivers


def test_the_architecture_page_says_what_each_actor_owns() -> None:
    rows = re.findall(r"^\| (\w+)[^|]* \| `(actors/[^`]+)` \| [^|]+ \|$", _page(), re.MULTILINE)
    actors = {each.__name__: each.__module__.replace(".", "/") + ".py" for each in ACTORS if each.__name__ != "Watcher"}
    assert dict(rows) == actors
