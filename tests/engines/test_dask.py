"""Tests of registries on a local Dask cluster with two worker processes."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import engine_samples
import pytest
from threads import until

pytest.importorskip("distributed")

from distributed import Client, LocalCluster, as_completed, wait

from warmset import ArgumentValidationError, BuildError, FamilyKey, UnknownClassError
from warmset.engines import dask as engine
from warmset.engines.errors import EngineError
from warmset.engines.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Dask closes some sockets and event loops only after they have been dropped.
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_START_SECONDS = 60


def _local_cluster() -> LocalCluster:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LocalCluster(
            n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )


@contextmanager
def _connected(cluster: LocalCluster) -> Iterator[Client]:
    """A client of a cluster with empty registries."""
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=_START_SECONDS)
        engine.install(client, WorkerSettings(engine_samples.PATHS))
        yield client
        engine.uninstall(client)


@pytest.fixture(scope="module")
def cluster(notes_file: Path) -> Iterator[LocalCluster]:
    with _local_cluster() as cluster:
        yield cluster
    gc.collect()


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with _connected(cluster) as client:
        yield client


@pytest.fixture
def client_that_may_lose_a_worker(notes_file: Path) -> Iterator[Client]:
    """Its cluster is its own: whether a nanny replaces a killed worker in time is Dask's matter."""
    with _local_cluster() as cluster, _connected(cluster) as client:
        yield client
    gc.collect()


def test_a_call(client: Client) -> None:
    assert engine.submit_method(client, "One", "add", x=1, y=2).result() == 3
    assert engine.submit_method(client, "One", "add", x=5).result() == 5


def test_calls_go_to_the_worker_where_the_class_is_warm(
    client: Client, built: Callable[[], list[str]]
) -> None:
    names = ["One", "Two", "Three", "Four"]
    futures = engine.map_methods(client, [(name, "where") for _ in range(25) for name in names])
    processes = client.gather(futures)
    by_class = {name: set(processes[at::4]) for at, name in enumerate(names)}
    assert all(len(where) == 1 for where in by_class.values())
    assert built() == sorted(names)
    assert len(set(processes)) == 2
    told = engine.stats(client)
    assert told.total["total_instantiations"] == 4
    assert (told.total["workers"], told.total["calls"]) == (2, 100)
    assert told.total["cache_hits"] + told.total["cache_misses"] == 100
    assert sorted(name for each in told.workers.values() for name in each.warm) == sorted(names)
    assert {each.pid for each in told.workers.values()} == set(processes)


def test_results_come_in_the_order_of_the_calls(client: Client) -> None:
    calls = [(name, "add", {"x": at}) for at in range(600) for name in ("One", "Two")]
    results = client.gather(engine.map_methods(client, calls))
    assert results == [at for at in range(600) for _ in range(2)]


def test_errors_of_calls_reach_the_caller(client: Client) -> None:
    with pytest.raises(KeyError, match="here"):
        engine.submit_method(client, "One", "fail", text="here").result()
    with pytest.raises(UnknownClassError, match="nearest: 'One'") as unknown:
        engine.submit_method(client, "Oen", "add").result()
    assert (unknown.value.class_name, unknown.value.method_name) == ("Oen", "add")
    with pytest.raises(BuildError, match="raised OSError: no such model") as failed:
        engine.submit_method(client, "Broken", "add").result()
    assert failed.value.class_name == "Broken"
    with pytest.raises(ArgumentValidationError, match="x"):
        engine.submit_method(client, "One", "add").result()


def test_futures_can_be_passed_to_other_calls(client: Client) -> None:
    one = engine.submit_method(client, "One", "add", x=1)
    two = engine.submit_method(client, "Two", "add", x=one, y=10)
    three = client.submit(lambda value: value * 2, two)
    assert three.result() == 22
    done = list(as_completed(engine.map_methods(client, [("One", "add", {"x": 1})] * 3)))
    assert [future.result() for future in done] == [1, 1, 1]


