"""Build events of nested builds: which build requested which, and each one's own seconds."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from threads import PATIENCE, until


def listening(registry: Any) -> dict[str, Any]:
    """Listen to builds; return class name -> the last event of its build."""
    events: dict[str, Any] = {}
    registry.add_build_listener(lambda event: events.__setitem__(event.class_name, event))
    return events


def test_a_nested_build_names_the_build_around_it(make: Any, samples: Any, timer: Any) -> None:
    """Each build has its own seconds; a hit on a cached class is not listed."""
    registry = make()
    registry.get_instance("Delta")
    events = listening(registry)

    def alpha(_: Any) -> None:
        timer.advance(1)
        registry.get_instance("Beta")
        registry.get_instance("Delta")
        registry.get_instance("Beta")

    def beta(_: Any) -> None:
        timer.advance(2)
        registry.get_instance("Gamma")

    samples.script.update(Alpha=alpha, Beta=beta, Gamma=lambda _: timer.advance(4))
    registry.get_instance("Alpha")
    assert {name: event.within for name, event in events.items()} == {
        "Gamma": "Beta",
        "Beta": "Alpha",
        "Alpha": None,
    }
    assert {name: event.asked_for for name, event in events.items()} == {
        "Gamma": (),
        "Beta": ("Gamma",),
        "Alpha": ("Beta",),
    }
    assert {name: (event.seconds, event.own_seconds) for name, event in events.items()} == {
        "Gamma": (4.0, 4.0),
        "Beta": (6.0, 2.0),
        "Alpha": (7.0, 1.0),
    }


def test_a_build_that_is_only_waited_for_is_listed(make: Any, samples: Any, timer: Any) -> None:
    """A build in another thread is not nested, and its seconds are its own."""
    registry = make()
    events = listening(registry)
    entered, go = threading.Event(), threading.Event()

    def beta(_: Any) -> None:
        entered.set()
        assert go.wait(PATIENCE)
        timer.advance(5)

    def alpha(_: Any) -> None:
        timer.advance(1)
        registry.get_instance("Beta")

    samples.script.update(Alpha=alpha, Beta=beta)
    first = threading.Thread(target=registry.get_instance, args=("Beta",))
    first.start()
    assert entered.wait(PATIENCE)
    second = threading.Thread(target=registry.get_instance, args=("Alpha",))
    second.start()
    until(lambda: registry.stats().waits == 1)
    go.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert (events["Beta"].within, events["Beta"].own_seconds) == (None, 6.0)
    assert events["Alpha"].asked_for == ("Beta",)
    assert (events["Alpha"].seconds, events["Alpha"].own_seconds) == (6.0, 1.0)


def test_failures_and_cycles_are_listed_too(ws: Any, make: Any, samples: Any) -> None:
    """A remembered failure is listed, too; an unknown name is not."""
    registry = make({"Broken": "samples.Broken", "Alpha": "samples.Alpha", "Beta": "samples.Beta"})
    events = listening(registry)

    def alpha(_: Any) -> None:
        for name in ("Broken", "Nobody"):
            with pytest.raises(ws.MethodRegistryError):
                registry.get_instance(name)

    samples.script["Alpha"] = alpha
    registry.get_instance("Alpha")
    assert events["Broken"].within == "Alpha"
    assert events["Alpha"].asked_for == ("Broken",)
    registry.clear_cache()
    del events["Broken"]
    registry.get_instance("Alpha")
    assert "Broken" not in events, "its failure was remembered"
    assert events["Alpha"].asked_for == ("Broken",)
    samples.script["Beta"] = lambda _: registry.get_instance("Beta")
    with pytest.raises(ws.CycleError):
        registry.get_instance("Beta")
    assert (events["Beta"].within, events["Beta"].asked_for) == (None, ("Beta",))


def test_a_build_by_a_listener_is_not_nested(make: Any) -> None:
    """Later listeners get the unchanged event."""
    registry = make()
    registry.add_build_listener(lambda event: registry.get_instance("Beta"))
    events = listening(registry)
    registry.get_instance("Alpha")
    assert {name: (event.within, event.asked_for) for name, event in events.items()} == {
        "Alpha": (None, ()),
        "Beta": (None, ()),
    }


def test_builds_within_asynchronous_rules_are_nested(ws: Any, make: Any, samples: Any) -> None:
    """A build that an awaited rule requests is nested in the build of that rule."""
    from warmset.aio import AsyncMethodExecutor

    registry = make()
    events = listening(registry)
    executor = AsyncMethodExecutor(method_registry=registry)

    async def rule(cls: type) -> Any:
        await executor.get_instance("Beta")
        return cls()

    registry.register_instantiation_rule("Alpha", rule)
    asyncio.run(executor.get_instance("Alpha"))
    assert events["Beta"].within == "Alpha"
    assert events["Alpha"].asked_for == ("Beta",)
