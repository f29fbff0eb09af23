"""Tests of registries in the actors of a local Ray cluster with two workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import engine_samples
import psutil
import pytest
from threads import until

pytest.importorskip("ray")

import ray

from warmset import ArgumentValidationError, FamilyKey, UnknownClassError
from warmset.engines import ray as engine
from warmset.engines.errors import EngineError
from warmset.engines.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Ray closes some pipes and processes only after they have been dropped.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NAMES = ["One", "Two", "Three", "Four"]


@pytest.fixture(scope="module")
def actors(started: None) -> Iterator[engine.RayWorkers]:
    workers = engine.RayWorkers(2, threads=2)
    engine.install(workers, WorkerSettings(engine_samples.PATHS))
    yield workers
    engine.uninstall(workers)


@pytest.fixture
def workers(actors: engine.RayWorkers) -> engine.RayWorkers:
    """Workers with empty registries."""
    engine.clear(actors)
    return actors


def where(workers: engine.RayWorkers) -> dict[str, int]:
    """Return the process id of the worker of each class."""
    refs = engine.map_methods(workers, [(name, "where") for name in NAMES])
    return dict(zip(NAMES, ray.get(refs), strict=True))


def test_a_call(workers: engine.RayWorkers) -> None:
    assert ray.get(engine.submit_method(workers, "One", "add", x=1, y=2)) == 3
    assert ray.get(engine.submit_method(workers, "One", "add", x=5)) == 5


def test_calls_go_to_the_worker_where_the_class_is_warm(
    workers: engine.RayWorkers, built: Callable[[], list[str]]
) -> None:
    before = engine.stats(workers).total
    refs = engine.map_methods(workers, [(name, "where") for _ in range(25) for name in NAMES])
    processes = ray.get(refs)
    assert all(len(set(processes[at::4])) == 1 for at in range(4))
    assert built() == sorted(NAMES)
    assert len(set(processes)) == 2
    told = engine.stats(workers)
    assert told.total["total_instantiations"] - before["total_instantiations"] == 4
    assert told.total["calls"] - before["calls"] == 100
    assert sorted(name for each in told.workers.values() for name in each.warm) == sorted(NAMES)
    assert {each.pid for each in told.workers.values()} == set(processes)


def test_results_come_in_the_order_of_the_calls(workers: engine.RayWorkers) -> None:
    calls = [(name, "add", {"x": at}) for at in range(200) for name in ("One", "Two")]
    assert ray.get(engine.map_methods(workers, calls)) == [at for at in range(200) for _ in "ab"]


def test_finished_calls_are_forgotten(workers: engine.RayWorkers) -> None:
    """Their durations have been recorded."""
    ray.get([engine.submit_method(workers, "One", "doze", seconds=0.02) for _ in range(4)])
    while workers._in_progress:
        workers._collect_finished()
    assert workers.router.longest_wait() == pytest.approx(0.0)
    known = workers.router._classes["One"]
    assert known.times.call_seconds is not None
    assert known.times.call_seconds > 0.001
    assert known.times.build_seconds is not None


def test_errors_of_calls_reach_the_caller(workers: engine.RayWorkers) -> None:
    """With the class of the original error, which is available as `cause`."""
    with pytest.raises(KeyError):
        ray.get(engine.submit_method(workers, "One", "fail", text="here"))
    with pytest.raises(UnknownClassError) as unknown:
        ray.get(engine.submit_method(workers, "Oen", "add"))
    assert unknown.value.cause.class_name == "Oen"  # type: ignore[attr-defined]
    with pytest.raises(ArgumentValidationError):
        ray.get(engine.submit_method(workers, "One", "add"))


def test_refs_can_be_passed_to_other_calls(workers: engine.RayWorkers) -> None:
    one = engine.submit_method(workers, "One", "add", x=1)
    two = engine.submit_method(workers, "Two", "add", x=one, y=10)
    double = ray.remote(num_cpus=0)(lambda value: value * 2)
    assert ray.get(double.remote(two)) == 22
    assert ray.wait([one, two], num_returns=2, timeout=30)[1] == []


def test_invalid_calls_raise_before_anything_is_sent(workers: engine.RayWorkers) -> None:
    with pytest.raises(TypeError, match=r"call 1: the arguments of One\.add must be a mapping"):
        engine.map_methods(workers, [("One", "add", {"x": 1}), ("One", "add", 3)])
    with pytest.raises(TypeError, match="class name"):
        engine.submit_method(workers, 3, "add")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected WorkerSettings"):
        engine.install(workers, {"One": "a.One"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected RayWorkers"):
        engine.install("workers", WorkerSettings({}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be a whole number, 1 or more, got 0"):
        engine.RayWorkers(0)
    with pytest.raises(EngineError, match="there are no workers"):
        engine.submit_method(engine.RayWorkers(), "One", "add", x=1)


def test_clear_and_warm_up(workers: engine.RayWorkers) -> None:
    before = engine.stats(workers).total["cache_misses"]
    reports = engine.warm_up(workers, NAMES)
    names = [each["class_name"] for report in reports.values() for each in report["built"]]
    assert sorted(names) == sorted(NAMES)
    where(workers)
    assert engine.stats(workers).total["cache_misses"] - before == 4  # from the warm-up
    cleared = engine.clear(workers, release=True)
    assert sum(each["entries_cleared"] for each in cleared.values()) == 4
    assert all("release" in each for each in cleared.values())


def test_worker_registry(workers: engine.RayWorkers) -> None:
    def ask(worker: Any) -> bool:
        from warmset.engines.ray import worker_registry

        return worker_registry() is worker.registry

    assert set(engine.on_each_worker(workers, ask).values()) == {True}
    with pytest.raises(EngineError, match="does not run on a worker"):
        engine.worker_registry()
    with pytest.raises(ZeroDivisionError):
        engine.on_each_worker(workers, lambda worker: 1 / 0)


def test_a_class_with_a_long_queue_gets_another_worker(
    workers: engine.RayWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the durations of its calls and its build are known."""
    from warmset.engines import affinity

    monkeypatch.setattr(affinity, "MIN_BUILD_SECONDS", 0.01)
    monkeypatch.setattr(affinity, "BUILD_WEIGHT", 0.1)  # builds are slow on a busy machine
    for _ in range(3):
        ray.get(engine.submit_method(workers, "Three", "doze", seconds=0.05))
    refs = [engine.submit_method(workers, "Three", "doze", seconds=0.05) for _ in range(40)]
    assert len(set(ray.get(refs))) == 2
    assert len(workers.router.placements()["Three"]) == 2


