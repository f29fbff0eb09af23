"""Tests of release reports: returned memory, survivors and their referrers."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from warmset.testing.structure import eviction_order

if TYPE_CHECKING:
    from collections.abc import Iterator

searches_referrers = pytest.mark.usefixtures("all_objects")

kept: dict[str, Any] = {}
"""A global that keeps references."""


@pytest.fixture(autouse=True)
def empty_globals() -> Any:
    kept.clear()
    yield
    kept.clear()


class Memo:
    """Keeps a reference to `self` in the cache of a method."""

    @functools.lru_cache  # noqa: B019
    def answer(self) -> int:
        return 42


class Slotted:
    """Does not support weak references."""

    __slots__ = ()


class Knot:
    """A reference cycle, freed only by the garbage collector."""

    def __init__(self) -> None:
        self.itself = self
        self.finalised = kept.setdefault("finalised", [])

    def __del__(self) -> None:
        self.finalised.append(1)


class Returning:
    """Resurrects itself in its finaliser."""

    def __del__(self) -> None:
        kept["back"] = self


class Hostile:
    """Raises an error for any attribute access."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")

    __repr__ = __eq__ = __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def registry(ws: Any, timer: Any) -> Any:
    paths = {k.__name__: f"{__name__}.{k.__name__}" for k in (Memo, Slotted, Knot, Returning)}
    for name in ("A", "B", "C"):
        paths[name] = "samples.Alpha"
    sys.modules.setdefault(__name__, sys.modules[__name__])
    registry = ws.MethodRegistry(paths, timer=timer)
    registry.release_memory()  # starts the tracking of removed instances
    return registry


@pytest.fixture
def all_objects(registry: Any) -> Iterator[None]:
    """Let the collector know all objects, also those that were frozen before the first test."""
    gc.unfreeze()
    yield
    kept.clear()
    gc.collect()
    gc.freeze()


def keepers(report: Any) -> dict[str, tuple[str, ...]]:
    return {survivor.class_name: survivor.referrers for survivor in report.survivors}


def cleared(registry: Any) -> dict[str, Any]:
    report = registry.clear_cache(release=True)["release"]
    return {found["class_name"]: found["referrers"] for found in report["survivors"]}


# -- the report ----------------------------------------------------------------------------------


def test_an_unreferenced_instance_does_not_survive(registry: Any, samples: Any) -> None:
    registry.get_instance("A")
    before = registry.clear_cache()
    registry.get_instance("A")
    after = registry.clear_cache(release=True)
    report = after.pop("release")
    assert set(after) == set(before)
    assert after["entries_cleared"] == report["removed"] == 1
    assert report["survivors"] == []
    assert (report["untracked"], type(report["trimmed"])) == (0, bool)
    assert report["returned_bytes"] == report["rss_before_bytes"] - report["rss_after_bytes"]
    assert report["collect_seconds"] > 0.0


def test_release_memory_keeps_warm_instances(registry: Any, timer: Any) -> None:
    """Expired ones are removed."""
    registry.get_instance("A")
    timer.advance(200)
    registry.get_instance("B")
    timer.advance(200)
    report = registry.release_memory()
    assert eviction_order(registry) == ["B"]
    assert (report.removed, report.survivors) == (1, ())


@pytest.mark.referrers
def test_memory_is_returned_to_the_system(registry: Any) -> None:
    """As measured by the RSS of the process."""
    registry.get_instance("A").load = bytearray(60_000_000)
    registry.instance_in(registry.slots["A"]).load[:] = b"x" * 60_000_000
    report = registry.clear_cache(release=True)["release"]
    assert report["returned_bytes"] > 40_000_000


def test_cycles_are_collected(registry: Any) -> None:
    registry.get_instance("Knot")
    gc.disable()
    try:
        report = registry.clear_cache(release=True)["release"]
    finally:
        gc.enable()
    assert (report["survivors"], kept["finalised"]) == ([], [1])
    assert report["collected"] > 0


def test_instances_removed_earlier_are_reported(registry: Any, timer: Any) -> None:
    """With the cause and the time since the removal."""
    kept["it"] = registry.get_instance("A")
    registry.discard("A")
    timer.advance(30)
    (survivor,) = registry.release_memory().survivors
    assert survivor.class_name == "A"
    assert survivor.type_name == "samples.Alpha"
    assert (survivor.cause.name, survivor.seconds) == ("DISCARDED", 30.0)
    kept.clear()
    assert registry.release_memory().survivors == ()


