"""Proof of release: what came back, what lives on, and who keeps it, by name."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from typing import Any

import pytest

kept: dict[str, Any] = {}
"""A global of this module, which keeps things."""


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    kept.clear()
    yield
    kept.clear()


class Memo:
    """Keeps `self` by memoising a method."""

    @functools.lru_cache  # noqa: B019
    def answer(self) -> int:
        return 42


class Slotted:
    """Has no weak references."""

    __slots__ = ()


class Knot:
    """A cycle; the collector alone frees it."""

    def __init__(self) -> None:
        self.itself = self
        self.finalised = kept.setdefault("finalised", [])

    def __del__(self) -> None:
        self.finalised.append(1)


class Returning:
    """Comes back to life when it dies."""

    def __del__(self) -> None:
        kept["back"] = self


class Hostile:
    """Whatever is asked of it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")

    __repr__ = __eq__ = __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def registry(ws: Any, timer: Any) -> Any:
    paths = {k.__name__: f"{__name__}.{k.__name__}" for k in (Memo, Slotted, Knot, Returning)}
    for name in ("A", "B", "C"):
        paths[name] = "samples.Alpha"
    sys.modules.setdefault(__name__, sys.modules[__name__])
    registry = ws.MethodRegistry(paths, timer=timer)
    registry.release_memory()  # from now on it is watched
    return registry


def keepers(report: Any) -> dict[str, tuple[str, ...]]:
    return {survivor.class_name: survivor.kept_by for survivor in report.survivors}


def cleared(registry: Any) -> dict[str, Any]:
    report = registry.clear_cache(release=True)["release"]
    return {found["class_name"]: found["kept_by"] for found in report["survivors"]}


# -- the report ----------------------------------------------------------------------------------


def test_what_nobody_keeps_is_gone(registry: Any, samples: Any) -> None:
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


def test_what_is_warm_stays(registry: Any, timer: Any) -> None:
    """What has expired does not."""
    registry.get_instance("A")
    timer.advance(200)
    registry.get_instance("B")
    timer.advance(200)
    report = registry.release_memory()
    assert registry._ring() == ["B"]
    assert (report.removed, report.survivors) == (1, ())


@pytest.mark.referrers
def test_megabytes_come_back(registry: Any) -> None:
    """In truth, as far as the process can tell."""
    registry.get_instance("A").load = bytearray(60_000_000)
    registry._instance_in(registry._slots["A"]).load[:] = b"x" * 60_000_000
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


def test_what_left_earlier_is_told_too(registry: Any, timer: Any) -> None:
    """With the cause, and how long ago."""
    kept["it"] = registry.get_instance("A")
    registry.discard("A")
    timer.advance(30)
    (survivor,) = registry.release_memory().survivors
    assert survivor.class_name == "A"
    assert survivor.type_name == "samples.Alpha"
    assert (survivor.cause.name, survivor.seconds) == ("DISCARDED", 30.0)
    kept.clear()
    assert registry.release_memory().survivors == ()


def test_what_is_held_is_no_leak(registry: Any) -> None:
    """It is told who holds it; a successor's holder is somebody else."""
    with registry.use("A"):
        report = registry.clear_cache(release=True)["release"]
        (survivor,) = report["survivors"]
        assert survivor["held_by"] == [threading.current_thread().name]
        assert survivor["kept_by"] == []
        told = registry.release_memory()
        assert told.leaked == ()
        assert "held by MainThread" in str(told)
    assert registry.release_memory().survivors == ()


def test_what_was_revived_has_not_left(registry: Any) -> None:
    with registry.use("A"):
        registry.clear_cache()
        registry.get_instance("A")
        assert registry.release_memory().survivors == ()


def test_what_has_no_weak_references_is_counted(registry: Any) -> None:
    registry.get_instance("Slotted")
    assert registry.clear_cache(release=True)["release"]["untracked"] == 1


@pytest.mark.referrers
def test_what_comes_back_to_life_is_found(registry: Any) -> None:
    registry.get_instance("Returning")
    assert cleared(registry) == {"Returning": [f"{__name__}.kept['back']"]}