def test_a_registry_is_closed_with_its_worker(
    started: None, built: Callable[[], list[str]]
) -> None:
    workers = engine.RayWorkers(1)
    engine.install(workers, WorkerSettings(engine_samples.PATHS))
    ray.get(engine.submit_method(workers, "Four", "where"))
    engine.install(workers, WorkerSettings(engine_samples.PATHS))
    assert built() == ["Four", "closed"]
    engine.uninstall(workers)
    assert built() == ["Four", "closed"]


def test_a_lost_worker_loses_no_result(
    workers: engine.RayWorkers,
    built: Callable[[], list[str]],
    notes_file: Path,
    tmp_path: Path,
) -> None:
    """Neither running nor queued calls are lost."""
    before = where(workers)
    victim = before["One"]
    gate = tmp_path / "gate"
    waiting = [engine.submit_method(workers, "One", "wait_for", path=str(gate)) for _ in range(2)]
    queued = engine.map_methods(workers, [("One", "add", {"x": at}) for at in range(50)])
    until(lambda: notes_file.read_text().count("waits") >= 2)
    os.kill(victim, signal.SIGKILL)
    gate.touch()
    assert victim not in ray.get(waiting, timeout=60)
    assert ray.get(queued, timeout=60) == list(range(50))
    after = where(workers)
    assert victim not in after.values()
    survivors = [name for name in NAMES if before[name] != victim]
    assert survivors
    assert all(after[name] == before[name] for name in survivors)
    assert built().count("One") <= 3