def test_invalid_calls_raise_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match=r"call 1: the arguments of One\.add must be a mapping"):
        engine.map_methods(client, [("One", "add", {"x": 1}), ("One", "add", 3)])
    with pytest.raises(TypeError, match="call 0 must be"):
        engine.map_methods(client, ["One"])
    with pytest.raises(TypeError, match="class name"):
        engine.submit_method(client, 3, "add")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected WorkerSettings"):
        engine.install(client, {"One": "a.One"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not asynchronous"):
        engine.install("client", WorkerSettings({}))  # type: ignore[arg-type]


def test_rules_and_prepare(client: Client, built: Callable[[], list[str]]) -> None:
    settings = WorkerSettings(engine_samples.PATHS, rules={"Ruled": ("engine_samples.rule", "1")})
    engine.install(client, settings)
    assert engine.submit_method(client, "Ruled", "others").result() == "int"
    engine.install(client, WorkerSettings(engine_samples.PATHS, prepare=engine_samples.prepare))
    assert engine.submit_method(client, "Ruled", "others").result() == "One"
    assert built() == ["One", "Ruled", "Ruled"]


def test_errors_while_creating_a_registry(client: Client) -> None:
    settings = WorkerSettings(engine_samples.PATHS, prepare=engine_samples.bad_prepare)
    with pytest.raises(RuntimeError, match="not on this worker"):
        engine.install(client, settings)
    with pytest.raises(ValueError, match="a rule for 'Nobody', which is not in class_paths"):
        WorkerSettings({}, rules={"Nobody": engine_samples.rule})


def test_clear_and_warm_up(client: Client, built: Callable[[], list[str]]) -> None:
    reports = engine.warm_up(client, ["One", "Two", "Three", "Four"])
    assert len(reports) == 2
    names = [each["class_name"] for report in reports.values() for each in report["built"]]
    assert sorted(names) == ["Four", "One", "Three", "Two"]
    client.gather(engine.map_methods(client, [(name, "where") for name in names]))
    assert engine.stats(client).total["cache_misses"] == 4  # from the warm-up
    cleared = engine.clear(client)
    assert sum(each["entries_cleared"] for each in cleared.values()) == 4
    assert all("release" in each for each in engine.clear(client, release=True).values())
    assert engine.stats(client).total["cached_instances"] == 0
    with pytest.raises(TypeError, match="got the str 'One'"):
        engine.warm_up(client, "One")


def test_worker_registry(client: Client) -> None:
    def ask() -> list[str]:
        from warmset.engines.dask import worker_registry

        return list(worker_registry().class_names())

    assert client.submit(ask, pure=False).result() == list(engine_samples.PATHS)
    with pytest.raises(EngineError, match="does not run on a Dask worker"):
        engine.worker_registry()


def test_another_client_makes_the_same_assignments(client: Client, cluster: LocalCluster) -> None:
    names = ["One", "Two", "Three", "Four"]
    mine = client.gather(engine.map_methods(client, [(name, "where") for name in names]))
    with Client(cluster) as other:
        theirs = other.gather(engine.map_methods(other, [(name, "where") for name in names]))
    assert mine == theirs


@pytest.mark.parametrize("install_twice", [False, True])
def test_a_lost_worker_loses_no_result(
    client_that_may_lose_a_worker: Client,
    built: Callable[[], list[str]],
    notes_file: Path,
    tmp_path: Path,
    install_twice: bool,
) -> None:
    """Neither running and queued calls nor finished results that were stored on it."""
    client = client_that_may_lose_a_worker
    if install_twice:
        engine.install(client, WorkerSettings(engine_samples.PATHS))
    names = ["One", "Two", "Three", "Four"]
    before = dict(
        zip(
            names,
            client.gather(engine.map_methods(client, [(n, "where") for n in names])),
            strict=True,
        )
    )
    victim = before["One"]
    survivors = [name for name in names if before[name] != victim]
    assert survivors
    done = engine.map_methods(client, [(name, "add", {"x": 7}) for name in names])
    wait(done)
    gate = tmp_path / "gate"
    waiting = [engine.submit_method(client, "One", "wait_for", path=str(gate)) for _ in range(2)]
    queued = engine.map_methods(client, [("One", "add", {"x": at}) for at in range(50)])
    until(lambda: notes_file.read_text().count("waits") >= 2)
    os.kill(victim, signal.SIGKILL)
    gate.touch()
    assert client.gather(done) == [7] * 4
    assert victim not in client.gather(waiting)
    assert client.gather(queued) == list(range(50))
    after = client.gather(engine.map_methods(client, [(name, "where") for name in names]))
    assert victim not in after
    # The lost instance is built once more, not on every worker.
    assert built().count("One") <= 3


def test_a_registry_is_closed_with_its_worker(
    cluster: LocalCluster, client: Client, built: Callable[[], list[str]]
) -> None:
    """Also when it is uninstalled or replaced."""
    engine.submit_method(client, "Four", "where").result()
    engine.install(client, WorkerSettings(engine_samples.PATHS))
    assert built() == ["Four", "closed"]
    engine.submit_method(client, "Four", "where").result()
    engine.uninstall(client)
    assert built() == ["Four", "Four", "closed", "closed"]
    with pytest.raises(EngineError, match="has no registry"):
        engine.submit_method(client, "Four", "where").result()
    engine.install(client, WorkerSettings(engine_samples.PATHS))  # the fixture uninstalls it


def test_a_class_with_a_long_queue_gets_another_worker(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the durations of its calls and its build are known."""
    from warmset.engines import affinity

    monkeypatch.setattr(affinity, "MIN_BUILD_SECONDS", 0.01)
    monkeypatch.setattr(affinity, "BUILD_WEIGHT", 0.1)  # builds are slow on a busy machine
    monkeypatch.setattr(engine, "_REFRESH_SECONDS", 0.0)
    for _ in range(3):
        engine.submit_method(client, "One", "doze", seconds=0.05).result()
    futures = [engine.submit_method(client, "One", "doze", seconds=0.05) for _ in range(40)]
    assert len(set(client.gather(futures))) == 2
    assert len(engine._router_of(client).router.placements()["One"]) == 2


def test_start(notes_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts a cluster, or joins a running one."""
    settings = WorkerSettings(engine_samples.PATHS)
    with engine.start(settings, workers=1) as cluster:
        assert cluster.submit("One", "add", {"x": 1}).result() == 1
        engine_samples.check_run(cluster)
        assert len(cluster.workers()) == 1
        address = cluster.client.scheduler.address
        with engine.start(settings, address=address) as joined:
            assert joined.submit("Two", "add", {"x": 2}).result() == 2
            assert joined.stats().total["total_instantiations"] == 1  # reinstalled
            told = joined.on_each_worker(lambda worker, x: (worker.name, x), 3)
            assert list(told.values()) == [(joined.workers()[0], 3)]
        with pytest.raises(EngineError, match="has no registry"):
            cluster.submit("One", "add", {"x": 1}).result()
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(EngineError, match=r"cannot reach a Dask scheduler at tcp://127"):
        engine.start(settings, address="tcp://127.0.0.1:9")


def test_a_lost_worker_loses_no_result_that_stayed_on_it(
    client_that_may_lose_a_worker: Client,
) -> None:
    """What it had kept is computed again, once a later call needs it."""
    client = client_that_may_lose_a_worker
    cluster = engine.DaskCluster(client, None)
    (victim, process), *_ = engine.on_each_worker(client, lambda worker: os.getpid()).items()
    sent = {"class_name": "One", "keep": True}
    works = [cluster.run(victim, engine_samples.keep, (text,), **sent) for text in ("a", "b")]
    assert [work.result()[0] for work in works] == [1, 1]
    os.kill(process, signal.SIGKILL)
    kept = [work.kept for work in works]
    last = cluster.run(victim, engine_samples.keep, ("c", *kept), **sent)
    assert last.result()[0] == 1
    assert cluster.fetch(last.kept) == ["a", "b", "c"]


def test_workers_in_one_process(notes_file: Path) -> None:
    """Each worker has its own registry, also if several share a process."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        engine.install(client, WorkerSettings(engine_samples.PATHS))
        names = ["One", "Two", "Three", "Four"]
        client.gather(engine.map_methods(client, [(name, "where") for name in names]))
        told = engine.stats(client)
        assert told.total["total_instantiations"] == 4
        assert sorted(len(each.warm) for each in told.workers.values()) in ([1, 3], [2, 2])


def test_calls_of_a_family_go_to_the_worker_where_the_key_is_warm(
    client: Client, built: Callable[[], list[str]]
) -> None:
    engine.install(client, WorkerSettings({}, families=engine_samples.FAMILIES))
    keys = [FamilyKey("Model", key) for key in ("fr", 1, "1", ("de", 2))]
    futures = engine.map_methods(client, [(key, "where") for _ in range(10) for key in keys])
    processes = client.gather(futures)
    assert all(len(set(processes[at::4])) == 1 for at in range(4))
    assert built() == ["Keyed"] * 4
    futures = [engine.submit_method(client, key, "own_key") for key in keys]
    assert client.gather(futures) == ["fr", 1, "1", ("de", 2)]
    told = engine.stats(client)
    assert told.total["total_instantiations"] == 4
    assert {name for each in told.workers.values() for name in each.build_seconds} == {"Model"}
    report = engine.warm_up(client, [FamilyKey("Model", "es"), keys[0]])
    assert sum(len(each["built"]) for each in report.values()) == 1
