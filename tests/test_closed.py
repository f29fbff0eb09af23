"""A closed registry: what changes it raises, what only removes does nothing, what reads works."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest


class Tagger:
    def tag(self) -> str:
        return "tagged"


# Method -> a call of it.
CHANGES: dict[str, Any] = {
    "register": lambda registry: registry.register("other", Tagger),
    "provider": lambda registry: registry.provider("other")(Tagger),
    "family": lambda registry: registry.family("other", lambda key: Tagger()),
    "register_instantiation_rule": lambda registry: registry.register_instantiation_rule(
        Tagger, lambda cls: cls()
    ),
    "inject_method": lambda registry: registry.inject_method("Tagger", "more", len),
    "pin": lambda registry: registry.pin(Tagger),
    "unpin": lambda registry: registry.unpin("Tagger"),
    "recycle": lambda registry: registry.recycle("Tagger"),
    "warm_up": lambda registry: registry.warm_up(["Tagger"]),
    "add_listener": lambda registry: registry.add_listener(print),
    "add_build_listener": lambda registry: registry.add_build_listener(print),
    "record_profile": lambda registry: registry.record_profile(),
    "register_size_hook": lambda registry: registry.register_size_hook(Tagger, id),
    "get_instance": lambda registry: registry.get_instance(Tagger),
    "get_method": lambda registry: registry.get_method("Tagger", "tag"),
    "use": lambda registry: registry.use("Tagger").__enter__(),
}
REMOVES: dict[str, Any] = {
    "clear_cache": lambda registry: registry.clear_cache()["entries_cleared"],
    "discard": lambda registry: registry.discard("Tagger"),
    "evict_expired": lambda registry: registry.evict_expired(),
    "forget_failures": lambda registry: registry.forget_failures(),
    "remove_listener": lambda registry: registry.remove_listener(print),
    "remove_build_listener": lambda registry: registry.remove_build_listener(print),
    "close": lambda registry: registry.close(),
}
READS: dict[str, Any] = {
    "stats": lambda registry: registry.stats(),
    "get_stats": lambda registry: registry.get_stats(),
    "holders": lambda registry: registry.holders(),
    "health": lambda registry: registry.health(),
    "plan": lambda registry: registry.plan(),
    "explain": lambda registry: registry.explain("Tagger"),
    "snapshot_stats": lambda registry: registry.snapshot_stats(),
    "measure": lambda registry: registry.measure("Tagger"),
    "measure_all": lambda registry: registry.measure_all(),
    "release_memory": lambda registry: registry.release_memory(),
    "has_method": lambda registry: registry.has_method("Tagger", "tag"),
    "find_injected": lambda registry: registry.find_injected("Tagger", "tag"),
    "name_if_known": lambda registry: registry.name_if_known(Tagger),
    "bind": lambda registry: registry.bind("Tagger", "tag"),
    "unregister": lambda registry: registry.unregister("Tagger"),
}
# Those that need more than a closed registry.
OTHERS = {"from_file", "from_settings", "profile"}
OF_FAMILIES = {
    "get": lambda family: family.get("fr"),
    "use": lambda family: family.use("fr").__enter__(),
    "get_method": lambda family: family.get_method("fr", "tag"),
    "warm_up": lambda family: family.warm_up(["fr"]),
}


@pytest.fixture
def closed(ws: Any) -> Any:
    registry = ws.MethodRegistry({})
    registry.register(Tagger)
    registry.family("Model", lambda key: Tagger())
    with registry.use(Tagger), registry.family("Model").use("fr"):
        pass
    registry.close()
    return registry


def test_every_public_method_is_listed(ws: Any) -> None:
    public = {"get_instance", "get_method", "has_method", "use", "evict_expired", "close"}
    for module, name in (
        ("capabilities", "Capabilities"),
        ("registration", "Registrations"),
        ("api", "Registry"),
    ):
        cls = getattr(importlib.import_module(f"warmset.{module}"), name)
        public |= {each for each in vars(cls) if not each.startswith("_")}
    public.remove("expects_method")  # the core's `has_method` calls it
    assert public == {*CHANGES, *REMOVES, *READS, *OTHERS}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_it_raises(ws: Any, closed: Any, name: str) -> None:
    before = closed.get_stats(), closed.pinned(), closed.class_names()
    with pytest.raises(ws.ClosedError, match=r"^the registry is closed: cannot ") as raised:
        CHANGES[name](closed)
    assert re.fullmatch(r"the registry is closed: cannot [a-z ]+( '\w+')?", str(raised.value))
    after = closed.get_stats(), closed.pinned(), closed.class_names()
    if name not in ("get_instance", "get_method", "use"):  # those count as misses
        assert after == before


@pytest.mark.parametrize("name", REMOVES)
def test_what_only_removes_finds_nothing(closed: Any, name: str) -> None:
    assert not REMOVES[name](closed)


@pytest.mark.parametrize("name", READS)
def test_what_reads_works(closed: Any, name: str) -> None:
    READS[name](closed)


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_families_of_it(ws: Any, closed: Any, name: str) -> None:
    family = closed.family("Model")
    assert (list(family), family.clear(), family.discard("fr")) == ([], 0, False)
    with pytest.raises(ws.ClosedError, match="the registry is closed: cannot "):
        OF_FAMILIES[name](family)


def test_calls_through_it(ws: Any, closed: Any) -> None:
    with pytest.raises(ws.ClosedError, match="cannot look up 'Tagger'"):
        closed.bind("Tagger", "tag")()
    executor = ws.MethodExecutor(closed)
    with pytest.raises(ws.ClosedError, match="cannot look up 'Tagger'"):
        executor.execute("Tagger", "tag")
    with pytest.raises(ws.ClosedError, match="cannot inject a method of 'Tagger'"):
        executor.inject_method("Tagger", "more", len)
    executor.clear_instance_cache()