def _has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_actor_gets_no_more_calls(started: None) -> None:
    workers = engine.RayWorkers(2)
    engine.install(workers, WorkerSettings(engine_samples.PATHS))
    first = where(workers)["One"]
    (name,) = [
        n for n, p in engine.on_each_worker(workers, lambda w: os.getpid()).items() if p == first
    ]
    ray.kill(workers.actors[name])
    until(lambda: _has_ended(first))  # a call could still reach it
    assert len(engine.stats(workers).workers) == 1
    assert ray.get(engine.submit_method(workers, "One", "add", x=1), timeout=60) == 1
    engine.uninstall(workers)


def test_rules_prepare_and_errors_while_creating_a_registry(started: None) -> None:
    workers = engine.RayWorkers(1)
    settings = WorkerSettings(engine_samples.PATHS, rules={"Ruled": ("engine_samples.rule", "1")})
    engine.install(workers, settings)
    assert ray.get(engine.submit_method(workers, "Ruled", "others")) == "int"
    engine.install(workers, WorkerSettings(engine_samples.PATHS, prepare=engine_samples.prepare))
    assert ray.get(engine.submit_method(workers, "Ruled", "others")) == "One"
    with pytest.raises(EngineError, match="not on this worker"):
        engine.install(
            workers, WorkerSettings(engine_samples.PATHS, prepare=engine_samples.bad_prepare)
        )
    assert workers.names() == []


def test_start(started: None) -> None:
    """Uses the cluster that the process has joined and leaves it running."""
    with engine.start(WorkerSettings(engine_samples.PATHS), workers=1) as cluster:
        assert cluster.submit("One", "add", {"x": 1}).result() == 1
        engine_samples.check_run(cluster)
        assert cluster.workers() == ["worker-0"]
        assert cluster.stats().total["total_instantiations"] == 1
        assert cluster.on_each_worker(lambda worker, x: x, 3) == {"worker-0": 3}
        with pytest.raises(KeyError, match="here") as caught:
            cluster.submit("One", "fail", {"text": "here"}).result()
        assert type(caught.value) is KeyError
        with pytest.raises(UnknownClassError) as unknown:
            cluster.submit("Oen", "add", {}).result()
        assert unknown.value.class_name == "Oen"
    assert ray.is_initialized()


def test_a_lost_worker_loses_no_result_that_stayed_on_it(started: None) -> None:
    with engine.start(WorkerSettings(engine_samples.PATHS), workers=2) as cluster:
        process = cluster.on_each_worker(lambda worker: os.getpid())["worker-0"]
        sent = {"class_name": "One", "keep": True}
        long = "a" * 1_000_000  # stays in the object store; short values are sent with the report
        works = [cluster.run("worker-0", engine_samples.keep, (x,), **sent) for x in (long, "b")]
        assert [work.result()[0] for work in works] == [1_000_000, 1]
        os.kill(process, signal.SIGKILL)
        kept = [work.kept for work in works]
        last = cluster.run("worker-0", engine_samples.keep, ("c", *kept), **sent)
        assert last.result() == (1, "worker-0")
        assert cluster.fetch(last.kept) == [long, "b", "c"]


def test_calls_of_a_family_go_to_the_worker_where_the_key_is_warm(started: None) -> None:
    settings = WorkerSettings({}, families=engine_samples.FAMILIES)
    with engine.start(settings, workers=2) as cluster:
        keys = [FamilyKey("Model", key) for key in ("fr", 1, "1", ("de", 2))]
        pending = [cluster.submit(key, "where", {}) for _ in range(5) for key in keys]
        processes = [each.result() for each in pending]
        assert all(len(set(processes[at::4])) == 1 for at in range(4))
        assert [cluster.submit(key, "own_key", {}).result() for key in keys] == [
            "fr",
            1,
            "1",
            ("de", 2),
        ]
        assert cluster.stats().total["total_instantiations"] == 4
