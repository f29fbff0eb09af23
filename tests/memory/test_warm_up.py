"""Tests of warm-ups: build order, dependencies, bounds, progress."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from warmset.testing.structure import eviction_order


@pytest.fixture
def memory(ws: Any) -> Any:
    """The profiles module of the copy of the package under test."""
    import warmset.memory.profiles as profiles

    return profiles


@pytest.fixture
def profile(memory: Any) -> Any:
    """Create a profile from the fields of each class."""

    def make(recordings: int = 1, **classes: Any) -> Any:
        facts = {}
        for name, known in classes.items():
            seconds = known.pop("seconds", 1.0)
            known = {"uses": 1, "builds": 1, "build_seconds": seconds, **known}
            known.setdefault("own_build_seconds", seconds)
            facts[name] = memory.ClassProfile(**known)
        return memory.Profile(facts, recordings)

    return make


def reasons(report: Any) -> dict[str, str]:
    return dict(report.skipped)


def names(report: Any) -> list[str]:
    return [name for name, _ in report.built]


# -- names ---------------------------------------------------------------------------------------


def test_names_are_built_in_their_order(make: Any, samples: Any) -> None:
    registry = make()
    report = registry.warm_up(["Gamma", "Alpha", "Beta"], workers=1)
    assert samples.built == names(report) == ["Gamma", "Alpha", "Beta"]
    assert sorted(eviction_order(registry)) == ["Alpha", "Beta", "Gamma"]
    assert (report.warm, report.failed, report.skipped, report.notes) == ((), (), (), ())
    assert registry.stats().held == 0


def test_each_build_is_one_miss_and_warm_classes_are_not_looked_up(make: Any, timer: Any) -> None:
    registry = make()
    registry.get_instance("Alpha")
    timer.advance(5)
    report = registry.warm_up(["Alpha", "Beta"])
    assert report.warm == ("Alpha",)
    stats = registry.stats()
    assert (stats.hits, stats.misses, stats.builds) == (0, 2, 2)
    assert {e.class_name: e.idle_seconds for e in stats.entries} == {"Alpha": 5.0, "Beta": 0.0}


def test_a_warmed_instance_is_closed_when_it_is_removed(make: Any, samples: Any) -> None:
    """Because it was never handed out without a lease."""
    registry = make()
    registry.warm_up(["Alpha"])
    registry.clear_cache()
    assert samples.closed == ["Alpha"]


def test_unknown_and_failing_classes_do_not_stop_the_others(make: Any, samples: Any) -> None:
    registry = make()

    def fail(_: Any) -> None:
        raise OSError("no weights")

    samples.script["Beta"] = fail
    report = registry.warm_up(["Nobody", "Beta", "Alpha"], workers=1)
    assert names(report) == ["Alpha"]
    assert reasons(report) == {"Nobody": "no class of that name is registered"}
    assert [name for name, _ in report.failed] == ["Beta"]
    assert "no weights" in report.failed[0][1]
    text = str(report)
    assert "built 1 in" in text
    assert "failed Beta: " in text
    assert "skipped Nobody: no class" in text


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        ("Alpha", {}, TypeError, "takes a Profile or class names, got str 'Alpha'"),
        (1, {}, TypeError, "takes a Profile or class names, got int 1"),
        ([1], {}, TypeError, "class name"),
        (
            [],
            {"deadline_seconds": "1"},
            TypeError,
            "deadline_seconds must be a number of seconds or None",
        ),
        (
            [],
            {"deadline_seconds": float("nan")},
            ValueError,
            "deadline_seconds must be 0 or more seconds",
        ),
        ([], {"max_bytes": -1}, ValueError, "max_bytes must be 0 or more"),
        ([], {"workers": 0}, ValueError, "workers must be 1 or more"),
        ([], {"workers": True}, TypeError, "workers must be a whole number or None"),
        ([], {"progress": 1}, TypeError, "progress must be callable, got 1"),
    ],
)
def test_invalid_arguments_raise(
    make: Any, arguments: Any, options: Any, kind: Any, text: str
) -> None:
    with pytest.raises(kind, match=text):
        make().warm_up(arguments, **options)


def test_a_closed_registry_raises(ws: Any, make: Any) -> None:
    registry = make()
    registry.close()
    with pytest.raises(ws.errors.ClosedError):
        registry.warm_up(["Alpha"])


def test_a_call_inside_a_build_raises(ws: Any, make: Any, samples: Any) -> None:
    """The build and a worker could wait for each other."""
    registry = make()
    samples.script["Alpha"] = lambda _: registry.warm_up(["Beta"])
    with pytest.raises(ws.MethodRegistryError, match="during the build of 'Alpha'"):
        registry.get_instance("Alpha")


def test_nothing_is_built_with_weak_references(make: Any, samples: Any) -> None:
    registry = make(enable_weakref=True)
    assert "weak references" in reasons(registry.warm_up(["Alpha"]))["Alpha"]
    assert samples.built == []


# -- value and dependencies ----------------------------------------------------------------------


def test_the_most_valuable_first(make: Any, samples: Any, profile: Any) -> None:
    """Seconds times uses, divided by bytes."""
    registry = make()
    known = profile(
        Alpha={"seconds": 1.0, "uses": 10, "bytes": 100},
        Beta={"seconds": 30.0, "uses": 1, "bytes": 100},
        Gamma={"seconds": 2.0, "uses": 100, "bytes": 100},
        Delta={"seconds": 30.0, "uses": 1, "bytes": 10},
    )
    registry.warm_up(known, workers=1)
    assert samples.built == ["Delta", "Gamma", "Beta", "Alpha"]


def test_dependencies_are_built_first(make: Any, samples: Any, profile: Any) -> None:
    """They also inherit the value of their dependents."""
    registry = make()
    known = profile(
        Alpha={"seconds": 0.001},
        Beta={"seconds": 5.0},
        Gamma={"seconds": 10.0, "depends_on": ("Alpha",)},
        Delta={"seconds": 8.0, "depends_on": ("Gamma",)},
    )
    registry.warm_up(known, workers=1)
    assert samples.built == ["Alpha", "Gamma", "Delta", "Beta"]


def test_workers_respect_dependencies(make: Any, samples: Any, profile: Any) -> None:
    """Alpha is built alone, then Beta and Gamma concurrently, then Delta."""
    registry = make()
    both = threading.Barrier(2)
    seen: dict[str, list[str]] = {}

    def note(instance: Any) -> None:
        name = type(instance).__name__
        seen[name] = sorted(eviction_order(registry))
        if name in ("Beta", "Gamma"):
            both.wait(30.0)

    for name in ("Alpha", "Beta", "Gamma", "Delta"):
        samples.script[name] = note
    known = profile(
        Alpha={}, Beta={"depends_on": ("Alpha",)}, Gamma={"depends_on": ("Alpha",)},
        Delta={"depends_on": ("Beta", "Gamma")},
    )  # fmt: skip
    before = threading.active_count()
    report = registry.warm_up(known, workers=4)
    assert threading.active_count() == before
    assert seen["Alpha"] == []
    assert seen["Delta"] == ["Alpha", "Beta", "Gamma"]
    assert len(report.built) == 4


def test_a_cyclic_dependency_is_ignored_and_reported(make: Any, samples: Any, profile: Any) -> None:
    registry = make()
    known = profile(Alpha={"depends_on": ("Beta", "Alpha")}, Beta={"depends_on": ("Alpha",)})
    report = registry.warm_up(known)
    assert sorted(names(report)) == ["Alpha", "Beta"]
    assert len(report.notes) == 1
    assert "cyclic dependency: " in report.notes[0]


def test_a_long_chain_of_dependencies(make: Any, profile: Any) -> None:
    """It is not processed by recursion."""
    count = 3_000
    paths = {f"C{n}": "samples.Alpha" for n in range(count)}
    registry = make(paths, max_cache_size=count)
    known = profile(**{f"C{n}": {"depends_on": (f"C{n + 1}",)} for n in range(count - 1)},
                    **{f"C{count - 1}": {}})  # fmt: skip
    report = registry.warm_up(known, workers=1)
    assert names(report) == [f"C{n}" for n in reversed(range(count))]


def test_a_changed_class_path_is_reported(make: Any, profile: Any) -> None:
    report = make().warm_up(profile(Alpha={"class_path": "old.place.Alpha"}))
    assert report.notes == ("Alpha was recorded as old.place.Alpha and is now samples.Alpha",)
    assert names(report) == ["Alpha"]


# -- bounds --------------------------------------------------------------------------------------


def test_the_capacity_is_not_exceeded(make: Any, samples: Any, profile: Any) -> None:
    """Warm instances stay; the most valuable classes that fit are built with their dependencies."""
    registry = make(max_cache_size=3)
    registry.get_instance("Delta")
    known = profile(
        Alpha={"seconds": 1.0},
        Beta={"seconds": 9.0},
        Gamma={"seconds": 10.0, "depends_on": ("Alpha",)},
    )
    report = registry.warm_up(known)
    assert sorted(eviction_order(registry)) == ["Alpha", "Delta", "Gamma"]
    assert reasons(report) == {"Beta": "no capacity for it: max_cache_size=3"}
    assert registry.stats().evictions == 0


def test_a_class_whose_dependencies_do_not_fit_is_skipped(make: Any, profile: Any) -> None:
    registry = make(max_cache_size=1)
    known = profile(
        Alpha={"seconds": 1.0, "bytes": 1000},
        Gamma={"seconds": 10.0, "bytes": 1, "depends_on": ("Alpha",)},
    )
    report = registry.warm_up(known)
    assert names(report) == ["Alpha"]
    assert reasons(report) == {
        "Gamma": "no capacity for it and its dependencies (1): max_cache_size=1"
    }


def test_max_bytes(make: Any, profile: Any) -> None:
    registry = make()
    known = profile(
        Alpha={"seconds": 9.0, "bytes": 60},
        Beta={"seconds": 5.0, "bytes": 50},
        Gamma={"seconds": 1.0, "bytes": 40},
        Delta={"seconds": 99.0},
    )
    report = registry.warm_up(known, max_bytes=100)
    assert sorted(names(report)) == ["Alpha", "Gamma"]
    assert reasons(report) == {
        "Delta": "its size is unknown and max_bytes is set",
        "Beta": "50 bytes exceed the remaining 40",
    }


def test_no_build_starts_after_the_deadline(
    make: Any, samples: Any, timer: Any, profile: Any
) -> None:
    """Nor a build that would not end in time; shorter builds still start."""
    registry = make()
    samples.script["Alpha"] = lambda _: timer.advance(6)
    samples.script["Gamma"] = lambda _: timer.advance(5)
    known = profile(
        Alpha={"seconds": 6.0, "uses": 9},
        Beta={"seconds": 5.0, "uses": 8},
        Gamma={"seconds": 3.0, "uses": 7},
        Delta={"seconds": 0.0, "uses": 1},
    )
    report = registry.warm_up(known, deadline_seconds=10, workers=1)
    assert report.built == (("Alpha", 6.0), ("Gamma", 5.0))
    assert reasons(report) == {
        "Beta": "its build takes 5 s, and the deadline is in 4 s",
        "Delta": "the deadline has passed",
    }
    assert (report.seconds, report.build_seconds) == (11.0, 11.0)


def test_concurrent_builds_of_others_take_capacity(make: Any, samples: Any) -> None:
    """Nothing is evicted for the remaining classes."""
    registry = make(max_cache_size=2)
    samples.script["Alpha"] = lambda _: registry.get_instance("Delta")
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert sorted(eviction_order(registry)) == ["Alpha", "Delta"]
    assert reasons(report) == {"Beta": "no capacity is left"}
    samples.script["Alpha"] = lambda _: registry.get_instance("Beta")
    registry.clear_cache()
    report = registry.warm_up(["Alpha", "Beta"], workers=1)
    assert (report.warm, report.skipped) == (("Beta",), ())


# -- progress and interrupts ---------------------------------------------------------------------


def test_progress_is_called_in_the_calling_thread(make: Any, samples: Any) -> None:
    registry = make()
    told: list[Any] = []
    threads: set[int] = set()

    def progress(event: Any) -> None:
        told.append((event.class_name, event.state, event.done, event.total))
        threads.add(threading.get_ident())

    registry.warm_up(["Alpha", "Nobody", "Beta"], workers=1, progress=progress)
    assert told == [
        ("Alpha", "started", 0, 2),
        ("Alpha", "built", 1, 2),
        ("Beta", "started", 1, 2),
        ("Beta", "built", 2, 2),
    ]
    assert threads == {threading.get_ident()}


def test_an_error_in_progress_is_ignored(make: Any) -> None:
    registry = make()

    def progress(event: Any) -> None:
        raise RuntimeError("no terminal")

    report = registry.warm_up(["Alpha", "Beta"], progress=progress)
    assert len(report.built) == 2
    assert registry.stats().listener_failures == 4


def test_an_interrupt_waits_for_the_builds_in_progress(make: Any, samples: Any) -> None:
    registry = make()
    go_on = threading.Event()
    samples.script["Alpha"] = lambda _: go_on.wait(30.0)

    def progress(event: Any) -> None:
        go_on.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.warm_up(["Alpha", "Beta", "Gamma", "Delta"], workers=1, progress=progress)
    assert samples.built[:1] == ["Alpha"]
    assert len(samples.built) < 4
    assert not [t for t in threading.enumerate() if t.name.startswith("warmset-warm-up")]
    assert registry.warm_up(["Delta"]).failed == ()


def test_a_warm_up_during_look_ups_in_other_threads(make: Any, samples: Any) -> None:
    registry = make()
    stop = threading.Event()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            while not stop.is_set():
                for name in ("Alpha", "Beta", "Gamma", "Delta"):
                    with registry.use(name) as instance:
                        instance.echo()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        registry.warm_up(["Delta", "Gamma", "Beta", "Alpha"], workers=3)
        registry.clear_cache()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


# -- from a recording ----------------------------------------------------------------------------


def test_a_warm_up_with_a_recorded_profile(
    ws: Any, make: Any, samples: Any, timer: Any, memory: Any, tmp_path: Any
) -> None:
    """Through a file; look-ups by the warm-up do not count as uses."""
    registry = make()
    registry.record_profile()

    def ask(_: Any) -> None:
        timer.advance(1)
        registry.get_instance("Beta")
        timer.advance(2)

    samples.script["Alpha"] = ask
    registry.get_instance("Alpha")
    registry.get_instance("Alpha")
    registry.get_instance("Gamma")
    path = tmp_path / "profile.json"
    registry.profile().save(path)
    known = memory.Profile.load(path)
    assert known.skipped == ()
    assert known.classes["Alpha"].depends_on == ("Beta",)
    assert (known.classes["Alpha"].uses, known.classes["Gamma"].uses) == (2, 1)
    samples.built.clear()
    samples.script.clear()
    other = make()
    other.record_profile()
    report = other.warm_up(known, workers=1)
    assert samples.built == ["Beta", "Alpha", "Gamma"]
    assert report.failed == report.skipped == ()
    assert [entry.uses for entry in other.profile().classes.values()] == [0, 0, 0]
