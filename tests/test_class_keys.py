"""Classes as keys: mapped by identity, only where that very object is registered."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest


class Tagger:
    def tag(self, text: str = "") -> str:
        return f"tagged {text}"


class Scorer:
    def tag(self, text: str = "") -> str:
        return f"scored {text}"


class Equal(type):
    """A metaclass whose classes are all equal, and hash alike."""

    def __eq__(cls, other: object) -> bool:
        return True

    def __hash__(cls) -> int:
        return 7


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]


class One(metaclass=Equal):
    pass


class Other(metaclass=Equal):
    pass


class Odd(metaclass=Unhashable):
    pass


def test_a_class_works_wherever_its_name_does(make: Any, ws: Any) -> None:
    registry = make({})
    registry.register(Tagger)
    tagger = registry.get_instance(Tagger)
    assert registry.get_instance("Tagger") is tagger
    assert registry.get_method(Tagger, "tag")("a") == "tagged a"
    with registry.use(Tagger) as held:
        assert held is tagger
    assert registry.bind(Tagger, "tag")("b") == "tagged b"
    executor = ws.MethodExecutor(method_registry=registry)
    assert executor.execute(Tagger, "tag", text="c") == "tagged c"
    assert executor.has_method(Tagger, "tag")
    assert not registry.has_method(Tagger, "nothing")
    assert executor.instances[Tagger] is tagger
    assert Tagger in executor.instances
    assert Tagger in registry
    registry.pin(Tagger)
    assert registry.pinned() == ["Tagger"]
    registry.unpin(Tagger)
    assert "Tagger" in str(registry.explain(Tagger))
    assert registry.measure(Tagger) is not None
    assert registry.recycle(Tagger)
    assert registry.discard(Tagger)
    assert not registry.discard(Tagger)
    registry.register_instantiation_rule(Tagger, lambda cls: cls())
    registry.get_instance(Tagger)
    assert registry.unregister(Tagger)
    assert Tagger not in registry


def test_look_ups_by_class_and_by_name_are_counted_alike(make: Any) -> None:
    registry = make({})
    registry.register(Tagger)
    registry.get_instance(Tagger)
    registry.get_instance(Tagger)
    registry.get_instance("Tagger")
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.builds) == (2, 1, 1)


def test_a_class_may_have_another_name(make: Any) -> None:
    registry = make({"german": Tagger})
    assert registry.get_instance(Tagger) is registry.get_instance("german")


def test_two_names_for_one_class_are_an_error_that_lists_them(make: Any, ws: Any) -> None:
    """Each name works; the class alone does not tell which."""
    registry = make({"small": Tagger, "large": Tagger})
    calls = (
        lambda: registry.get_instance(Tagger),
        lambda: registry.use(Tagger),
        lambda: registry.bind(Tagger, "tag"),
        lambda: registry.has_method(Tagger, "tag"),
        lambda: registry.discard(Tagger),
        lambda: Tagger in registry,
    )
    for call in calls:
        with pytest.raises(ws.AmbiguousClassError, match="'small', 'large'") as caught:
            call()
        assert caught.value.names == ("small", "large")
        assert caught.value.stage == "name"
    registry.unregister("large")
    assert registry.get_instance(Tagger) is registry.get_instance("small")


def test_only_that_very_object_is_the_key(make: Any, ws: Any) -> None:
    """Not one of the same name, not a path to it, and not a subclass."""
    registry = make({"Tagger": "samples.Alpha", "Scorer": f"{__name__}.Scorer"})
    with pytest.raises(ws.UnknownClassError, match="nearest: 'Tagger'"):
        registry.get_instance(Tagger)
    with pytest.raises(ws.UnknownClassError, match=r"Scorer'; .* path: look it up as 'Scorer'"):
        registry.use(Scorer)
    assert Tagger not in registry
    assert not registry.has_method(Tagger, "tag")
    assert not registry.discard(Tagger)
    assert not registry.unregister(Tagger)

    class Derived(Tagger):
        pass

    registry.register("it", Derived)
    assert Tagger not in registry
    assert Derived in registry


def test_a_class_is_no_key_any_more_when_its_name_has_another_target(make: Any, ws: Any) -> None:
    registry = make({"it": Tagger})
    first = registry.get_instance(Tagger)
    registry.register("it", Scorer)
    with pytest.raises(ws.UnknownClassError):
        registry.get_instance(Tagger)
    assert registry.get_instance(Scorer) is not first
    registry.register("other", Tagger)
    assert registry.get_instance(Tagger) is registry.get_instance("other")


def test_a_metaclass_does_not_decide_what_is_the_same_class(make: Any, ws: Any) -> None:
    registry = make({})
    registry.register(One)
    assert One in registry
    assert Other not in registry
    with pytest.raises(ws.UnknownClassError):
        registry.get_instance(Other)
    registry.register(Other)
    registry.register(Odd)
    for cls in (One, Other, Odd):
        assert type(registry.get_instance(cls)) is cls
        assert type(registry.get_instance(cls.__name__)) is cls


@pytest.mark.referrers
def test_a_registered_class_is_owned_and_an_unregistered_one_is_not(make: Any) -> None:
    registry = make({})

    def register() -> Any:
        class Local:
            pass

        registry.register(Local)
        assert Local in registry
        return weakref.ref(Local)

    kept = register()
    gc.collect()
    assert kept() is not None
    registry.unregister("Local")
    gc.collect()
    assert kept() is None


def test_other_keys_are_refused_as_before(make: Any) -> None:
    registry = make()
    for key in (3, None, ("a",), b"a", Tagger()):
        with pytest.raises(TypeError, match="a class name must be a str"):
            registry.get_instance(key)
        assert key not in registry


def test_asynchronous_look_ups_take_a_class(make: Any, ws: Any) -> None:
    from loops import run

    from warmset.aio import AsyncMethodExecutor

    registry = make({})
    registry.register(Tagger)

    async def main() -> None:
        executor = AsyncMethodExecutor(method_registry=registry)
        tagger = await executor.get_instance(Tagger)
        assert await executor.execute(Tagger, "tag", text="a") == "tagged a"
        async with executor.use(Tagger) as held:
            assert held is tagger

    run(main())


def test_many_classes_come_and_go(make: Any) -> None:
    """Some of them displace others where addresses are hints."""
    registry = make({})
    classes = [type(f"Local{i}", (), {}) for i in range(200)]
    for cls in classes:
        registry.register(cls)
    for cls in classes[::2]:
        registry.unregister(cls)
    assert [cls in registry for cls in classes] == [False, True] * 100
    for _ in range(2):
        assert all(type(registry.get_instance(cls)) is cls for cls in classes[1::2])
    for cls in classes[::2]:
        registry.register(cls)
    assert all(type(registry.get_instance(cls)) is cls for cls in classes)


def test_each_of_many_classes_is_found_without_a_call(make: Any, ws: Any) -> None:
    """However their addresses are spread: none of them stays with the slow path."""
    if ws.implementation != "compiled":
        pytest.skip("the pure core is Python")
    classes = [type(f"Local{i}", (), {}) for i in range(200)]
    registry = make({}, max_cache_size=200)
    for cls in classes:
        registry.register(cls)
        registry.get_instance(cls)
    called: list[str] = []
    sys.setprofile(
        lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None
    )
    try:
        for cls in classes:
            registry.get_instance(cls)
    finally:
        sys.setprofile(None)
    assert set(called) == {"__call__"}  # of the injected clock


class Derived(Tagger):
    pass


def test_a_handle_is_bound_to_a_method_of_a_class(make: Any, ws: Any) -> None:
    registry = make({})
    with pytest.raises(ws.UnknownClassError):
        registry.bind(Tagger.tag)
    registry.register(Derived)
    assert registry.bind(Tagger.tag)("a") == "tagged a"  # inherited by the only one
    registry.register(Tagger)
    registry.register(Scorer)
    assert registry.bind(Scorer.tag)("a") == "scored a"
    assert registry.bind(Tagger.tag).class_name == "Tagger"
    registry.register("other", Tagger)
    with pytest.raises(ws.AmbiguousClassError, match="'Tagger'"):
        registry.bind(Tagger.tag)
    for wrong in (Tagger, "Tagger", 3):
        with pytest.raises(TypeError):
            registry.bind(wrong)
