"""Tests of snapshots in Ray's object store."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from threads import until

pytest.importorskip("ray")
pytest.importorskip("numpy")

import ray

from warmset import MethodRegistry
from warmset.engines import ray as engine
from warmset.engines.ray_store import RayStore
from warmset.engines.settings import WorkerSettings
from warmset.settings import RegistrySettings
from warmset.share import StoreBusyError, StoreError
from warmset.share.errors import DamagedError, StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture
def store(started: None, request: pytest.FixtureRequest) -> Iterator[RayStore]:
    store = RayStore(request.node.name, max_bytes=1000, wait_seconds=0.0)
    yield store
    store.destroy()


def put(store: RayStore, key: str, content: bytes) -> None:
    claim = store.claim(key)
    assert claim is not None
    with claim:
        claim.put([content[:3], memoryview(content)[3:]])


def content(store: RayStore, key: str) -> bytes | None:
    blob = store.fetch(key)
    return None if blob is None else bytes(blob.view)


def test_put_and_fetch(store: RayStore) -> None:
    other = pickle.loads(pickle.dumps(store))
    assert other == store
    assert store.fetch("a") is None
    put(store, "a", b"12345")
    assert content(other, "a") == b"12345"
    blob = other.fetch("a")
    assert blob is not None
    assert blob.shared
    assert blob.view.readonly
    put(other, "a", b"abcdefg")
    assert content(store, "a") == b"abcdefg"
    assert bytes(blob.view) == b"12345"
    assert store.discard("a")
    assert not store.discard("a")


def test_the_least_recently_used_snapshots_are_evicted(store: RayStore) -> None:
    for name in ("a", "b", "c"):
        put(store, name, b"x" * 400)
        assert content(store, "a") is not None
    assert [content(store, name) is not None for name in ("a", "b", "c")] == [True, False, True]
    put(store, "big", b"x" * 5000)
    assert store.clear() == 1


def test_one_claim_at_a_time(store: RayStore) -> None:
    claim = store.claim("a")
    assert claim is not None
    with claim:
        assert store.claim("a", wait=False) is None
        with pytest.raises(StoreBusyError, match=r"has been building a for \d+ s"):
            store.claim("a")
    with pytest.raises(StoreError, match="was released or is another process"):
        claim.put([b"x"])
    put(store, "a", b"12345")


def test_a_waiter_is_woken(store: RayStore, tmp_path: Path) -> None:
    """When the build in another process ends."""
    patient = RayStore(store.name, wait_seconds=60.0)
    claim = store.claim("a")
    assert claim is not None

    @ray.remote(num_cpus=0)
    def wait(store: RayStore, there: Path) -> tuple[bool, bytes]:
        assert store.claim("a", wait=False) is None
        there.touch()
        claim = store.claim("a")
        blob = store.fetch("a")
        return claim is None, b"" if blob is None else bytes(blob.view)

    there = tmp_path / "there"
    waiting = wait.remote(patient, there)
    until(there.exists)
    assert ray.wait([waiting], timeout=0.2)[0] == []
    with claim:
        claim.put([b"12345"])
    assert ray.get(waiting, timeout=30) == (True, b"12345")


def test_a_builder_that_lost_its_claim_cannot_write(store: RayStore) -> None:
    late = store.claim("a")
    assert late is not None
    late._release()  # as if its lease had expired
    claim = store.claim("a")
    assert claim is not None
    with claim:
        with pytest.raises(StoreError, match="the claim of a was lost"):
            late.put([b"late"])
        late.__exit__(None, None, None)
        assert store.claim("a", wait=False) is None
        claim.put([b"in time"])
    assert content(store, "a") == b"in time"


def test_a_dead_builder_loses_its_claim(store: RayStore) -> None:
    hasty = RayStore(store.name, lease_seconds=2.0, wait_seconds=60.0)

    @ray.remote(num_cpus=0)
    def hold(store: RayStore) -> None:
        store.claim("a")
        os._exit(1)  # simulates a killed process

    with pytest.raises(ray.exceptions.RayError):
        ray.get(hold.options(max_retries=0).remote(hasty))
    while (claim := hasty.claim("a")) is None:
        pass
    with claim:
        claim.put([b"mine"])
    assert content(store, "a") == b"mine"


def test_a_killed_index(store: RayStore) -> None:
    """Its snapshots are lost; a new index is created automatically."""
    put(store, "a", b"12345")
    ray.kill(store._index)
    with pytest.raises(StoreError, match="cannot reach the index"):
        store.fetch("a")
    assert store.fetch("a") is None
    put(store, "a", b"12345")
    assert content(store, "a") == b"12345"


def test_invalid_arguments_raise() -> None:
    with pytest.raises(TypeError, match="non-empty str"):
        RayStore("")
    with pytest.raises(ValueError, match=r"lease_seconds must be 0\.1 or more"):
        RayStore(lease_seconds=0.0)
    with pytest.raises(TypeError, match="max_bytes must be a number"):
        RayStore(max_bytes="1")  # type: ignore[arg-type]


def test_trust_is_configured_as_in_the_other_stores(tmp_path: Path) -> None:
    new, old = b"new key, 16 bytes or more", b"old key, 16 bytes or more"
    store = RayStore(keys=[new, old], version="2", max_age_seconds=5.0)
    assert (len(store.secrets), store.secret, store.version) == (2, store.secrets[0], "2")
    assert store.max_age_seconds == 5.0
    assert store != RayStore(keys=[new, old])
    for secret in (new, old):
        assert secret.decode() not in repr(store)
    (tmp_path / "key").write_bytes(new)
    (tmp_path / "key").chmod(0o600)
    held = RayStore(key_file=tmp_path / "key", version="2", max_age_seconds=5.0)
    again = pickle.loads(pickle.dumps(held))
    assert again == held
    assert (again.secrets, again.max_age_seconds) == (held.secrets, 5.0)
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(StoreRefusedError, match="open to other users"):
        RayStore(key_file=tmp_path / "key")
    for wrong in ({"version": 1}, {"keys": "one text"}, {"max_age_seconds": "1"}):
        with pytest.raises(TypeError):
            RayStore(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="at most one"):
        RayStore(key=new, keys=[new])
    with pytest.raises(ValueError, match="max_age_seconds"):
        RayStore(max_age_seconds=-1.0)


def test_large_snapshots_are_neither_stored_nor_opened(store: RayStore) -> None:
    put(store, "a", b"12345")
    strict = RayStore(store.name, max_snapshot_bytes=4)
    with pytest.raises(DamagedError, match="more than max_snapshot_bytes"):
        strict.fetch("a")
    claim = strict.claim("b")
    assert claim is not None
    with claim, pytest.raises(StoreError, match="more than max_snapshot_bytes"):
        claim.put([b"12345"])
    assert store.fetch("b") is None


def test_keys_rotate_and_old_snapshots_are_not_opened(
    store: RayStore, built: Callable[[], list[str]]
) -> None:
    """By the code that all stores share: the signature, the version, and the time of signing."""
    new, old = b"new key, 16 bytes or more", b"old key, 16 bytes or more"

    def use(**trust: Any) -> int:
        before = len(built())
        with MethodRegistry({}, store=RayStore(store.name, **trust)) as registry:
            registry.register("Table", "shared_samples.Table", shareable=True)
            assert registry.get_instance("Table").total() == sum(range(10_000))
        return len(built()) - before

    assert [use(key=old), use(key=old)] == [1, 0]
    assert [use(keys=[new, old]), use(key=new, version="2"), use(key=new, version="2")] == [0, 1, 0]
    assert use(key=new, version="2", max_age_seconds=1e-6) == 1


def test_workers_share_a_snapshot(started: None, built: Callable[[], list[str]]) -> None:
    """The class is used on both workers and built on one."""
    store = RayStore("shared")
    settings = WorkerSettings(
        {"Table": "shared_samples.Table"},
        settings=RegistrySettings(store=store),
        class_options={"Table": {"shareable": True}},
    )
    with engine.start(settings, workers=2) as cluster:

        def look(worker: Any) -> tuple[bool, bool]:
            table = worker.registry.get_instance("Table")
            return bool(table.weights.flags.owndata), bool(table.weights.flags.writeable)

        assert list(cluster.on_each_worker(look).values()) == [(False, False)] * 2
        assert cluster.submit("Table", "total", {}).result() == sum(range(10_000))
    assert built() == ["Table"]
    with MethodRegistry({}, store=store) as registry:  # also in the driver
        registry.register("Table", "shared_samples.Table", shareable=True)
        assert registry.get_instance("Table").total() == sum(range(10_000))
    assert built() == ["Table"]
    store.destroy()