def test_a_held_instance_is_not_a_leak(registry: Any) -> None:
    """Its holder is reported; a holder of its successor is not."""
    with registry.use("A"):
        report = registry.clear_cache(release=True)["release"]
        (survivor,) = report["survivors"]
        assert survivor["holders"] == [threading.current_thread().name]
        assert survivor["referrers"] == []
        told = registry.release_memory()
        assert told.leaked == ()
        assert "held by MainThread" in str(told)
    assert registry.release_memory().survivors == ()


def test_holders_of_a_successor_are_not_holders_of_the_survivor(registry: Any) -> None:
    here = {"it": registry.get_instance("A")}
    registry.discard("A")
    with registry.use("A"):
        (survivor,) = registry.release_memory().survivors
        assert survivor.holders == ()
        assert survivor.referrers
    here.clear()


@pytest.mark.counts
def test_a_tracked_instance_is_closed_and_collected(registry: Any, samples: Any) -> None:
    """The tracker refers neither to the instance nor to an entry that has it."""
    with registry.use("A") as held:
        gone = weakref.ref(held)
        registry.discard("A")
        del held
        assert samples.closed == []
    assert samples.closed == ["Alpha"]
    assert gone() is None
    registry.get_instance("A")
    registry.discard("A")
    assert samples.closed == ["Alpha", "Alpha"]
    assert registry.stats().left_open == 0
    assert registry.release_memory().survivors == ()


def test_instances_without_weak_references_are_counted(registry: Any) -> None:
    registry.get_instance("Slotted")
    assert registry.clear_cache(release=True)["release"]["untracked"] == 1


@searches_referrers
@pytest.mark.referrers
def test_a_resurrected_instance_is_found(registry: Any) -> None:
    registry.get_instance("Returning")
    assert cleared(registry) == {"Returning": [f"{__name__}.kept['back']"]}


@pytest.mark.counts
def test_a_failing_closer_does_not_stop_the_release(registry: Any, samples: Any) -> None:
    def closer(instance: Any) -> None:
        raise OSError("stuck")

    registry.register("A", "samples.Alpha", closer=closer)
    registry.get_instance("A")
    # The log record kept by pytest contains a traceback, which may be a referrer.
    assert registry.clear_cache(release=True)["release"]["removed"] == 1
    assert registry.stats().close_failures == 1