@pytest.mark.counts
def test_a_closer_that_fails_stops_nothing(registry: Any, samples: Any) -> None:
    def closer(instance: Any) -> None:
        raise OSError("stuck")

    registry.register_class("A", "samples.Alpha", closer=closer)
    registry.get_instance("A")
    # The traceback in the log's record, which the test's log handler keeps, may be a keeper.
    assert registry.clear_cache(release=True)["release"]["removed"] == 1
    assert registry.stats().close_failures == 1


def test_where_nothing_can_be_measured_or_trimmed(
    registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None and False, and no guess."""
    from warmset import _process_memory as memory

    def broken() -> int:
        raise OSError("no /proc")

    monkeypatch.setattr(memory, "resident_bytes", broken)
    monkeypatch.setattr(memory, "give_back_free_memory", lambda: False)
    report = registry.release_memory()
    assert (report.rss_before_bytes, report.returned_bytes, report.trimmed) == (None, None, False)
    assert "cannot be measured" in str(report)
    assert "not trimmed" in str(report)


def test_weakly_kept_instances_are_their_users(ws: Any, samples: Any) -> None:
    registry = ws.MethodRegistry({"A": "samples.Alpha"}, enable_weakref=True)
    registry.release_memory()
    mine = registry.get_instance("A")
    assert registry.clear_cache(release=True)["release"]["survivors"] == []
    assert mine is not None


def test_others_build_meanwhile(registry: Any) -> None:
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


# -- who keeps it --------------------------------------------------------------------------------


@pytest.mark.referrers
def test_a_global_by_its_name(registry: Any) -> None:
    kept["box"] = {"deep": [0, registry.get_instance("A")], 7: None}
    assert cleared(registry) == {"A": [f"{__name__}.kept['box']['deep'][1]"]}


@pytest.mark.referrers
def test_an_attribute_of_an_object(registry: Any) -> None:
    box = types.SimpleNamespace(part=registry.get_instance("A"))
    kept["box"] = box
    del box
    (way,) = cleared(registry)["A"]
    assert way == f"{__name__}.kept['box'].part"


@pytest.mark.referrers
def test_a_slot_of_an_object(registry: Any) -> None:
    class Box:
        __slots__ = ("part",)

    kept["box"] = Box()
    kept["box"].part = registry.get_instance("A")
    assert cleared(registry)["A"] == [f"{__name__}.kept['box'].part"]


def test_a_memoised_method(registry: Any) -> None:
    """The one that so many are bitten by."""
    registry.get_instance("Memo").answer()
    try:
        assert cleared(registry) == {"Memo": [f"the lru_cache of {__name__}.Memo.answer()"]}
    finally:
        Memo.answer.cache_clear()


@pytest.mark.referrers
def test_a_bound_method(registry: Any) -> None:
    kept["handlers"] = [registry.get_instance("A").echo]
    assert cleared(registry) == {"A": [f"{__name__}.kept['handlers'][0] -> the bound method echo"]}


@pytest.mark.referrers
def test_a_closure(registry: Any) -> None:
    def bind(instance: Any) -> Any:
        return lambda: instance

    kept["call"] = bind(registry.get_instance("A"))
    (way,) = cleared(registry)["A"]
    assert way.startswith(f"{__name__}.kept['call'] -> the closure of {__name__}.test_a_closure.")


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


def test_an_exception_that_is_kept(registry: Any) -> None:
    """By the frames of its traceback."""

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


@pytest.mark.referrers
def test_no_foreign_code_is_run(registry: Any) -> None:
    """Of what has its own ideas only the type's name is told."""
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
        raise AssertionError("asked for its text")


def test_many_survivors_and_many_keepers_have_an_end(registry: Any) -> None:
    """The time for it is bounded, and so is what is told."""
    clock = iter(range(10**9))
    from warmset.memory.referrers import Referrers

    one = registry.get_instance("A")
    kept["boxes"] = [[one] for _ in range(1000)]
    search = Referrers(time_limit_seconds=5, clock=lambda: next(clock))
    assert len(search.of(one)) <= 5
