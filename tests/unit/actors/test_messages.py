"""Messages and dispatch tables fit each other."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator

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


def test_the_actors_are_those_of_the_design() -> None:
    assert {each.__name__ for each in ACTORS} - {"Watcher"} == {
        "AffinityAger",
        "ConflictResolver",
        "EndpointWatcher",
        "LeaderElector",
        "MapWriter",
        "MetricsExporter",
        "PolicyWatcher",
        "QosTicker",
        "ServiceWatcher",
        "StatusReporter",
        "StatusWriter",
        "Supervisor",
    }