def test_without_measurement_and_trimming(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report contains None and False."""
    from warmset import _process_memory as memory

    def broken() -> int:
        raise OSError("no /proc")

    monkeypatch.setattr(memory, "resident_bytes", broken)
    monkeypatch.setattr(memory, "give_back_free_memory", lambda: False)
    report = registry.release_memory()
    assert (report.rss_before_bytes, report.returned_bytes, report.trimmed) == (None, None, False)
    assert "returned to the system: unknown" in str(report)
    assert "not trimmed" in str(report)


def test_weakly_referenced_instances_are_not_survivors(ws: Any, samples: Any) -> None:
    registry = ws.MethodRegistry({"A": "samples.Alpha"}, enable_weakref=True)
    registry.release_memory()
    mine = registry.get_instance("A")
    assert registry.clear_cache(release=True)["release"]["survivors"] == []
    assert mine is not None


def test_reports_during_builds_in_other_threads(registry: Any) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                with registry.use("A") as instance:
                    instance.echo()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        reports = [registry.clear_cache(release=True)["release"] for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert all(type(report["collected"]) is int for report in reports)


# -- referrers -----------------------------------------------------------------------------------


@searches_referrers
@pytest.mark.referrers
def test_a_global_variable(registry: Any) -> None:
    kept["box"] = {"deep": [0, registry.get_instance("A")], 7: None}
    assert cleared(registry) == {"A": [f"{__name__}.kept['box']['deep'][1]"]}


@searches_referrers
@pytest.mark.referrers
def test_an_attribute_of_an_object(registry: Any) -> None:
    box = types.SimpleNamespace(part=registry.get_instance("A"))
    kept["box"] = box
    del box
    (way,) = cleared(registry)["A"]
    assert way == f"{__name__}.kept['box'].part"


@searches_referrers
@pytest.mark.referrers
def test_a_slot_of_an_object(registry: Any) -> None:
    class Box:
        __slots__ = ("part",)

    kept["box"] = Box()
    kept["box"].part = registry.get_instance("A")
    assert cleared(registry)["A"] == [f"{__name__}.kept['box'].part"]


@searches_referrers
def test_a_memoised_method(registry: Any) -> None:
    """A common cause of leaks."""
    registry.get_instance("Memo").answer()
    try:
        assert cleared(registry) == {"Memo": [f"the lru_cache of {__name__}.Memo.answer()"]}
    finally:
        Memo.answer.cache_clear()


@searches_referrers
@pytest.mark.referrers
def test_a_bound_method(registry: Any) -> None:
    kept["handlers"] = [registry.get_instance("A").echo]
    assert cleared(registry) == {"A": [f"{__name__}.kept['handlers'][0] -> the bound method echo"]}


@searches_referrers
@pytest.mark.referrers
def test_a_closure(registry: Any) -> None:
    def bind(instance: Any) -> Any:
        return lambda: instance

    kept["call"] = bind(registry.get_instance("A"))
    (way,) = cleared(registry)["A"]
    assert way.startswith(f"{__name__}.kept['call'] -> the closure of {__name__}.test_a_closure.")


@searches_referrers
@pytest.mark.referrers
def test_a_partial_and_a_default(registry: Any) -> None:
    kept["partial"] = functools.partial(print, registry.get_instance("A"))
    (way,) = cleared(registry)["A"]
    assert way.startswith(f"{__name__}.kept['partial']")


def test_a_variable_of_a_running_function(registry: Any) -> None:
    """In another thread, and in this one."""
    stop, ready = threading.Event(), threading.Event()

    def work() -> None:
        tagger = registry.get_instance("A")
        ready.set()
        stop.wait(30.0)
        del tagger

    thread = threading.Thread(target=work, name="worker-7")
    thread.start()
    ready.wait(30.0)
    mine = registry.get_instance("B")
    found = cleared(registry)
    stop.set()
    thread.join()
    assert [w for w in found["A"] if "variable tagger of" in w and w.endswith("in worker-7")]
    assert [w for w in found["B"] if "variable mine of" in w and w.endswith("in MainThread")]
    del mine


def test_a_generator(registry: Any) -> None:
    def run(instance: Any) -> Any:
        yield instance

    kept["running"] = run(registry.get_instance("A"))
    next(kept["running"])
    first = cleared(registry)["A"]
    again = keepers(registry.release_memory())["A"]
    for ways in (first, again):
        assert any("instance" in way and "run()" in way for way in ways)


def test_a_stored_exception(registry: Any) -> None:
    """It refers to the frames of its traceback."""

    def fail() -> None:
        model = registry.get_instance("A")
        raise ValueError(len(model.label))

    try:
        fail()
    except ValueError as error:
        kept["error"] = error
    ways = cleared(registry)["A"]
    assert [way for way in ways if "variable model of" in way]


@pytest.mark.referrers
def test_an_attribute_of_a_class(registry: Any) -> None:
    class Holder:
        shared: Any = None

    Holder.shared = registry.get_instance("A")
    (way,) = cleared(registry)["A"]
    assert way.endswith("Holder.shared")


@searches_referrers
@pytest.mark.referrers
def test_the_search_runs_no_foreign_code(registry: Any) -> None:
    """For user-defined types only the type name is reported."""
    hostile = Hostile()
    object.__setattr__(hostile, "part", registry.get_instance("A"))
    kept["box"] = hostile
    del hostile
    (way,) = cleared(registry)["A"]
    assert way.startswith(f"{__name__}.kept['box']")
    kept["box"] = {Key(): registry.get_instance("A")}
    (way,) = cleared(registry)["A"]
    assert way == f"{__name__}.kept['box'][<{__name__}.Key>]"


class Key:
    def __repr__(self) -> str:
        raise AssertionError("the repr was computed")


def test_the_search_is_bounded(registry: Any) -> None:
    """In time and in the number of reported paths."""
    clock = iter(range(10**9))
    from warmset.memory.referrers import ReferrerSearch

    one = registry.get_instance("A")
    kept["boxes"] = [[one] for _ in range(1000)]
    search = ReferrerSearch(time_limit_seconds=5, clock=lambda: next(clock))
    assert len(search.paths_to(one)) <= 5
